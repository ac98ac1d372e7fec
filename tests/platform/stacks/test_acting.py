"""Who acts for the swarm, and that affinities hold: the key of the store, two that act at once, engines that fail."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from mesh.control.conditions import LoopConditions
from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.platform.fleet.protocol import FleetAvailability, FleetContainer, FleetSpec, FleetState, FleetWorker
from mesh.platform.stacks.acting import ActingMoment, acting_value, acting_worker, acts
from mesh.platform.stacks.acting_daemon import ActingDaemon, keep_worker_labels
from mesh.platform.stacks.affinity import runs_service
from mesh.store import ACTING_KEY
from mesh.testing.fleet import FakeFleet, fake_worker
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.util.bulkhead import INTERNAL_ERRORS

pytestmark = pytest.mark.looptime
LEASE = 15.0
MANAGER = FleetState(True, True, "w1-id", "")
DB_RUNS = runs_service("shop", "db")
DB = FleetSpec("shop_db--1", FleetContainer("db:1"), {"mesh.stack": "shop", "mesh.service": "shop/db"}, 1)
WEB = FleetSpec(
    "shop_web--1",
    FleetContainer("web:1"),
    {"mesh.stack": "shop", "mesh.service": "shop/web"},
    2,
    constraints=(f"node.labels.{DB_RUNS}==true",),
)


@pytest.mark.parametrize(
    ("moment", "now", "expected"),
    [
        (ActingMoment(MANAGER, b"me", b"me", 10), 5, True),
        (ActingMoment(MANAGER, b"me", b"me", 10), 10, False),
        (ActingMoment(MANAGER, b"me", b"another", 10), 5, False),
        (ActingMoment(MANAGER, b"me", None, 10), 5, False),
        (ActingMoment(None, b"me", b"me", 10), 5, False),
        (ActingMoment(FleetState(True, False, "w1", "no quorum"), b"me", b"me", 10), 5, False),
        (ActingMoment(FleetState(False, False, "", "no swarm"), b"me", b"me", 10), 5, False),
    ],
)
def test_a_daemon_acts_while_it_has_the_lease_and_its_engine_is_a_manager(
    moment: ActingMoment, now: float, *, expected: bool
) -> None:
    assert acts(moment, now) is expected


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"[]", b"7", b'{"worker":7}', b'{"worker":"a\\u001bb"}', b"\xff", b'{"a":' * 400]
)
def test_a_value_that_is_not_valid_names_nobody(value: bytes | None) -> None:
    assert acting_worker(value) is None


def test_a_value_names_its_worker_and_a_later_version_may_add_to_it() -> None:
    assert acting_worker(acting_value("w1", "a")) == "w1"
    assert acting_worker(b'{"v":2,"worker":"w2","run":"b","more":[1]}') == "w2"
    assert acting_value("w1", "a") != acting_value("w1", "b")


@dataclass
class Swarm:
    """Managers `w1` to `w3` with a daemon on each, and one store."""

    fleet: FakeFleet
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    reports: dict[str, LoopConditions] = field(default_factory=dict)

    def daemon(self, worker: str, fleet: FakeFleet | None = None) -> ActingDaemon:
        self.reports[worker] = LoopConditions()
        store = MemoryStore(self.cluster, worker)
        return ActingDaemon(worker, fleet or self.fleet, store, self.reports[worker], lease=LEASE)

    async def labels(self) -> Mapping[str, Mapping[str, str]]:
        return {each.name: dict(each.labels) for each in await self.fleet.workers()}

    async def places(self, service: str) -> list[str]:
        (found,) = [each for each in await self.fleet.services() if each.spec.name == service]
        return sorted(
            task.worker_id
            for task in await self.fleet.tasks(found.id)
            if (task.state, task.desired) == ("running",) * 2
        )


def make_swarm() -> Swarm:
    return Swarm(FakeFleet([fake_worker(f"w{n}") for n in (1, 2, 3)]))


async def test_one_of_the_managers_acts_and_all_say_who() -> None:
    swarm = make_swarm()
    first, second = swarm.daemon("w1"), swarm.daemon("w2")
    await first.step()
    await second.step()
    await first.step()
    assert {name: each.acting for name, each in swarm.reports.items()} == {"w1": "w1", "w2": "w1"}
    swarm.cluster.expire("w1")
    await second.step()
    await first.step()
    assert {name: each.acting for name, each in swarm.reports.items()} == {"w1": "w2", "w2": "w2"}


async def test_an_affinity_holds_when_its_service_moves() -> None:
    swarm = make_swarm()
    await swarm.fleet.create(DB)
    await swarm.fleet.create(WEB)
    assert await swarm.places("shop_web--1") == []
    acting = swarm.daemon("w2")
    await acting.step()
    assert await swarm.labels() == {"w1": {DB_RUNS: "true"}, "w2": {}, "w3": {}}
    assert await swarm.places("shop_web--1") == ["w1-id", "w1-id"]
    swarm.fleet.change_worker("w1-id", is_ready=False)
    await acting.step()
    (place,) = await swarm.places("shop_db--1")
    assert place != "w1-id"
    assert [name for name, labels in (await swarm.labels()).items() if labels] == [place.removesuffix("-id")]
    swarm.fleet.change_worker("w1-id", is_ready=True)
    await acting.step()
    assert await swarm.places("shop_web--1") == [place, place]


async def test_labels_of_others_and_the_availability_of_a_worker_stay() -> None:
    swarm = make_swarm()
    await swarm.fleet.create(DB)
    await swarm.fleet.create(WEB)
    (worker, *_) = await swarm.fleet.workers()
    await swarm.fleet.set_worker(worker.id, worker.version, {"az": "1"}, FleetAvailability.PAUSE)
    await swarm.daemon("w1").step()
    (worker, *_) = await swarm.fleet.workers()
    assert (worker.labels, worker.availability) == ({"az": "1", DB_RUNS: "true"}, FleetAvailability.PAUSE)


class Interleaved(FakeFleet):
    """Calls what a test says after the workers were read: another one acts at the same moment."""

    between: Callable[[], Awaitable[object]] | None = None

    @override
    async def workers(self) -> tuple[FleetWorker, ...]:
        found = await super().workers()
        if self.between is not None:
            between, self.between = self.between, None
            await between()
        return found


@pytest.mark.parametrize("moves", [False, True], ids=["nothing moves", "the service moves meanwhile"])
async def test_two_that_act_at_once_do_no_harm(*, moves: bool) -> None:
    fleet = Interleaved([fake_worker(f"w{n}") for n in (1, 2, 3)])
    swarm = Swarm(fleet)
    await fleet.create(DB)
    await fleet.create(WEB)
    specs = [each.spec for each in await fleet.services()]

    async def another() -> None:
        if moves:
            fleet.change_worker("w1-id", is_ready=False)
        await keep_worker_labels(fleet, lambda: True)

    fleet.between = another
    await keep_worker_labels(fleet, lambda: True)
    await keep_worker_labels(fleet, lambda: True)
    (place,) = {*await swarm.places("shop_db--1")}
    assert [name for name, labels in (await swarm.labels()).items() if labels] == [place.removesuffix("-id")]
    assert [each.spec for each in await fleet.services()] == specs
    before = list(fleet.log)
    await asyncio.gather(keep_worker_labels(fleet, lambda: True), keep_worker_labels(fleet, lambda: True))
    assert fleet.log == before


async def test_a_lease_that_ends_during_a_round_ends_its_steps() -> None:
    swarm = make_swarm()
    await swarm.fleet.create(replace(DB, instances=3))
    await swarm.fleet.create(WEB)
    turns = iter([True, False, False])
    assert await keep_worker_labels(swarm.fleet, lambda: next(turns)) == 1


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: json.dumps({"worker": text}).encode()))
def test_nothing_in_the_store_changes_an_engine_service(value: bytes) -> None:
    async def run() -> None:
        swarm = make_swarm()
        await swarm.fleet.create(DB)
        await swarm.fleet.create(WEB)
        before, log = await swarm.fleet.services(), list(swarm.fleet.log)
        swarm.cluster.held[ACTING_KEY] = "somebody", value
        swarm.cluster.write({ACTING_KEY: value, "stacks/shop": value, "workers/w1/acting": value})
        daemon = swarm.daemon("w1")
        await daemon.step()
        assert swarm.fleet.log == log, "another one has the key"
        swarm.cluster.held.clear()
        await daemon.step()
        assert await swarm.fleet.services() == before
        assert all(line.startswith("set worker ") for line in swarm.fleet.log[len(log) :])

    asyncio.run(run())


async def test_a_store_that_does_not_answer_is_a_problem_and_nothing_is_done() -> None:
    swarm = make_swarm()
    await swarm.fleet.create(DB)
    await swarm.fleet.create(WEB)
    acting = swarm.daemon("w1")
    swarm.cluster.out_of_reach = True
    await acting.step()
    (problem,) = swarm.reports["w1"].problems[ProblemPart.SWARM]
    assert (problem.code, swarm.reports["w1"].acting) == (Code.ACTING_LEASE, None)
    assert not any(line.startswith("set worker") for line in swarm.fleet.log)
    swarm.cluster.out_of_reach = False
    await acting.step()
    assert (swarm.reports["w1"].problems[ProblemPart.SWARM], swarm.reports["w1"].acting) == ((), "w1")


async def test_a_manager_without_quorum_gives_the_key_to_another() -> None:
    swarm = make_swarm()
    cut = FakeFleet([fake_worker("w1")])
    first, second = swarm.daemon("w1", cut), swarm.daemon("w2")
    await first.step()
    cut.faults.no_quorum = True
    await first.step()
    await second.step()
    assert swarm.reports["w2"].acting == "w2"


async def test_an_engine_that_is_no_manager_only_asks_who_acts() -> None:
    swarm = make_swarm()
    other = swarm.daemon("w9", FakeFleet([fake_worker("w9", role="worker")]))
    await other.step()
    assert (swarm.reports["w9"].acting, swarm.cluster.held) == (None, {})
    await swarm.daemon("w1").step()
    await other.step()
    assert swarm.reports["w9"].acting == "w1"


async def test_without_a_swarm_the_store_is_left_alone() -> None:
    swarm = Swarm(FakeFleet())
    swarm.cluster.out_of_reach = True
    assert not await swarm.daemon("w1").step()
    assert (swarm.reports["w1"].acting, swarm.reports["w1"].problems[ProblemPart.SWARM]) == (None, ())


async def test_an_error_in_a_round_ends_that_round_alone() -> None:
    class Broken(FakeFleet):
        errors = 1

        @override
        async def state(self) -> FleetState:
            if self.errors:
                self.errors -= 1
                raise RuntimeError("a surprise")
            return await super().state()

    swarm = Swarm(Broken([fake_worker("w1")]))
    before = INTERNAL_ERRORS.counts()[DaemonPart.SWARM]
    running = asyncio.ensure_future(swarm.daemon("w1").run())
    async with asyncio.timeout(120):
        while swarm.reports["w1"].acting != "w1":
            await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.wait([running])
    assert INTERNAL_ERRORS.counts()[DaemonPart.SWARM] == before + 1


async def test_a_running_daemon_follows_the_swarm_and_gives_up_the_key_at_its_end() -> None:
    swarm = make_swarm()
    running = asyncio.ensure_future(swarm.daemon("w1").run())
    await swarm.fleet.create(DB)
    await swarm.fleet.create(WEB)
    async with asyncio.timeout(60):
        while await swarm.places("shop_web--1") != ["w1-id", "w1-id"]:
            await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert swarm.cluster.held == {}
