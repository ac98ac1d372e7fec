"""The engines in memory do what swarmkit does with several workers."""

from collections import Counter
from dataclasses import replace

import pytest

from mesh.platform.fleet.errors import FleetConflictError, FleetNoQuorumError, FleetRefusedError, FleetUnavailableError
from mesh.platform.fleet.protocol import (
    FleetAvailability,
    FleetContainer,
    FleetResources,
    FleetRestart,
    FleetSpec,
    FleetTask,
)
from mesh.testing.fleet import FakeFleet, FakeImageRun, fake_worker

WEB = FleetSpec("shop_web--1", FleetContainer("web:1"), instances=3)


def three() -> FakeFleet:
    return FakeFleet([fake_worker(f"w{n}", labels={"az": str(n)}) for n in (1, 2, 3)])


def live(tasks: tuple[FleetTask, ...]) -> list[FleetTask]:
    return [task for task in tasks if task.desired in ("running", "ready")]


async def places(fleet: FakeFleet) -> dict[str, int]:
    return dict(Counter(task.worker_id for task in live(await fleet.tasks()) if task.state == "running"))


async def reasons(fleet: FakeFleet) -> set[str]:
    return {task.reason for task in live(await fleet.tasks()) if task.state == "pending"}


async def test_tasks_are_spread_over_the_workers() -> None:
    fleet = three()
    await fleet.create(WEB)
    assert await places(fleet) == {"w1-id": 1, "w2-id": 1, "w3-id": 1}
    assert {task.container_id for task in await fleet.tasks()} >= {"container-of-task4"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (replace(WEB, constraints=("node.labels.az==9",)), "scheduling constraints not satisfied on 3 nodes"),
        (
            replace(WEB, reservations=FleetResources(memory_bytes=9 << 30)),
            "insufficient resources on 3 nodes",
        ),
        (replace(WEB, instances=4, most_per_worker=1), "max replicas per node limit exceed"),
        (
            replace(WEB, constraints=("node.labels.az==1",), instances=2, most_per_worker=1),
            "scheduling constraints not satisfied on 2 nodes; max replicas per node limit exceed",
        ),
    ],
)
async def test_what_has_no_place_is_pending_with_the_engines_words(spec: FleetSpec, reason: str) -> None:
    fleet = three()
    await fleet.create(spec)
    assert await reasons(fleet) == {f"no suitable node ({reason})"}


async def test_reservations_fill_a_worker_and_free_it_again() -> None:
    fleet = FakeFleet([fake_worker("w1", cores=2)])
    spec = replace(WEB, reservations=FleetResources(cpu_nanos=1_000_000_000))
    id = await fleet.create(spec)
    assert await places(fleet) == {"w1-id": 2}
    assert await reasons(fleet) == {"no suitable node (insufficient resources on 1 node)"}
    (service,) = await fleet.services()
    await fleet.replace(id, service.version, replace(spec, instances=1))
    await fleet.create(replace(spec, name="other", instances=1))
    assert await reasons(fleet) == set()


async def test_a_lost_worker_is_replaced_and_ends_its_surplus_when_it_is_back() -> None:
    fleet = three()
    await fleet.create(WEB)
    fleet.change_worker("w3-id", is_ready=False)
    tasks = await fleet.tasks()
    assert Counter(task.worker_id for task in live(tasks))["w3-id"] == 0
    assert len(live(tasks)) == 3
    (unseen,) = [task for task in tasks if task.worker_id == "w3-id"]
    assert (unseen.desired, unseen.state) == ("shutdown", "running")
    fleet.change_worker("w3-id", is_ready=True)
    (ended,) = [task for task in await fleet.tasks() if task.worker_id == "w3-id"]
    assert ended.state == "shutdown"
    assert "w3-id" not in await places(fleet), "nobody rebalances"


async def test_one_more_and_one_less_rebalance() -> None:
    fleet = three()
    fleet.change_worker("w3-id", is_ready=False)
    id = await fleet.create(replace(WEB, instances=6))
    fleet.change_worker("w3-id", is_ready=True)
    for count in (7, 6, 7, 6):
        (service,) = await fleet.services()
        await fleet.replace(id, service.version, replace(WEB, instances=count))
    assert await places(fleet) == {"w1-id": 2, "w2-id": 2, "w3-id": 2}


async def test_a_drained_worker_is_emptied_and_a_paused_one_keeps_what_it_has() -> None:
    fleet = three()
    await fleet.create(WEB)
    await fleet.create(FleetSpec("agent", FleetContainer("agent:1"), instances=None))
    first, second, _ = await fleet.workers()
    await fleet.set_worker(first.id, first.version, first.labels, FleetAvailability.PAUSE)
    assert (await places(fleet))["w1-id"] == 2
    await fleet.set_worker(second.id, second.version, second.labels, FleetAvailability.DRAIN)
    fleet.advance(1)
    assert await places(fleet) == {"w1-id": 2, "w3-id": 3}


async def test_a_label_that_breaks_a_constraint_moves_the_task() -> None:
    fleet = three()
    await fleet.create(replace(WEB, instances=1, constraints=("node.labels.db != yes",)))
    assert await places(fleet) == {"w1-id": 1}
    fleet.change_worker("w1-id", labels={"db": "Yes"})
    assert await places(fleet) == {"w2-id": 1}


async def test_instances_are_spread_over_the_values_of_a_label() -> None:
    fleet = FakeFleet([fake_worker(f"w{n}", labels={"az": "a" if n < 4 else "b"}) for n in (1, 2, 3, 4)])
    await fleet.create(replace(WEB, instances=4, spreads=("node.labels.az",)))
    assert (await places(fleet))["w4-id"] == 2


async def test_a_crash_loop_waits_for_its_delay_and_ends_after_its_attempts() -> None:
    fleet = three()
    fleet.images.runs["web:1"] = FakeImageRun(ends_after=1, exit_code=3)
    await fleet.create(replace(WEB, instances=1, restart=FleetRestart(delay=5_000_000_000, attempts=2)))
    fleet.advance(1)
    failed, coming = await fleet.tasks()
    assert (failed.state, failed.exit_code, failed.reason) == ("failed", 3, "task: non-zero exit (3)")
    assert (coming.desired, coming.slot) == ("ready", failed.slot)
    fleet.advance(4)
    assert not await places(fleet)
    fleet.advance(1)
    assert sum((await places(fleet)).values()) == 1
    for _ in range(20):
        fleet.advance(10)
    assert [task.state for task in await fleet.tasks()] == ["failed"] * 3


async def test_an_image_that_cannot_be_pulled_is_rejected_again_and_again_and_five_are_kept() -> None:
    fleet = three()
    fleet.images.runs["web:1"] = FakeImageRun(pull_error="No such image: web:1")
    await fleet.create(replace(WEB, instances=1))
    for _ in range(20):
        fleet.advance(5)
    tasks = await fleet.tasks()
    assert {task.reason for task in tasks if task.desired == "shutdown"} == {"No such image: web:1"}
    assert 5 <= len(tasks) <= 6


async def test_a_slow_start_is_preparing_until_its_time() -> None:
    fleet = three()
    fleet.images.runs["web:1"] = FakeImageRun(starts_after=12)
    await fleet.create(replace(WEB, instances=1))
    assert [task.state for task in await fleet.tasks()] == ["preparing"]
    fleet.advance(12)
    assert [task.state for task in await fleet.tasks()] == ["running"]


async def test_only_what_makes_another_container_replaces_tasks() -> None:
    fleet = three()
    id = await fleet.create(WEB)
    before = {task.id for task in await fleet.tasks()}

    async def change(spec: FleetSpec) -> set[str]:
        (service,) = await fleet.services()
        await fleet.replace(id, service.version, spec)
        return {task.id for task in live(await fleet.tasks())}

    assert await change(replace(WEB, labels={"mesh.stack": "shop"}, constraints=("node.labels.az!=9",))) == before
    assert (await change(replace(WEB, instances=5))) > before
    assert not (await change(replace(WEB, container=FleetContainer("web:2")))) & before


async def test_faults_are_told_once_each_and_a_gap_afterwards() -> None:
    fleet = three()
    changes = fleet.changes()
    assert await anext(changes) == ""
    fleet.faults.conflicts = 1
    with pytest.raises(FleetConflictError, match="out of sequence"):
        await fleet.create(WEB)
    fleet.faults.refusals.append("no space left")
    with pytest.raises(FleetRefusedError, match="no space left"):
        await fleet.create(WEB)
    fleet.faults.no_quorum = True
    assert not (await fleet.state()).can_act
    with pytest.raises(FleetNoQuorumError, match="leader"):
        await fleet.services()
    fleet.faults.unreachable = "no answer in 10 s"
    with pytest.raises(FleetUnavailableError, match="no answer"):
        await fleet.state()
    fleet.heal()
    assert await anext(changes) == ""
    assert fleet.log == []


async def test_a_worker_of_the_fleet_cannot_act() -> None:
    fleet = FakeFleet([fake_worker("w1", role="worker")])
    assert (await fleet.state()).is_active
    with pytest.raises(FleetUnavailableError, match="no manager"):
        await fleet.workers()


async def test_live_restore_refuses_a_fleet() -> None:
    with pytest.raises(FleetRefusedError, match="live-restore"):
        await FakeFleet(live_restore=True).initialize()
    assert (await FakeFleet().initialize()).can_act


async def test_images_are_looked_up_here_first() -> None:
    fleet = three()
    fleet.images.present["web:1"] = "sha256:1"
    fleet.images.registry = {"web:1": "sha256:2", "new:1": "sha256:3"}
    assert await fleet.resolve_image("web:1", pull=False) == "web:1@sha256:1"
    assert await fleet.resolve_image("web:1", pull=True) == "web:1@sha256:2"
    assert await fleet.resolve_image("new:1", pull=False) == "new:1@sha256:3"
    assert await fleet.resolve_image("imported", pull=False) == "imported"
    with pytest.raises(FleetRefusedError, match="imported"):
        await fleet.resolve_image("imported", pull=True)
