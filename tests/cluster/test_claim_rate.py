"""How many claims one worker makes in a time: many owners under ever new names of projects, and honest mass starts."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from mesh.cluster.claim_rate import ClaimRate
from mesh.cluster.claims import ClaimName, ClaimRequest, ClaimVip, MoveVip, RecordDeclaration, plan_claims
from mesh.cluster.sync import ClusterSync
from mesh.control.conditions import LoopConditions
from mesh.model.claims import ClaimLimits, ClaimPace, Claims
from mesh.model.codes import Code
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Service
from mesh.model.view import ClusterView
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import POOL, service

pytestmark = pytest.mark.looptime

PACE = ClaimPace(at_once=20, per_minute=6)


def evil(numbers: Iterable[int]) -> tuple[Service, ...]:
    return tuple(service(f"n{n}.test", owner=f"evil{n}/web") for n in numbers)


class PacedWorker:
    """A worker whose claims have a pace."""

    def __init__(self, cluster: MemoryCluster, pace: ClaimPace = PACE) -> None:
        self.view = ClusterView()
        self.conditions = LoopConditions()
        limits = ClaimLimits(pace=pace)
        self.sync = ClusterSync("w1", MemoryStore(cluster, "w1"), self.conditions, self._decide, limits=limits)

    def _decide(self, seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=POOL, ports=range(30000, 30010))

    def _see(self, seen: ClusterView) -> None:
        self.view = seen

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PacedWorker"]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.sync.run(self._see, patient=False))
            yield self
            task.cancel()

    def runs(self, services: Sequence[Service]) -> None:
        endpoints = tuple(Endpoint(f"{s.owner}/1", s.owner, "w1", "10.2.0.1") for s in services)
        self.sync.offer(tuple(services), endpoints)

    @property
    def served(self) -> int:
        """How many services have their name and a VIP."""
        claims = self.view.claims
        assert claims.owners.keys() == claims.vips.keys(), "a name comes with its VIP"
        return len(claims.owners)

    @property
    def codes(self) -> set[Code]:
        return {problem.code for problem in self.conditions.problems.get("claims", ())}


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


async def test_owners_under_ever_new_names_of_projects_share_one_pace(cluster: MemoryCluster) -> None:
    async with PacedWorker(cluster).running() as worker:
        for round_ in range(10):  # they come and go: what a service took stays taken
            worker.runs(evil(range(10 * round_, 10 * round_ + 10)))
            await asyncio.sleep(3)
        assert 20 <= worker.served <= 23
        assert worker.codes == {Code.CLAIM_RATE}
        claimed = len([key for key in cluster.records if key.startswith("claims/vips/")])
        assert claimed == worker.served


async def test_those_that_wait_get_theirs_one_after_another(cluster: MemoryCluster) -> None:
    async with PacedWorker(cluster).running() as worker:
        worker.runs(evil(range(40)))
        await asyncio.sleep(5)
        assert worker.served == 20
        (problem,) = worker.conditions.problems["claims"]
        assert problem.code is Code.CLAIM_RATE
        await asyncio.sleep(60)
        assert 25 <= worker.served <= 27
        assert worker.conditions.problems["claims"] == (problem,), "its text does not change while it lasts"
        await asyncio.sleep(180)
        assert worker.served == 40
        assert worker.codes == set()


async def test_known_claims_do_not_count_after_a_start(cluster: MemoryCluster) -> None:
    services = evil(range(500))
    async with PacedWorker(cluster, ClaimPace()).running() as worker:
        worker.runs(services)
        await asyncio.sleep(20)
        assert (worker.served, worker.codes) == (500, set())
    await asyncio.sleep(60)
    async with PacedWorker(cluster).running() as worker:
        worker.runs(services)
        await asyncio.sleep(5)
        assert (worker.served, worker.codes) == (500, set())
        worker.runs((*services, service("new.test", owner="new/web")))
        await asyncio.sleep(5)
        assert (worker.served, worker.codes) == (501, set())


async def test_an_absence_of_the_store_spends_nothing(cluster: MemoryCluster) -> None:
    async with PacedWorker(cluster).running() as worker:
        await asyncio.sleep(5)
        cluster.out_of_reach = True
        worker.runs(evil(range(20)))
        await asyncio.sleep(30)
        cluster.out_of_reach = False
        await asyncio.sleep(10)
        assert (worker.served, worker.codes) == (20, set())


def names(wishes: Iterable[ClaimRequest]) -> list[str]:
    return [wish.name for wish in wishes if isinstance(wish, ClaimName)]


def test_a_project_that_holds_names_comes_before_unknown_ones() -> None:
    claims = Claims(owners={"shop.test": "shop/web"})
    services = (*evil(range(30)), service("new.test", owner="shop/new"))
    wishes = [ClaimName(s.name, s.owner) for s in services]
    admitted = names(ClaimRate(PACE).admit(wishes, services, claims, 1e6))
    assert len(admitted) == 20
    assert "new.test" in admitted


def test_one_that_has_waited_for_longer_comes_first() -> None:
    rate = ClaimRate(ClaimPace(at_once=1, per_minute=60))
    late = service("late.test", owner="a/late")
    waiting = evil([1, 2])
    first = rate.admit([ClaimName(s.name, s.owner) for s in waiting], waiting, Claims(), 100.0)
    assert names(first) == ["n1.test"]
    rate.claimed(first, waiting)
    services = (late, *waiting[1:])
    assert rate.next_look(100.0) == pytest.approx(1.0)
    again = rate.admit([ClaimName(s.name, s.owner) for s in services], services, Claims(), 101.0)
    assert names(again) == ["n2.test"]


def test_an_owner_that_wants_more_than_the_allowance_gets_it_once_that_is_full() -> None:
    rate = ClaimRate(PACE)
    big = service("n0.test", owner="big/web")
    wishes = [ClaimName(f"n{n}.test", big.owner) for n in range(30)]
    admitted = rate.admit(wishes, [big], Claims(), 0.0)
    assert names(admitted) == [wish.name for wish in wishes]
    rate.claimed(admitted, [big])
    other = evil([1])
    assert rate.admit([ClaimName("n1.test", "evil1/web")], other, Claims(), 0.0) == ()
    assert rate.next_look(0.0) == pytest.approx(10.0)


def test_all_wait_for_the_next_one_and_nothing_is_looked_at_before_its_time() -> None:
    rate = ClaimRate(ClaimPace(at_once=10, per_minute=60))
    taken = evil(range(7))
    rate.claimed(rate.admit([ClaimName(s.name, s.owner) for s in taken], taken, Claims(), 0.0), taken)
    big, small = service("n0.test", owner="a/big"), service("small.test", owner="b/small")
    wishes = [*(ClaimName(f"n{n}.test", big.owner) for n in range(5)), ClaimName(small.name, small.owner)]
    assert rate.admit(wishes, [big, small], Claims(), 0.0) == ()
    assert rate.next_look(0.0) == pytest.approx(2.0)
    assert len(rate.admit(wishes, [big, small], Claims(), 3.0)) == 6


def test_wishes_that_an_older_view_repeats_are_spent_once() -> None:
    rate, services = ClaimRate(PACE), evil(range(20))
    wishes = [ClaimName(s.name, s.owner) for s in services]
    for _ in range(5):
        rate.claimed(rate.admit(wishes, services, Claims(), 0.0), services)
    assert names(rate.admit(wishes, services, Claims(), 0.0)) == [s.name for s in services]


def test_moves_of_vips_count_and_all_wishes_of_one_that_waits_are_held_up_except_its_declaration() -> None:
    rate, one = ClaimRate(ClaimPace(at_once=1, per_minute=1)), service("n1.test", owner="evil1/web")
    two = service("n2.test", owner="evil2/web")
    moves = [MoveVip(s.name, "10.112.0.9", "10.112.0.8") for s in (one, two)]
    wishes: list[ClaimRequest] = [*moves, ClaimVip(two.name, "10.112.0.7"), RecordDeclaration(two, None)]
    assert rate.admit(wishes, [one, two], Claims(), 1e3) == (moves[0], RecordDeclaration(two, None))


def test_without_a_pace_all_is_admitted() -> None:
    services = evil(range(9999))
    wishes = [ClaimName(s.name, s.owner) for s in services]
    rate = ClaimRate(None)
    assert rate.admit(wishes, services, Claims(), 0.0) == tuple(wishes)
    assert (rate.next_look(0.0), rate.problems()) == (None, ())
