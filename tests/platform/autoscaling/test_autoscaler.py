"""The daemon that acts scales services by their load, and when in doubt it does not: engine, store, people, clocks."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mesh.control.conditions import LoopConditions
from mesh.model.codes import Code
from mesh.model.part import ProblemPart
from mesh.platform.autoscaling.autoscaler import Autoscaler
from mesh.platform.autoscaling.model import ScalingReason
from mesh.platform.autoscaling.scaled_services import kept_instances, scaled_policy, scaled_services
from mesh.platform.autoscaling.usage_records import InstanceUsage, WorkerUsage, encode_usage, usage_key
from mesh.platform.fleet.errors import FleetUnavailableError
from mesh.platform.fleet.protocol import FleetAvailability, FleetContainer, FleetService, FleetSpec
from mesh.platform.stacks.applier import DeployAuthor, StackApplier
from mesh.platform.stacks.model import AUTOSCALED_LABEL, SET_BY_HAND
from mesh.platform.stacks.scaling import find_scalable, scaled_service
from mesh.store import StoreError
from mesh.store.usage import LocalUsageStore
from mesh.testing.fleet import FakeFleet, fake_worker
from mesh.testing.readiness import FakeReadiness

pytestmark = pytest.mark.looptime
LABELS = {
    "mesh.stack": "shop",
    "mesh.service": "shop/web",
    "mesh.auto_scaling.max_cpu": "70",
    "mesh.auto_scaling.min_cpu": "20",
    "mesh.auto_scaling.step": "2",
    "mesh.auto_scaling.min_instances": "2",
    "mesh.auto_scaling.max_instances": "6",
    "mesh.auto_scaling.cooldown_seconds": "60",
}
WEB = FleetSpec("shop_web--1", FleetContainer("web:1"), LABELS, 2)


@dataclass
class Lab:
    """A swarm of three, one scaled service, and what its workers tell."""

    fleet: FakeFleet = field(default_factory=lambda: FakeFleet([fake_worker(f"w{n}") for n in (1, 2, 3)]))
    conditions: LoopConditions = field(default_factory=LoopConditions)
    round: int = 0
    jump: float = 0.0
    """How far the wall clock was set."""

    def __post_init__(self) -> None:
        self.store = LocalUsageStore(lambda: 0.0)
        self.failure: StoreError | None = None

    def autoscaler(self) -> Autoscaler:
        return Autoscaler(self.fleet, self.opened, self.conditions, self.wall)

    def wall(self) -> float:
        return 1_800_000_000.0 + asyncio.get_running_loop().time() + self.jump

    async def opened(self) -> LocalUsageStore:
        if self.failure is not None:
            raise self.failure
        return self.store

    async def service(self) -> FleetService:
        (found,) = await self.fleet.services()
        return found

    async def count(self) -> int | None:
        return (await self.service()).spec.instances

    async def told(self, cpu: int, *, silent: str = "") -> None:
        """All workers but one tell how many thousandths of a core each task uses."""
        self.round += 1
        tasks = await self.fleet.tasks()
        for worker in await self.fleet.workers():
            own = tuple(
                InstanceUsage(task.id, cpu) for task in tasks if task.worker_id == worker.id and task.state == "running"
            )
            if worker.name != silent:
                value = encode_usage(WorkerUsage(self.round, "run", 0, {"shop/web": own}))
                await self.store.write(usage_key(worker.name), value)

    async def rounds(
        self, autoscaler: Autoscaler, count: int, cpu: int, *, silent: str = "", acts: Callable[[], bool] = lambda: True
    ) -> None:
        for _ in range(count):
            await asyncio.sleep(10)
            await self.told(cpu, silent=silent)
            await autoscaler.step(acts)


async def lab() -> tuple[Lab, Autoscaler]:
    made = Lab()
    await made.fleet.create(WEB)
    return made, made.autoscaler()


async def test_load_adds_instances_with_the_third_sample_and_its_end_removes_them_after_the_cooldown() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 2, 900)
    assert await world.count() == 2
    await world.rounds(autoscaler, 1, 900)
    assert await world.count() == 4
    assert (await world.service()).spec.labels[AUTOSCALED_LABEL] == "4"
    await world.rounds(autoscaler, 5, 100)
    assert await world.count() == 4, "the cooldown is not over"
    await world.rounds(autoscaler, 2, 100)
    assert await world.count() == 2
    assert autoscaler.decisions["shop/web"].wanted == 2
    await world.rounds(autoscaler, 3, 100)
    (told,) = world.conditions.scaling
    assert (told.service, told.min_instances, told.max_instances, told.values) == ("shop/web", 2, 6, {"cpu": 10.0})
    await autoscaler.rest()
    assert world.conditions.scaling == ()


async def test_a_round_is_made_every_ten_seconds_however_often_it_is_asked_for() -> None:
    world, autoscaler = await lab()
    for _ in range(30):
        await world.told(900)
        await autoscaler.step(lambda: True)
        await asyncio.sleep(0.1)
    assert await world.count() == 2
    assert autoscaler.seconds_to_step() == pytest.approx(7.0)


async def test_nothing_is_written_by_a_daemon_that_does_not_act_any_more() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 4, 900, acts=lambda: False)
    assert await world.count() == 2
    assert [each.wanted for each in world.conditions.scaling] == [2], "nobody is told of what was not done"
    await world.rounds(autoscaler, 1, 900)
    assert await world.count() == 4, "what could not be carried out is decided again"


async def test_while_a_third_of_the_workers_is_unheard_of_nothing_is_removed() -> None:
    world, autoscaler = await lab()
    engine = await world.service()
    await world.fleet.replace(engine.id, engine.version, replace(engine.spec, instances=6))
    await world.rounds(autoscaler, 30, 100, silent="w2")
    assert await world.count() == 6
    await world.rounds(autoscaler, 4, 100)
    assert await world.count() == 4


async def test_without_the_store_nothing_changes_and_the_problem_is_told() -> None:
    world, autoscaler = await lab()
    world.failure = StoreError(Code.STORE_UNREACHABLE, "no answer")
    await world.rounds(autoscaler, 30, 900)
    assert await world.count() == 2
    (problem,) = world.conditions.problems[ProblemPart.SCALING]
    assert problem.code is Code.USAGE_NOT_READ
    world.failure = None
    await world.rounds(autoscaler, 3, 900)
    assert await world.count() == 4
    assert world.conditions.problems[ProblemPart.SCALING] == ()


async def test_a_conflict_is_decided_again_on_what_is_there_then() -> None:
    world, autoscaler = await lab()
    world.fleet.faults.conflicts = 1
    await world.rounds(autoscaler, 3, 900)
    assert await world.count() == 2
    await world.rounds(autoscaler, 1, 900)
    assert await world.count() == 4


async def test_a_number_that_arrived_without_an_answer_is_known_as_its_own_and_doubles_nothing() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 2, 900)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.fleet, "replace", lost_answer(world.fleet))
        await world.rounds(autoscaler, 1, 900)
    assert await world.count() == 4
    await world.rounds(autoscaler, 1, 900)
    assert await world.count() == 4, "its own samples do not count twice"
    assert autoscaler.decisions["shop/web"].reason is not ScalingReason.SET_ASIDE
    await world.rounds(autoscaler, 3, 900)
    assert await world.count() == 6


async def test_another_daemon_that_acts_from_now_on_neither_doubles_nor_removes_soon() -> None:
    world, first = await lab()
    await world.rounds(first, 3, 900)
    second = world.autoscaler()
    await world.rounds(second, 2, 900)
    assert await world.count() == 4
    await world.rounds(second, 3, 100)
    assert await world.count() == 4, "it may have been added a moment ago"
    await world.rounds(second, 3, 100)
    assert await world.count() == 2


@pytest.mark.parametrize("same", [True, False])
async def test_a_number_that_a_person_sets_is_left_alone_for_the_cooldown(*, same: bool) -> None:
    """Also by a daemon that acts from now on and has not seen the change."""
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 3, 900)
    engine = await world.service()
    world.fleet.now = world.wall()
    await world.fleet.replace(engine.id, engine.version, replace(engine.spec, instances=3))
    if not same:
        autoscaler = world.autoscaler()
    await world.rounds(autoscaler, 5, 900)
    assert await world.count() == 3
    assert autoscaler.decisions["shop/web"].reason is ScalingReason.SET_ASIDE
    await world.rounds(autoscaler, 3, 900)
    assert await world.count() == 5


async def test_a_number_from_before_the_first_decision_is_left_alone_by_a_daemon_that_takes_over() -> None:
    world, _ = await lab()
    engine = await world.service()
    world.fleet.now += 100.0
    await world.fleet.replace(engine.id, engine.version, replace(engine.spec, instances=3))
    second = Autoscaler(world.fleet, world.opened, world.conditions, lambda: world.fleet.now)
    await world.rounds(second, 5, 900)
    assert await world.count() == 3
    assert second.decisions["shop/web"].reason is ScalingReason.SET_ASIDE


async def test_what_is_set_by_hand_is_marked() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 3, 900)
    readiness = FakeReadiness(world.fleet, lambda: world.fleet.now)
    applier = StackApplier(world.fleet, readiness, DeployAuthor("anna", lambda: 0.0), wait=30.0)
    _, release = find_scalable("shop/web", await world.fleet.services())
    await applier.scale("shop", scaled_service(release, 5))
    found = await world.service()
    assert (found.spec.instances, found.spec.labels[AUTOSCALED_LABEL]) == (5, SET_BY_HAND)


async def test_nobody_is_told_of_decisions_from_before_an_engine_or_a_store_went_away() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 3, 900)
    assert world.conditions.scaling != ()
    world.fleet.faults.unreachable = "no answer"
    await asyncio.sleep(10)
    with pytest.raises(FleetUnavailableError):
        await autoscaler.step(lambda: True)
    assert world.conditions.scaling == ()
    world.fleet.heal()
    await world.rounds(autoscaler, 1, 900)
    assert world.conditions.scaling != ()
    await autoscaler.rest()
    world.failure = StoreError(Code.STORE_UNREACHABLE, "no answer")
    await world.rounds(autoscaler, 1, 900)
    assert world.conditions.scaling == ()


async def test_nothing_is_removed_while_a_worker_is_paused_or_the_clock_was_set() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 3, 900)
    worker = (await world.fleet.workers())[0]
    await world.fleet.set_worker(worker.id, worker.version, {}, FleetAvailability.PAUSE)
    await world.rounds(autoscaler, 20, 100)
    assert (await world.count(), autoscaler.decisions["shop/web"].reason) == (4, ScalingReason.DRAIN)
    worker = (await world.fleet.workers())[0]
    await world.fleet.set_worker(worker.id, worker.version, {}, FleetAvailability.ACTIVE)
    world.jump = 7200.0
    await world.rounds(autoscaler, 3, 100)
    assert (await world.count(), autoscaler.decisions["shop/web"].reason) == (4, ScalingReason.CLOCK)
    await world.rounds(autoscaler, 5, 100)
    assert await world.count() == 2


async def test_a_service_that_is_being_replaced_keeps_its_number() -> None:
    world, autoscaler = await lab()
    await world.fleet.create(replace(WEB, name="shop_web--2"))
    for _ in range(5):
        await asyncio.sleep(10)
        await world.told(900)
        await autoscaler.step(lambda: True)
    assert [each.spec.instances for each in await world.fleet.services()] == [2, 2]
    assert autoscaler.decisions["shop/web"].reason is ScalingReason.ROLLOUT


async def test_the_bounds_hold_whatever_the_load() -> None:
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 20, 5000)
    assert await world.count() == 6


def lies(id: str) -> list[bytes]:
    """What a worker may write whose credentials somebody else has."""
    many = tuple(InstanceUsage(f"x{number}", 1 << 50) for number in range(1000))
    usages = [
        WorkerUsage(1, "run", 0, {"shop/web": (InstanceUsage(id, 1 << 53),)}),
        WorkerUsage(1, "run", 0, {"shop/web": many}),
        WorkerUsage(1, "run", 0, {"shop/db": many, "other/web": many, "shop/web": ()}),
        WorkerUsage(1, "run", 1 << 53, {"shop/web": (InstanceUsage(id, 0, 0, cpu_limit=1, memory_limit=1),)}),
    ]
    broken = [b"", b"{}", b"[]", b"\xff", b'{"round":-1}', b'{"round":1e400}', b'{"round":' * 500, b'{"services":[]}']
    return [*map(encode_usage, usages), *broken, b'{"round":1,"services":{"shop/web":[["' + id.encode() + b'",NaN]]}}']


async def test_whatever_is_told_only_the_number_changes_and_within_the_bounds() -> None:
    world, autoscaler = await lab()
    labels = {"mesh.stack": "shop", "mesh.service": "shop/db"}
    await world.fleet.create(replace(WEB, name="shop_db--1", labels=labels))
    task, numbers = (await world.fleet.tasks())[0].id, set[int | None]()
    for value in lies(task):
        for number in range(8):
            await asyncio.sleep(10)
            for worker in ("w1", "w2", "w3", "nobody", "../w1"):
                text = value.replace(b'"round":1', b'"round":%d' % (number + 2))
                await world.store.write(usage_key(worker), text)
            await autoscaler.step(lambda: True)
        db, web = await world.fleet.services()
        assert db.spec == replace(WEB, name="shop_db--1", labels=labels)
        numbers.add(web.spec.instances)
        kept = {key: text for key, text in web.spec.labels.items() if key != AUTOSCALED_LABEL}
        assert replace(web.spec, instances=2, labels=kept) == WEB
    assert numbers <= {2, 4, 6}
    assert 6 in numbers, "some of it is believed"
    assert not [line for line in world.fleet.log if line.startswith(("remove", "set worker"))]


async def test_a_number_that_arrives_late_is_known_as_its_own() -> None:
    """The engine carries a change out after its time is over: the retry finds another version than it has read."""
    world, autoscaler = await lab()
    await world.rounds(autoscaler, 2, 900)
    engine = await world.service()
    late = replace(engine.spec, instances=4, labels={**engine.spec.labels, AUTOSCALED_LABEL: "4"})
    world.fleet.faults.conflicts = 1
    await world.rounds(autoscaler, 1, 900)
    await world.fleet.replace(engine.id, engine.version, late)
    await world.rounds(autoscaler, 1, 900)
    assert (await world.count(), autoscaler.decisions["shop/web"].reason) == (4, ScalingReason.FEW_SAMPLES)
    await world.rounds(autoscaler, 3, 900)
    assert await world.count() == 6


async def test_without_a_scaled_service_no_store_is_opened() -> None:
    world = Lab()
    world.failure = StoreError(Code.STORE_UNREACHABLE, "not asked")
    await world.fleet.create(replace(WEB, labels={"mesh.stack": "shop", "mesh.service": "shop/web"}))
    autoscaler = world.autoscaler()
    await autoscaler.step(lambda: True)
    assert world.conditions.problems.get(ProblemPart.SCALING, ()) == ()
    assert autoscaler.decisions == {}


def lost_answer(fleet: FakeFleet) -> Callable[[str, int, FleetSpec], Coroutine[Any, Any, None]]:
    """The engine changes the service, and its answer is lost."""
    really = fleet.replace

    async def change(service_id: str, version: int, spec: FleetSpec) -> None:
        await really(service_id, version, spec)
        raise FleetUnavailableError("no answer in 10 s")

    return change


@pytest.mark.parametrize(
    ("labels", "is_scaled"),
    [
        (LABELS, True),
        ({**LABELS, "mesh.auto_scaling.max_cpu": "many"}, False),
        ({**LABELS, "mesh.auto_scaling.min_instances": "7"}, False),
        ({"mesh.stack": "shop", "mesh.service": "shop/web"}, False),
        ({key: value for key, value in LABELS.items() if key != "mesh.stack"}, False),
    ],
)
def test_only_services_of_a_deploy_with_right_labels_are_scaled(labels: dict[str, str], *, is_scaled: bool) -> None:
    assert (scaled_policy(replace(WEB, labels=labels)) is not None) is is_scaled
    assert scaled_policy(replace(WEB, labels=labels, instances=None)) is None
    engine = FleetService("x", 1, replace(WEB, labels=labels), 0.0, 0.0)
    assert [each.owner for each in scaled_services([engine], (), ())] == ["shop/web"] * is_scaled


@pytest.mark.parametrize(
    ("written", "running", "expected"), [(3, None, 3), (1, None, 2), (9, None, 6), (3, 5, 5), (3, 9, 6), (3, 1, 2)]
)
def test_a_deploy_keeps_what_runs_within_the_bounds(written: int, running: int | None, expected: int) -> None:
    policy = scaled_policy(WEB)
    assert policy is not None
    assert kept_instances(policy, written, running, 0.0) == expected
