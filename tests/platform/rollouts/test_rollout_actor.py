"""The daemons that take the steps of rollouts: from a second release that is started to its end, on several workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from typing_extensions import override

from mesh.cluster.records.encode import (
    build_view,
    encode_daemon,
    encode_name_claim,
    encode_registration,
    encode_service_claim,
    encode_shares,
    encode_vip_claim,
)
from mesh.control.share_overlay import ShareOverlay
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.release_rollout import ReleaseRollout, RolloutPhase
from mesh.model.release_shares import WHOLE, ReleaseShares
from mesh.model.service import Endpoint, ReleaseRules, ReleaseStep, ReleaseStrategy
from mesh.model.view import ClusterView
from mesh.platform.rollouts.evidence_records import ReleaseCounts, WorkerEvidence, encode_evidence, evidence_key
from mesh.platform.rollouts.rollout_actions import RolloutActions
from mesh.platform.rollouts.rollout_actor import RolloutActor, RolloutSources
from mesh.platform.rollouts.rollout_steps import CONFIRM_SECONDS, RolloutWish
from mesh.platform.rollouts.rollout_watch import RolloutWatch
from mesh.store.usage import LocalUsageStore
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.util.conditions import Conditions
from tests.builders import WEB_VIP, endpoint, service

WEB = service("web.test", owner="shop/web")
OWNER = WEB.owner
CLAIMS = {**encode_name_claim(WEB.name, OWNER), **encode_vip_claim(WEB_VIP, WEB.name)}
STEPS = (ReleaseStep(100, 30), ReleaseStep(5000, is_held=True))
RULES = ReleaseRules(ReleaseStrategy.PROGRESSIVE, STEPS, min_connections=0)


def release(id: str, name: str, worker: str = "w1", rules: ReleaseRules | None = RULES) -> Endpoint:
    made = endpoint(id, worker, OWNER, f"10.2.{worker[1:]}.{ord(id[0]) - 96}", release=name)
    return replace(made, release_rules=rules)


class SharedEvidence(LocalUsageStore):
    """Belongs to the cluster: no worker closes it for the others."""

    @override
    async def close(self) -> None:
        pass


@dataclass
class Cluster:
    """Workers with an actor each, on one store and one clock."""

    now: float = 1000.0
    round: int = 0
    fails: bool = False
    """Whether instances of v2 end again and again."""
    shared: MemoryCluster = field(default_factory=MemoryCluster)
    actors: dict[str, RolloutActor] = field(default_factory=dict)
    watches: dict[str, RolloutWatch] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)

    def __post_init__(self) -> None:
        self.evidence = SharedEvidence(lambda: self.now)
        self.offer(release("a", "v1"))

    @property
    def view(self) -> ClusterView:
        return build_view(self.shared.records)[0]

    @property
    def rollout(self) -> ReleaseRollout:
        return self.view.rollouts[OWNER]

    def offer(self, *endpoints: Endpoint) -> None:
        kept = {key: value for key, value in self.shared.records.items() if not key.startswith("workers/")}
        for worker in ("w1", "w2"):
            own = [each for each in endpoints if each.worker == worker]
            kept |= {**encode_registration(worker, [WEB], own), **encode_daemon(worker, "1", worker)}
        self.shared.write({**kept, **encode_service_claim(WEB.name, WEB_VIP), **CLAIMS})

    def start(self, worker: str) -> None:
        async def open_evidence() -> SharedEvidence:
            return self.evidence

        self.watches[worker] = RolloutWatch()
        sources = RolloutSources(
            lambda: WorkerSnapshot(WorkerFacts("1", worker, "fake", "x"), self.view),
            open_evidence,
            self.watches[worker],
            self.conditions,
            lambda: self.now,
        )
        self.actors[worker] = RolloutActor(worker, MemoryStore(self.shared, worker), sources)

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            self.now += 1
            self.round += 1
            for worker, watch in self.watches.items():
                if worker in self.actors and OWNER in watch.judged:
                    new = ReleaseCounts(1, probes=self.round, looping=self.round if self.fails else 0)
                    counts = {"v1": ReleaseCounts(1, probes=self.round), watch.judged[OWNER]: new}
                    told = WorkerEvidence(self.round, worker, {OWNER: counts})
                    await self.evidence.write(evidence_key(worker), encode_evidence(told))
            for actor in list(self.actors.values()):
                await actor.step()

    async def until(self, phase: RolloutPhase, points: int | None = None, bound: int = 400) -> None:
        for _ in range(bound):
            if OWNER in self.view.rollouts and self.rollout.phase is phase and points in (None, self.rollout.points):
                return
            await self.seconds(1)
        raise AssertionError(f"{phase} was not reached: {self.view.rollouts}")

    def given(self) -> Mapping[str, int]:
        return self.view.shares[OWNER].given


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster()
    cluster.start("w1")
    cluster.start("w2")
    await cluster.seconds(2)
    assert cluster.rollout.phase is RolloutPhase.DONE
    assert cluster.rollout.new == "v1"
    assert not cluster.view.shares
    cluster.offer(release("a", "v1"), release("b", "v2", "w2"))
    return cluster


async def test_a_release_that_is_started_goes_through_all_steps(cluster: Cluster) -> None:
    held = ShareOverlay().after(cluster.view)
    assert {row.release: row.share for row in held.releases(WEB)} == {"v1": 1, "v2": 0}, "before the first pass too"
    await cluster.until(RolloutPhase.STEP, 100)
    assert cluster.given() == {"v2": 100}
    assert cluster.view.shares[OWNER].by == "the rollout, step 1 of 2: 1 % for v2"
    assert [watch.judged for watch in cluster.watches.values()] == [{OWNER: "v2"}] * 2
    await cluster.until(RolloutPhase.HOLD, 5000)
    assert cluster.given() == {"v2": 5000}
    await cluster.seconds(100)
    assert cluster.rollout.phase is RolloutPhase.HOLD
    now = await RolloutActions(MemoryStore(cluster.shared, "w2")).wish("web.test", RolloutWish.PROMOTE, "anna")
    assert now.phase is RolloutPhase.CONFIRM
    assert cluster.given() == {"v2": WHOLE}
    await cluster.until(RolloutPhase.DONE)
    assert cluster.given() == {"v2": WHOLE}
    await cluster.seconds(2)
    assert not cluster.watches["w2"].judged
    cluster.offer(release("b", "v2", "w2"))
    await cluster.seconds(2)
    assert cluster.rollout.old is None


@pytest.mark.parametrize("during", [RolloutPhase.WARM, RolloutPhase.STEP, RolloutPhase.HOLD, RolloutPhase.CONFIRM])
async def test_a_release_that_fails_is_aborted(cluster: Cluster, during: RolloutPhase) -> None:
    if during is RolloutPhase.WARM:
        cluster.fails = True
    elif during is RolloutPhase.CONFIRM:
        await cluster.until(RolloutPhase.HOLD)
        await RolloutActions(MemoryStore(cluster.shared, "w2")).wish(OWNER, RolloutWish.PROMOTE, "anna")
    else:
        await cluster.until(during)
    cluster.fails = True
    await cluster.until(RolloutPhase.ABORTED, bound=30)
    assert cluster.given() == {"v2": 0}
    assert "restart loop" in cluster.rollout.reason
    await cluster.seconds(2)
    assert [str(each.code) for each in cluster.conditions.problems["rollout steps"]] == ["VM943"]
    await cluster.seconds(int(CONFIRM_SECONDS))
    assert cluster.rollout.phase is RolloutPhase.ABORTED


@pytest.mark.parametrize("during", [RolloutPhase.START, RolloutPhase.STEP, RolloutPhase.HOLD, RolloutPhase.CONFIRM])
async def test_another_daemon_goes_on_when_the_one_that_acts_is_gone(cluster: Cluster, during: RolloutPhase) -> None:
    if during is RolloutPhase.CONFIRM:
        await cluster.until(RolloutPhase.HOLD)
        await RolloutActions(MemoryStore(cluster.shared, "w2")).wish(OWNER, RolloutWish.PROMOTE, "anna")
    else:
        await cluster.until(during)
    first = cluster.rollout
    del cluster.actors["w1"]
    await cluster.seconds(25)
    assert cluster.rollout.points == first.points, "its turn comes after a while"
    await cluster.seconds(45)
    assert cluster.rollout.actor == "w2"
    if during is RolloutPhase.CONFIRM:
        await cluster.until(RolloutPhase.DONE)
    else:
        await cluster.until(RolloutPhase.HOLD)
        await cluster.seconds(100)
        assert cluster.rollout.phase is RolloutPhase.HOLD


async def test_shares_that_are_given_by_hand_pause_the_rollout(cluster: Cluster) -> None:
    await cluster.until(RolloutPhase.STEP)
    cluster.shared.change(encode_shares(ReleaseShares(OWNER, {"v2": 0}, ("v1", "v2"), "bert")))
    await cluster.seconds(60)
    assert cluster.rollout.is_paused
    assert "bert" in cluster.rollout.reason
    assert cluster.given() == {"v2": 0}
    actions = RolloutActions(MemoryStore(cluster.shared, "w2"))
    await actions.wish(OWNER, RolloutWish.RESUME, "anna")
    assert cluster.given() == {"v2": 100}
    await cluster.until(RolloutPhase.HOLD)
    await actions.wish(OWNER, RolloutWish.ABORT, "anna")
    assert cluster.given() == {"v2": 0}
    assert cluster.rollout.reason == "abort by anna"


async def test_while_the_store_does_not_answer_no_step_is_taken(cluster: Cluster) -> None:
    await cluster.until(RolloutPhase.STEP)
    before = cluster.shared.records
    cluster.shared.out_of_reach = True
    await cluster.seconds(60)
    assert cluster.shared.records == before
    assert "VM945" in [str(each.code) for each in cluster.conditions.problems["rollout steps"]]
    cluster.shared.out_of_reach = False
    await cluster.until(RolloutPhase.HOLD)


async def test_a_release_without_a_strategy_ends_the_rollout_and_its_shares(cluster: Cluster) -> None:
    await cluster.until(RolloutPhase.HOLD)
    await RolloutActions(MemoryStore(cluster.shared, "w2")).wish(OWNER, RolloutWish.ABORT, "anna")
    cluster.offer(release("a", "v1", rules=None), release("b", "v2", "w2", rules=None))
    await cluster.seconds(2)
    assert not cluster.view.rollouts
    assert not cluster.view.shares


async def test_wishes_without_a_rollout_are_refused() -> None:
    cluster = Cluster()
    with pytest.raises(ActionRefusedError) as refused:
        await RolloutActions(MemoryStore(cluster.shared, "w1")).wish(OWNER, RolloutWish.ABORT, "anna")
    assert refused.value.code is Code.ROLLOUT_REFUSED
