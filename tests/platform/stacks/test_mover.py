"""Rebalancing, and the drain of a worker, on engines in memory: what serves meanwhile, what interruptions leave."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.fleet.errors import FleetConflictError
from mesh.platform.fleet.protocol import FleetAvailability, FleetContainer, FleetPort, FleetSpec, FleetWorker
from mesh.platform.stacks.model import MOVES_LABEL, SERVICE_LABEL, STACK_LABEL
from mesh.platform.stacks.mover import MoveOutcome, StackMover
from mesh.platform.stacks.moves import MOVING_LABEL, move_of
from mesh.platform.stacks.worker_drain import DrainEffects, WorkerView, drain_effects
from mesh.testing.fleet import FakeFleet, fake_worker
from mesh.testing.readiness import FakeReadiness
from mesh.testing.stack_endpoints import FakeStackEndpoints

pytestmark = pytest.mark.looptime
EPOCH = 1_800_000_000.0


def spec_of(
    name: str,
    instances: int | None,
    *,
    labels: dict[str, str] | None = None,
    constraints: tuple[str, ...] = (),
    most: int = 0,
) -> FleetSpec:
    return FleetSpec(
        f"shop_{name}--1",
        FleetContainer(f"{name}:1"),
        {STACK_LABEL: "shop", SERVICE_LABEL: f"shop/{name}", **(labels or {})},
        instances,
        ports=(FleetPort(80),),
        constraints=constraints,
        most_per_worker=most,
    )


@dataclass
class Lab:
    """Workers `w1`, `w2` and so on, and a mesh that probes and drains what runs there."""

    fleet: FakeFleet
    readiness: FakeReadiness
    endpoints: FakeStackEndpoints
    told: list[str] = field(default_factory=list)

    @staticmethod
    def now() -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def mover(self, stop_after: int = -1, wait: float = 30) -> StackMover:
        """`stop_after`: steps after which whoever typed the command presses Ctrl-C."""

        def tell(line: str) -> None:
            self.told.append(line)
            if stop_after >= 0 and len(self.told) > stop_after:
                raise KeyboardInterrupt

        return StackMover(self.fleet, self.endpoints, self.endpoints, wait=wait, tell=tell)

    async def rebalance(self, mover: StackMover | None = None) -> MoveOutcome:
        services = [each.id for each in await self.fleet.services()]
        return await (mover or self.mover()).rebalance(services)

    async def spread(self, name: str = "web") -> list[int]:
        """How many instances of a service each worker has, the most first."""
        (service,) = [each for each in await self.fleet.services() if each.spec.name.startswith(f"shop_{name}--")]
        found = Counter(
            task.worker_id
            for task in await self.fleet.tasks(service.id)
            if task.desired == "running" and task.state == "running"
        )
        return sorted((found[worker.id] for worker in await self.fleet.workers()), reverse=True)

    async def serving(self, name: str = "web") -> int:
        (service,) = [each for each in await self.fleet.services() if each.spec.name.startswith(f"shop_{name}--")]
        answers = await self.endpoints.answers()
        return sum(
            task.state == "running" and task.desired == "running" and answers[task.id].serving
            for task in await self.fleet.tasks(service.id)
        )

    async def on(self, worker: str) -> int:
        return sum(
            task.worker_id == f"{worker}-id" and task.desired == "running" and task.state == "running"
            for task in await self.fleet.tasks()
        )

    async def counts(self) -> dict[str, int | None]:
        return {each.spec.labels[SERVICE_LABEL]: each.spec.instances for each in await self.fleet.services()}

    async def worker(self, name: str) -> FleetWorker:
        (found,) = [each for each in await self.fleet.workers() if each.name == name]
        return found


def make_lab(workers: int = 3, after: float = 2.0) -> Lab:
    fleet = FakeFleet([fake_worker(f"w{n}") for n in range(1, workers + 1)], clock=Lab.now)
    readiness = FakeReadiness(fleet, Lab.now, after=after)
    return Lab(fleet, readiness, FakeStackEndpoints(readiness))


async def crooked(lab: Lab, instances: int, down: str = "w3") -> None:
    """A service that was made while a worker was down, which is back."""
    lab.fleet.change_worker(f"{down}-id", is_ready=False)
    await lab.fleet.create(spec_of("web", instances))
    await asyncio.sleep(5)
    lab.fleet.change_worker(f"{down}-id", is_ready=True)


async def test_a_worker_that_is_back_gets_its_share_and_all_serve_throughout() -> None:
    lab = make_lab()
    await crooked(lab, 6)
    assert await lab.spread() == [3, 3, 0]
    work = asyncio.ensure_future(lab.rebalance())
    lowest = 6
    while not work.done():
        lowest = min(lowest, await lab.serving())
        await asyncio.sleep(0.1)
    assert (await work).failures == ()
    assert await lab.spread() == [2, 2, 2]
    assert lowest == 6
    (service,) = await lab.fleet.services()
    assert (service.spec.instances, MOVING_LABEL in service.spec.labels) == (6, False)


async def test_a_rebalanced_fleet_is_left_alone() -> None:
    lab = make_lab()
    await crooked(lab, 6)
    await lab.rebalance()
    before = list(lab.fleet.log)
    assert (await lab.rebalance()).steps == ()
    assert lab.fleet.log == before


@pytest.mark.parametrize(
    "spec",
    [spec_of("web", None), spec_of("web", 4, labels={MOVES_LABEL: "false"})],
    ids=["one on each worker", "with data of its workers"],
)
async def test_what_cannot_move_is_not_rebalanced(spec: FleetSpec) -> None:
    lab = make_lab()
    lab.fleet.change_worker("w3-id", is_ready=False)
    await lab.fleet.create(spec)
    lab.fleet.change_worker("w3-id", is_ready=True)
    await asyncio.sleep(5)
    before = await lab.counts()
    assert (await lab.rebalance()).steps == ()
    assert await lab.counts() == before


async def test_one_that_does_not_serve_ends_no_other() -> None:
    lab = make_lab()
    await crooked(lab, 4)
    lab.readiness.broken.add("web:1")
    lab.readiness.after = 0
    outcome = await lab.rebalance(lab.mover(wait=5))
    assert outcome.steps == ()
    assert [(each.service, each.ready, each.wanted) for each in outcome.failures] == [("shop/web", 0, 4)]


async def test_somebody_else_who_changes_the_service_is_a_conflict() -> None:
    lab = make_lab()
    await crooked(lab, 6)
    await asyncio.sleep(5)
    lab.fleet.faults.conflicts = 1
    with pytest.raises(FleetConflictError):
        await lab.rebalance()


async def interrupted(lab: Lab, work: str, stop_after: int, worker: str = "w1-id") -> bool:
    """Begin, press Ctrl-C after some steps; return whether it came to that."""
    lab.told.clear()
    mover = lab.mover(stop_after)
    try:
        if work == "rebalance":
            await lab.rebalance(mover)
        elif work == "drain":
            await mover.drain(worker)
        else:
            await mover.undrain(worker)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("stop_after", range(6))
async def test_a_rebalancing_that_is_interrupted_is_taken_up(stop_after: int) -> None:
    lab = make_lab()
    await crooked(lab, 6)
    assert await interrupted(lab, "rebalance", stop_after) is (stop_after < 4)
    await lab.rebalance()
    assert (await lab.counts(), await lab.spread()) == ({"shop/web": 6}, [2, 2, 2])


async def test_a_scale_ends_a_move_that_was_interrupted() -> None:
    lab = make_lab()
    await crooked(lab, 6)
    await interrupted(lab, "rebalance", 0)
    (service,) = await lab.fleet.services()
    assert service.spec.instances == 7
    await lab.fleet.replace(service.id, service.version, replace(service.spec, instances=9))
    (service,) = await lab.fleet.services()
    assert move_of(service) is None
    await lab.rebalance()
    assert await lab.counts() == {"shop/web": 9}


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    workers=st.integers(2, 4),
    stops=st.lists(st.integers(0, 6), max_size=3),
    returns=st.booleans(),
)
def test_a_drain_with_any_interruptions_empties_the_worker_and_all_serve(
    numbers: list[int], workers: int, stops: list[int], *, returns: bool
) -> None:
    asyncio.run(drained_with_interruptions(numbers, workers, stops, returns=returns))


async def drained_with_interruptions(numbers: list[int], workers: int, stops: list[int], *, returns: bool) -> None:
    lab = make_lab(workers, after=0.0)
    wanted = {}
    for number, instances in enumerate(numbers):
        wanted[f"shop/s{number}"] = instances
        await lab.fleet.create(spec_of(f"s{number}", instances))
    lab.fleet.settle()
    for stop in stops:
        await interrupted(lab, "drain", stop)
        for number, instances in enumerate(numbers):
            assert await lab.serving(f"s{number}") >= instances
    if returns:
        await lab.mover().undrain("w1-id")
        assert (await lab.worker("w1")).availability is FleetAvailability.ACTIVE
        for number, instances in enumerate(numbers):
            assert await lab.serving(f"s{number}") >= instances
    else:
        outcome = await lab.mover().drain("w1-id")
        assert outcome.failures == ()
        assert await lab.on("w1") == 0
        assert (await lab.worker("w1")).availability is FleetAvailability.DRAIN
    assert await lab.counts() == wanted
    assert all(MOVING_LABEL not in each.spec.labels for each in await lab.fleet.services())


async def test_a_drain_adds_elsewhere_first_and_ends_nothing_before_those_serve() -> None:
    lab = make_lab()
    await lab.fleet.create(spec_of("web", 6))
    await asyncio.sleep(5)
    work = asyncio.ensure_future(lab.mover().drain("w1-id"))
    lowest, most = 6, 6
    while not work.done():
        if (await lab.worker("w1")).availability is not FleetAvailability.DRAIN:
            lowest = min(lowest, await lab.serving())
        most = max(most, (await lab.counts())["shop/web"] or 0)
        await asyncio.sleep(0.1)
    assert [line.split(":")[0] for line in (await work).steps] == ["w1", "shop/web", "w1", "w1", "shop/web"]
    assert (lowest, most, await lab.counts()) == (6, 8, {"shop/web": 6})
    assert len(lab.endpoints.drained) == 2
    assert await lab.on("w1") == 0


async def test_a_drain_without_room_elsewhere_ends_nothing_and_the_way_back_is_open() -> None:
    lab = make_lab(2)
    await lab.fleet.create(spec_of("web", 2, most=1))
    await asyncio.sleep(5)
    outcome = await lab.mover(wait=5).drain("w1-id")
    (failure,) = outcome.failures
    assert (failure.service, failure.ready, failure.wanted) == ("shop/web", 2, 2)
    assert await lab.serving() == 2
    assert "max replicas per node" in str(failure)
    assert (await lab.mover().undrain("w1-id")).failures == ()
    assert await lab.counts() == {"shop/web": 2}
    assert await lab.serving() == 2


async def test_a_refusal_of_the_worker_leaves_its_instances() -> None:
    lab = make_lab()
    await lab.fleet.create(spec_of("web", 3))
    await asyncio.sleep(5)
    lab.endpoints.error = MeshError(Code.DAEMON_UNREACHABLE, "w1 does not answer")
    with pytest.raises(MeshError, match="w1 does not answer"):
        await lab.mover().drain("w1-id")
    assert await lab.on("w1") == 1
    assert await lab.serving() == 4


async def test_a_drain_takes_an_interrupted_rebalancing_over() -> None:
    lab = make_lab()
    await crooked(lab, 6)
    await interrupted(lab, "rebalance", 0)
    await lab.mover().drain("w1-id")
    assert (await lab.counts(), await lab.on("w1"), await lab.serving()) == ({"shop/web": 6}, 0, 6)


async def test_what_a_drain_means_is_known_before_anything_is_changed() -> None:
    lab = make_lab()
    await lab.fleet.create(spec_of("web", 3))
    await lab.fleet.create(spec_of("agent", None))
    await lab.fleet.create(spec_of("db", 3, labels={MOVES_LABEL: "false"}))
    await lab.fleet.create(spec_of("pinned", 1, constraints=("node.hostname==w1",)))
    await lab.fleet.create(spec_of("other", 3, labels={MOVING_LABEL: "drain:w2-id 2 3"}))
    await lab.fleet.create(spec_of("away", 1, constraints=("node.hostname==w2",)))
    await lab.fleet.create(FleetSpec("theirs", FleetContainer("theirs:1"), instances=3))
    lab.fleet.settle()
    view = WorkerView(await lab.worker("w1"), await lab.fleet.services(), await lab.fleet.tasks())
    assert drain_effects(view, await lab.fleet.workers()) == DrainEffects(
        everywhere=("shop/agent",),
        bound=("shop/db", "shop/pinned"),
        outside=("theirs",),
        moving=("shop/other",),
        moved=(("shop/web", 1),),
    )
