"""Workers that share a store: what each knows of the others, and what stays when the store or a lease is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from typing_extensions import override

from mesh.cluster.claimer import Claimer
from mesh.cluster.claims import ClaimRequest, plan_claims
from mesh.cluster.departed import RETENTION
from mesh.cluster.endpoint_authority import EndpointAuthority
from mesh.cluster.records.encode import build_view, encode_service_claim, encode_shares, encode_vip_claim, own_prefixes
from mesh.cluster.share_keeper import ENDING
from mesh.cluster.store_writes import StoreWrites
from mesh.cluster.sync import ClusterSync
from mesh.cluster.view_assembler import GRACE
from mesh.control.conditions import LoopConditions
from mesh.model.codes import Code
from mesh.model.eligibility import vip_of
from mesh.model.problem import Problem
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Endpoint, Health
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport
from mesh.store import StoreError, StoreSnapshot
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import SMALL_POOL, service

pytestmark = pytest.mark.looptime


class RestartedStore(MemoryStore):
    """A store whose first snapshot has the records that an earlier run left in the saved view."""

    def __init__(self, cluster: MemoryCluster, worker: str, saved: Mapping[str, bytes]) -> None:
        super().__init__(cluster, worker)
        self._saved = saved

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        saved = self._saved
        async for snapshot in super().watch():
            yield replace(snapshot, saved=saved)
            saved = {}


@dataclass
class Worker:
    """One of them, without a data plane."""

    cluster: MemoryCluster
    name: str
    journal: LoopConditions = field(default_factory=LoopConditions)
    views: list[ClusterView] = field(default_factory=list)
    saved: Mapping[str, bytes] = field(default_factory=dict)
    """The records that an earlier run left in the saved view."""
    met: set[str] = field(default_factory=set)
    """Workers that answer it."""

    def __post_init__(self) -> None:
        listens = RealKey(f"10.1.0.{self.name[1:]}", 9781)
        store = RestartedStore(self.cluster, self.name, self.saved)
        self.share = ClusterSync(
            self.name,
            store,
            self.journal,
            self._decide,
            listens=listens,
            admin=RealKey(listens.address, 9780),
            answers=lambda worker: worker in self.met,
            authority=EndpointAuthority(self.name, SMALL_POOL),
        )

    def _decide(self, seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=SMALL_POOL, ports=range(30000, 30010))

    @asynccontextmanager
    async def running(self, *, patient: bool = False) -> AsyncIterator["Worker"]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.share.run(self.views.append, patient=patient))
            yield self
            task.cancel()

    def offers(self, *ids: str, name: str = "web") -> None:
        endpoints = tuple(Endpoint(id, f"demo/{name}", self.name, f"10.2.0.{len(id)}") for id in ids)
        self.share.offer((service(f"{name}.test"),) if ids else (), endpoints)

    def judges(self, health: Mapping[str, Health]) -> None:
        self.share.judge({(self.name, id): HealthReport(health) for id, health in health.items()})

    @property
    def seen(self) -> list[tuple[str, str]]:
        """Worker and id of each endpoint in its picture."""
        return [endpoint.key for endpoint in self.views[-1].endpoints]


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


async def test_endpoints_with_one_id_on_two_workers_are_distinct(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        two.offers("a")
        one.judges({"a": Health.HEALTHY})
        two.judges({"a": Health.UNHEALTHY})
        await asyncio.sleep(1)
        assert one.seen == two.seen == [("w1", "a"), ("w2", "a")]
        assert one.views[-1].health == {("w1", "a"): Health.HEALTHY, ("w2", "a"): Health.UNHEALTHY}
        assert replace(two.views[-1], workers=frozenset()) == replace(one.views[-1], workers=frozenset())
        assert [*one.views[-1].workers, *two.views[-1].workers] == ["w2", "w1"], "each knows of itself"


async def test_verdicts_are_published_and_a_burst_in_one_write(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        ids = [f"e{number}" for number in range(100)]
        one.offers(*ids)
        one.judges(dict.fromkeys(ids, Health.STARTING))
        await asyncio.sleep(1)
        assert two.views[-1].health == {}, "who has not answered yet is not told of"
        before, pictures = cluster.revision, len(two.views)
        verdicts = dict.fromkeys(ids, Health.STARTING)
        for id in ids:
            verdicts = {**verdicts, id: Health.HEALTHY}
            one.judges(verdicts)
        await asyncio.sleep(0.02)
        assert two.views[-1].health == {("w1", id): Health.HEALTHY for id in ids}
        assert (cluster.revision - before, len(two.views) - pictures) == (1, 1)


async def test_a_restarted_daemon_withdraws_no_verdict_before_it_has_probed(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one:
        one.offers("a")
        one.judges({"a": Health.HEALTHY})
        await asyncio.sleep(1)
    async with Worker(cluster, "w2").running() as two, Worker(cluster, "w1").running() as again:
        again.offers("a")
        await asyncio.sleep(1)
        assert two.views[-1].health == {("w1", "a"): Health.HEALTHY}
        again.judges({"a": Health.STARTING})
        await asyncio.sleep(1)
        assert two.views[-1].health == {}


async def test_own_endpoints_stay_while_the_own_lease_is_lost(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        two.offers("b")
        await asyncio.sleep(1)
        pictures = len(one.views)
        cluster.expire("w1")
        await asyncio.sleep(1)
        assert two.seen == [("w2", "b")], "the others see that it is gone"
        assert all(("w1", "a") in [e.key for e in seen.endpoints] for seen in one.views[pictures - 1 :])


async def test_the_newest_registration_waits_while_the_store_is_unreachable(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        await asyncio.sleep(1)
        cluster.out_of_reach = True
        for turn in range(5):
            one.offers("a", f"b{turn}")
            await asyncio.sleep(1)
        assert one.seen == [("w1", "a"), ("w1", "b4")], "what it runs itself it knows"
        assert two.seen == [("w1", "a")]
        assert set(one.journal.frozen) == {"store"}
        before = cluster.revision
        cluster.out_of_reach = False
        await asyncio.sleep(2)
        assert two.seen == [("w1", "a"), ("w1", "b4")]
        assert cluster.revision == before + 1
        assert not one.journal.frozen


async def test_a_claim_without_an_answer_of_the_store_is_requested_again(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one:
        await asyncio.sleep(1)
        cluster.out_of_reach = True
        one.offers("a")
        await asyncio.sleep(5)
        assert vip_of(service("web.test"), one.views[-1]) is None
        cluster.out_of_reach = False
        await asyncio.sleep(2)
        assert vip_of(service("web.test"), one.views[-1]) is not None


async def test_a_store_that_lost_everything_gets_every_claim_back(
    cluster: MemoryCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        two.offers("b", name="other")
        await asyncio.sleep(1)
        claims = one.views[-1].claims
        assert len(claims.vips) == 2
        pictures = len(one.views)
        cluster.lose_everything()
        await asyncio.sleep(1)
        assert build_view(cluster.records)[0].claims == claims
        assert one.seen == two.seen == [("w1", "a"), ("w2", "b")]
        assert all(seen.claims == claims and len(seen.endpoints) == 2 for seen in one.views[pictures - 1 :]), "no flap"
        assert caplog.text.count("the store has lost its records") == 2
        await asyncio.sleep(2 * GRACE)
        assert one.views[-1].claims == claims
        assert len(one.seen) == 2


async def test_shares_reach_every_worker_and_come_back_to_a_store_that_lost_everything(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        await asyncio.sleep(1)
        shares = ReleaseShares("demo/web", {"v2": 1000}, ("v1", "v2"), "anna")
        cluster.write(encode_shares(shares))
        await asyncio.sleep(1)
        assert one.views[-1].shares == two.views[-1].shares == {"demo/web": shares}
        pictures = len(two.views)
        cluster.lose_everything()
        await asyncio.sleep(1)
        assert build_view(cluster.records)[0].shares == {"demo/web": shares}
        await asyncio.sleep(2 * GRACE)
        assert all(seen.shares == {"demo/web": shares} for seen in two.views[pictures - 1 :]), "no flap"


async def test_shares_end_when_one_release_has_been_alone_for_long(cluster: MemoryCluster) -> None:
    shares = ReleaseShares("demo/web", {"v2": 1000}, ("v1", "v2"), "anna")

    def released(id: str, release: str) -> Endpoint:
        return replace(Endpoint(id, "demo/web", "w1", f"10.2.0.{len(id)}"), release=release)

    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running():
        both = (released("a", "v1"), released("bb", "v2"))
        one.share.offer((service("web.test"),), both)
        cluster.write(encode_shares(shares))
        await asyncio.sleep(2 * ENDING)
        assert one.views[-1].shares == {"demo/web": shares}, "two releases are there"
        one.share.offer((service("web.test"),), both[1:])
        await asyncio.sleep(ENDING / 2)
        one.share.offer((service("web.test"),), both)
        await asyncio.sleep(60)
        one.share.offer((service("web.test"),), both[1:])
        await asyncio.sleep(ENDING / 2)
        assert one.views[-1].shares == {"demo/web": shares}, "the time begins again"
        one.share.offer((), ())
        await asyncio.sleep(2 * ENDING)
        assert one.views[-1].shares == {"demo/web": shares}, "nothing is there: perhaps everything restarts"
        one.share.offer((service("web.test"),), both[1:])
        await asyncio.sleep(ENDING + 60)
        assert not one.views[-1].shares
        assert not build_view(cluster.records)[0].shares


async def test_the_store_answers_again_once_it_has_its_claims_back_at_the_second_attempt(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, failures = MemoryStore.claim, ["no leader"]

    async def failing(store: MemoryStore, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        if failures:
            raise StoreError(Code.STORE_UNREACHABLE, failures.pop())
        return await claim(store, records)

    async with Worker(cluster, "w1").running() as one:
        one.offers("a")
        await asyncio.sleep(1)
        claims = build_view(cluster.records)[0].claims
        monkeypatch.setattr(MemoryStore, "claim", failing)
        cluster.lose_everything()
        await asyncio.sleep(60)
        assert build_view(cluster.records)[0].claims == claims
        assert not one.journal.frozen


async def test_a_write_applied_without_an_answer_is_undone_by_the_next_registration(
    cluster: MemoryCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, failures = MemoryStore.register, ["no answer in time"]

    async def applied_without_an_answer(store: MemoryStore, records: Mapping[str, bytes]) -> None:
        await register(store, records)
        if failures:
            raise StoreError(Code.STORE_UNREACHABLE, failures.pop())

    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        await asyncio.sleep(1)
        monkeypatch.setattr(MemoryStore, "register", applied_without_an_answer)
        one.offers("a", "b")
        await asyncio.sleep(0.5)
        assert two.seen == [("w1", "a"), ("w1", "b")]
        one.offers("a")
        await asyncio.sleep(60)
        assert two.seen == [("w1", "a")]
        assert not one.journal.frozen


async def test_a_worker_that_does_not_return_with_the_store_is_removed_after_a_while(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one:
        async with Worker(cluster, "w2").running() as two:
            one.offers("a")
            two.offers("b")
            await asyncio.sleep(1)
        cluster.lose_everything()
        await asyncio.sleep(GRACE / 2)
        assert one.seen == [("w1", "a"), ("w2", "b")], "perhaps it is only late"
        await asyncio.sleep(GRACE)
        assert one.seen == [("w1", "a")]


async def test_a_vip_claimed_by_another_service_in_a_new_store_is_not_taken_back(
    cluster: MemoryCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with Worker(cluster, "w1").running() as one:
        one.offers("a")
        await asyncio.sleep(1)
        address = one.views[-1].claims.vips["web.test"]
        cluster.lose_everything()
        cluster.write({f"claims/vips/{address}": b'{"v":1,"name":"quicker.test"}'})
        await asyncio.sleep(2 * GRACE)
        claims = build_view(cluster.records)[0].claims
        assert claims.holders[address] == "quicker.test"
        assert claims.vips["web.test"] != address, "no VIP is given twice"
        assert "1 claims of a lost store cannot be restored" in caplog.text


async def test_a_vip_that_moved_after_the_restored_backup_keeps_its_service(
    cluster: MemoryCluster,
) -> None:
    async with Worker(cluster, "w1").running() as one:
        one.offers("a")
        await asyncio.sleep(1)
        address = one.views[-1].claims.vips["web.test"]
        cluster.lose_everything()
        older = encode_service_claim("web.test", "10.112.0.99") | encode_vip_claim("10.112.0.99", "web.test")
        cluster.write(older)
        await asyncio.sleep(2 * GRACE)
        claims = build_view(cluster.records)[0].claims
        assert claims.vips["web.test"] == one.views[-1].claims.vips["web.test"] == address
        assert claims.holders == {address: "web.test", "10.112.0.99": "web.test"}


async def test_the_first_view_waits_for_the_sources_if_the_former_registration_is_lost(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running(patient=True) as one:
        await asyncio.sleep(60)
        assert one.views == [], "the data plane carries what the store does not know any more"
        one.offers("a")
        await asyncio.sleep(1)
        assert one.seen == [("w1", "a")]


async def test_nothing_is_claimed_before_the_first_view(cluster: MemoryCluster) -> None:
    """Else what the store has is not known: names from before the rule for names would count as new ones."""
    decided: list[ClusterView] = []
    store = MemoryStore(cluster, "w1")

    def decide(seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        decided.append(seen)
        return (), ()

    reports = LoopConditions()
    claimer = Claimer(store, decide, reports, StoreWrites(reports))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(claimer.run())
        claimer.offer((service(),))
        claimer.reconsider()
        await asyncio.sleep(10)
        assert decided == []
        claimer.follow(ClusterView((service(),)))
        await asyncio.sleep(1)
        assert [view.services for view in decided] == [(service(),)]
        task.cancel()


async def test_a_worker_whose_sources_have_not_answered_registers_its_daemon(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w2").running() as other:
        async with Worker(cluster, "w1").running(patient=True) as one:
            await asyncio.sleep(5)
            assert other.views[-1].workers == {"w1", "w2"}
            assert one.views == [], "the record of the daemon alone says nothing of its endpoints"
        assert set(other.share.registered) == {"w1", "w2"}


async def test_what_an_earlier_run_registered_stays_until_the_sources_have_answered(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one:
        one.offers("a")
        await asyncio.sleep(5)
    async with Worker(cluster, "w1").running() as again:
        await asyncio.sleep(5)
        assert again.seen == [("w1", "a")]
        again.offers()
        await asyncio.sleep(5)
        assert again.seen == []


async def test_a_restart_after_the_lease_has_ended_leaves_its_endpoints_to_the_others(cluster: MemoryCluster) -> None:
    """As after an update that took longer than the lease, while the engine does not answer yet."""
    async with Worker(cluster, "w2", met={"w1"}).running() as other:
        async with Worker(cluster, "w1").running() as one:
            one.offers("a")
            await asyncio.sleep(1)
            left = cluster.records
        cluster.expire("w1")
        await asyncio.sleep(1)
        assert other.seen == [("w1", "a")], "its containers run"
        saved = {key: value for key, value in left.items() if key.startswith("workers/w1/")}
        async with Worker(cluster, "w1", saved=saved).running(patient=True) as again:
            await asyncio.sleep(RETENTION - 2)
            assert other.seen == [("w1", "a")], "nobody knows yet that it does not run"
            await asyncio.sleep(5)
            assert other.seen == []
            assert other.views[-1].workers == {"w1", "w2"}
            again.offers("a")
            await asyncio.sleep(1)
            assert other.seen == [("w1", "a")]


async def test_workers_know_the_digests_of_the_others(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers()
        two.offers()
        one.share.publish_digest("0a")
        await asyncio.sleep(5)
        views = len(two.views)
        one.share.publish_digest("0b")
        await asyncio.sleep(5)
        assert two.share.registered["w1"].digest == "0b"
        assert len(two.views) == views, "no view depends on it"


async def test_of_two_daemons_with_one_name_the_older_one_steps_back(
    cluster: MemoryCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Worker(cluster, "w1").running() as elder, Worker(cluster, "w2").running() as other:
        elder.offers("a")
        await asyncio.sleep(1)
        async with Worker(cluster, "w1").running() as newer:
            newer.offers("b")
            await asyncio.sleep(1)
            revision = cluster.revision
            elder.offers("a", "c")
            await asyncio.sleep(30)
            assert other.seen == [("w1", "b")]
            assert cluster.revision == revision, "nothing flaps"
            (problem,) = elder.journal.problems["name"]
            assert problem.code is Code.WORKER_NAME_TAKEN
            assert not newer.journal.problems.get("name")
        cluster.expire("w1")  # the newer is dead, and the elder has not kept its lease alive
        await asyncio.sleep(1)
        assert other.seen == [("w1", "a"), ("w1", "c")], "the newest that it has to offer"
        assert not elder.journal.problems["name"]


async def test_an_invalid_daemon_record_does_not_contest_the_name(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as other:
        one.offers("a")
        await asyncio.sleep(1)
        cluster.change({"workers/w1/daemon": b"x"})
        await asyncio.sleep(1)
        one.offers("a", "b")
        await asyncio.sleep(1)
        assert other.seen == [("w1", "a"), ("w1", "b")]
        assert not one.journal.problems.get("name")


async def test_half_of_the_workers_with_a_newer_schema(cluster: MemoryCluster) -> None:
    """What a newer version adds is passed over, and stays: nobody writes another worker's records."""

    def newer(records: Mapping[str, bytes], own: tuple[str, ...]) -> dict[str, bytes]:
        return {
            key: msgspec.json.encode({**msgspec.json.decode(value), "v": 2, "shape": {"new": [1]}})
            if key.startswith(own)
            else value
            for key, value in records.items()
        }

    async with Worker(cluster, "old").running() as old:
        async with Worker(cluster, "new").running() as new:
            new.offers("b")
            new.judges({"b": Health.HEALTHY})
            await asyncio.sleep(1)
        added = newer(cluster.records, own_prefixes("new")) | {"workers/new/shapes/x": b'{"v":2}', "plans/x": b"[]"}
        cluster.write(added)
        old.offers("a")
        old.judges({"a": Health.HEALTHY})
        await asyncio.sleep(1)
        assert old.seen == [("old", "a"), ("new", "b")]
        assert old.views[-1].health == {("old", "a"): Health.HEALTHY, ("new", "b"): Health.HEALTHY}
        assert not any(old.journal.problems.values())
        assert {key: cluster.records[key] for key in added} == added
        assert vip_of(service("web.test"), old.views[-1]) is not None


async def test_an_endpoint_at_an_address_that_becomes_this_hosts_own_is_left_out_from_then_on(
    cluster: MemoryCluster,
) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        one.offers("a")
        two.offers("bb", name="other")
        await asyncio.sleep(1)
        assert one.seen == [("w1", "a"), ("w2", "bb")]
        one.share.move(frozenset({"10.2.0.2"}))
        await asyncio.sleep(1)
        assert one.seen == [("w1", "a")]
        assert [problem.code for problem in one.journal.problems["store"]] == [Code.ENDPOINT_NOT_PERMITTED]
        one.share.move(frozenset({"10.2.0.2", "10.1.0.2"}))
        assert one.share.peer_addresses == {}, "nor does this worker ping itself in the other's place"
        assert two.seen == [("w1", "a"), ("w2", "bb")], "its own worker uses it, and so do the others"
        one.share.move(frozenset())
        await asyncio.sleep(1)
        assert one.seen == [("w1", "a"), ("w2", "bb")]
