"""Deploys on engines in memory: order, waiting, conflicts, interruptions."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.fleet.errors import FleetConflictError, FleetUnavailableError
from mesh.platform.stacks.applier import DeployAuthor, StackApplier, StackOutcome
from mesh.platform.stacks.model import Desired, DesiredService, StackCondition, StackNeed, StackStrategy
from mesh.platform.stacks.records import history_of
from mesh.testing.fleet import FakeFleet, FakeImageRun, fake_worker
from mesh.testing.readiness import FakeReadiness
from tests.platform.stacks.builders import desired_service

pytestmark = pytest.mark.looptime
EPOCH = 1_800_000_000.0


@dataclass
class Lab:
    """One fleet of three workers, and a mesh that probes it."""

    fleet: FakeFleet
    readiness: FakeReadiness
    told: list[str] = field(default_factory=list)

    def applier(self, wait: float = 60) -> StackApplier:
        author = DeployAuthor("anna@w1", self.now)
        return StackApplier(self.fleet, self.readiness, author, wait=wait, tell=self.told.append)

    @staticmethod
    def now() -> float:
        return EPOCH + asyncio.get_running_loop().time()

    async def deploy(self, *services: DesiredService, prune: bool = False, wait: float = 60) -> StackOutcome:
        return await self.applier(wait).deploy(Desired("shop", services), prune=prune)

    async def counts(self) -> dict[str, int | None]:
        return {each.spec.container.image: each.spec.instances for each in await self.fleet.services()}

    async def serving(self) -> int:
        return sum(each.serving for each in (await self.readiness.answers()).values())


def make_lab(after: float = 2.0, broken: Sequence[str] = ()) -> Lab:
    fleet = FakeFleet([fake_worker(f"w{n}") for n in (1, 2, 3)], clock=Lab.now)
    return Lab(fleet, FakeReadiness(fleet, Lab.now, after=after, broken=broken))


async def test_a_first_deploy_waits_until_all_serve_and_a_second_one_changes_nothing() -> None:
    lab = make_lab()
    outcome = await lab.deploy(desired_service("web", "web:1", 3))
    assert not outcome.failures
    assert await lab.serving() == 3
    assert asyncio.get_running_loop().time() >= 2
    before = await lab.fleet.services()
    assert (await lab.deploy(desired_service("web", "web:1", 3))).steps == ()
    assert await lab.fleet.services() == before


async def test_the_count_alone_is_a_scale() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 2))
    (service,) = await lab.fleet.services()
    await lab.deploy(desired_service("web", "web:1", 3))
    (scaled,) = await lab.fleet.services()
    assert (scaled.id, scaled.spec.instances) == (service.id, 3)


@pytest.mark.parametrize("parallelism", [1, 2])
async def test_a_rolling_deploy_keeps_all_serving_and_starts_no_more_than_its_parallelism(parallelism: int) -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 4))
    lowest, most = await watched(lab, desired_service("web", "web:2", 4, parallelism=parallelism))
    assert await lab.counts() == {"web:2": 4}
    assert lowest == 4
    assert most == 4 + parallelism


async def watched(lab: Lab, target: DesiredService) -> tuple[int, int]:
    """Deploy; return the fewest instances that served and the most that there were meanwhile."""
    work = asyncio.ensure_future(lab.deploy(target))
    lowest, most = 1000, 0
    while not work.done():
        lowest = min(lowest, await lab.serving())
        most = max(most, sum(number or 0 for number in (await lab.counts()).values()))
        await asyncio.sleep(0.1)
    assert not (await work).failures
    return lowest, most


async def test_replace_ends_the_old_ones_first() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("db", "db:1", 1))
    await lab.deploy(desired_service("db", "db:2", 1, strategy=StackStrategy.REPLACE))
    log = [line.split()[0] for line in lab.fleet.log]
    assert log == ["create", "replace", "remove", "create"]


async def test_a_service_is_started_when_what_it_needs_serves() -> None:
    lab = make_lab(after=5)
    needs = (StackNeed("db"),)
    started: dict[str, float] = {}
    lab.told = Told(started)
    await lab.deploy(desired_service("db", "db:1", 1), desired_service("web", "web:1", 2, needs=needs))
    assert started["web"] - started["db"] >= 5


class Told(list[str]):
    """Remembers when a service was begun."""

    def __init__(self, times: dict[str, float]) -> None:
        self._times = times

    @override
    def append(self, line: str) -> None:
        self._times[line.partition(":")[0]] = asyncio.get_running_loop().time()


async def test_what_needs_a_service_that_does_not_serve_says_so() -> None:
    lab = make_lab(broken=["db:1"])
    needs = (StackNeed("db"),)
    outcome = await lab.deploy(
        desired_service("db", "db:1", 1), desired_service("web", "web:1", 2, needs=needs), wait=10
    )
    assert [str(failure) for failure in outcome.failures] == [
        "db: 0 of 1 ready: running on w1, and does not serve: status 503",
        "web: 0 of 2 ready: waits for db",
    ]


async def test_a_job_is_done_when_it_has_ended_with_status_0() -> None:
    lab = make_lab()
    lab.fleet.images.runs["migrate:1"] = FakeImageRun(ends_after=3, exit_code=0)
    job = desired_service("migrate", "migrate:1", 1, restart="none", ports=())
    needs = (StackNeed("migrate", StackCondition.COMPLETED),)
    outcome = await lab.deploy(job, desired_service("web", "web:1", 1, needs=needs))
    assert not outcome.failures
    assert asyncio.get_running_loop().time() >= 3
    assert (await lab.deploy(job, desired_service("web", "web:1", 1, needs=needs))).steps == ()


async def test_a_broken_release_leaves_the_old_one_whole() -> None:
    lab = make_lab(broken=["web:2"])
    await lab.deploy(desired_service("web", "web:1", 3))
    outcome = await lab.deploy(desired_service("web", "web:2", 3), wait=10)
    (failure,) = outcome.failures
    assert "does not serve: status 503" in str(failure)
    assert await lab.counts() == {"web:1": 3, "web:2": 1}
    assert not (await lab.deploy(desired_service("web", "web:1", 3))).failures
    assert await lab.counts() == {"web:1": 3}


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (FakeImageRun(pull_error="No such image: web:1"), "rejected"),
        (FakeImageRun(ends_after=0.2, exit_code=3), "non-zero exit (3)"),
    ],
    ids=["no image", "exits"],
)
async def test_why_an_instance_does_not_start_is_said_in_the_words_of_the_engine(
    run: FakeImageRun, reason: str
) -> None:
    lab = make_lab()
    lab.fleet.images.runs["web:1"] = run
    (failure,) = (await lab.deploy(desired_service("web", "web:1", 1), wait=10)).failures
    assert reason in str(failure)


async def test_what_cannot_be_placed_says_why() -> None:
    lab = make_lab()
    (failure,) = (
        await lab.deploy(desired_service("web", "web:1", 1, constraints=("node.hostname==w9",)), wait=5)
    ).failures
    assert "no suitable node" in str(failure)


async def test_what_is_not_in_the_files_goes_only_with_prune() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 1), desired_service("old", "old:1", 1))
    await lab.deploy(desired_service("web", "web:1", 1))
    assert set(await lab.counts()) == {"web:1", "old:1"}
    await lab.deploy(desired_service("web", "web:1", 1), prune=True)
    assert set(await lab.counts()) == {"web:1"}


async def test_another_project_is_left_alone() -> None:
    lab = make_lab()
    other = desired_service("web", "other:1", 1, project="other")
    await lab.applier().deploy(Desired("other", (other,)))
    await lab.deploy(desired_service("web", "web:1", 1), prune=True)
    await lab.applier().remove("shop")
    assert set(await lab.counts()) == {"other:1"}


async def test_a_removal_outlasts_an_engine_that_is_silent_for_a_moment() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 2))

    def fall_silent(_: str) -> None:
        lab.fleet.faults.no_quorum = True

    applier = StackApplier(lab.fleet, lab.readiness, DeployAuthor("anna@w1", lab.now), wait=60, tell=fall_silent)
    work = asyncio.ensure_future(applier.remove("shop"))
    await asyncio.sleep(20)
    assert not work.done()
    lab.fleet.faults.no_quorum = False
    assert not (await work).failures

    await lab.deploy(desired_service("web", "web:1", 2))
    with pytest.raises(FleetUnavailableError):
        await applier.remove("shop")


async def test_a_change_by_somebody_else_is_a_conflict() -> None:
    lab = make_lab(after=5)
    work = asyncio.ensure_future(lab.deploy(desired_service("web", "web:1", 2)))
    await asyncio.sleep(2)
    (service,) = await lab.fleet.services()
    lab.fleet.change_service(service.id, replace(service.spec, instances=7))
    with pytest.raises(FleetConflictError, match="changed by somebody else"):
        await work


async def test_of_two_deploys_at_once_one_finds_a_conflict() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 2))
    results = await asyncio.gather(
        lab.deploy(desired_service("web", "web:2", 2)),
        lab.deploy(desired_service("web", "web:3", 2)),
        return_exceptions=True,
    )
    assert any(isinstance(each, FleetConflictError) for each in results)
    assert await lab.serving() >= 2


async def test_a_stale_version_is_a_conflict_and_changes_nothing() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 2))
    lab.fleet.faults.conflicts = 1
    with pytest.raises(FleetConflictError) as caught:
        await lab.deploy(desired_service("web", "web:1", 3))
    assert caught.value.code is Code.FLEET_CONFLICT
    assert await lab.counts() == {"web:1": 2}


async def test_nothing_is_done_when_nobody_knows_what_serves() -> None:
    lab = make_lab()
    lab.readiness.error = MeshError(Code.DAEMON_UNREACHABLE, "no daemon answers")
    with pytest.raises(MeshError, match="no daemon answers"):
        await lab.deploy(desired_service("web", "web:1", 2))
    assert await lab.fleet.services() == ()


async def test_a_deploy_that_has_begun_outlasts_a_daemon_that_is_silent_for_a_moment() -> None:
    lab = make_lab(after=5)
    work = asyncio.ensure_future(lab.deploy(desired_service("web", "web:1", 2)))
    await asyncio.sleep(2)
    lab.readiness.error = MeshError(Code.DAEMON_UNREACHABLE, "no daemon answers")
    await asyncio.sleep(20)
    lab.readiness.error = None
    assert not (await work).failures


async def test_without_quorum_a_deploy_ends_with_the_reason() -> None:
    lab = make_lab()
    lab.fleet.faults.no_quorum = True
    with pytest.raises(FleetUnavailableError):
        await lab.deploy(desired_service("web", "web:1", 2))


async def test_a_change_outside_is_undone_by_the_next_deploy_without_a_gap() -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 2))
    (service,) = await lab.fleet.services()
    container = replace(service.spec.container, environment=(("LEVEL", "9"),))
    lab.fleet.change_service(service.id, replace(service.spec, container=container))
    await asyncio.sleep(5)
    assert (await watched(lab, desired_service("web", "web:1", 2)))[0] == 2
    (mended,) = await lab.fleet.services()
    assert mended.spec.container.environment == ()


async def test_a_release_carries_the_records_of_those_before_it() -> None:
    lab = make_lab()
    for number in range(12):
        await lab.deploy(desired_service("web", f"web:{number}", 1))
    found = history_of(await lab.applier().read("shop"))
    assert [each.image for each in found] == [f"web:{number}" for number in range(11, 1, -1)]
    assert {each.by for each in found} == {"anna@w1"}


@settings(max_examples=25, deadline=None)
@given(
    cut=st.floats(0, 20),
    wanted=st.integers(1, 4),
    parallelism=st.integers(1, 3),
    strategy=st.sampled_from(StackStrategy),
)
async def test_an_interrupted_deploy_is_taken_up_by_the_next_one(
    cut: float, wanted: int, parallelism: int, strategy: StackStrategy
) -> None:
    lab = make_lab()
    await lab.deploy(desired_service("web", "web:1", 3))
    target = desired_service("web", "web:2", wanted, parallelism=parallelism, strategy=strategy)
    with suppress(TimeoutError):
        await asyncio.wait_for(lab.deploy(target), cut)
    if strategy is StackStrategy.ROLLING:
        lowest, most = await watched(lab, target)
        assert lowest >= min(3, wanted)
        assert most <= max(3, wanted) + parallelism
    else:
        await lab.deploy(target)
    assert await lab.counts() == {"web:2": wanted}
    assert (await lab.deploy(target)).steps == ()
