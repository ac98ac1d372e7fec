"""What every fleet does, in memory and on a real engine."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from mesh.platform.fleet.errors import FleetConflictError, FleetRefusedError
from mesh.platform.fleet.protocol import (
    FleetAvailability,
    FleetContainer,
    FleetPort,
    FleetResources,
    FleetRestart,
    FleetTask,
)
from tests.platform.fleet.conftest import ABSENT, FleetUnderTest
from tests.system.docker.engine import IMAGE


def all_running(tasks: list[FleetTask]) -> bool:
    return bool(tasks) and all(task.state == "running" for task in tasks)


async def test_one_engine_is_a_fleet_that_can_act(under_test: FleetUnderTest) -> None:
    state = await under_test.fleet.state()
    assert (state.is_active, state.can_act, state.reason, state.live_restore) == (True, True, "", False)
    (worker,) = await under_test.fleet.workers()
    assert worker.id == state.worker_id
    assert (worker.is_ready, worker.availability, worker.role) == (True, FleetAvailability.ACTIVE, "manager")
    assert worker.capacity.cpu_nanos >= 1_000_000_000
    assert worker.capacity.memory_bytes > 1 << 28
    with pytest.raises(FleetRefusedError, match="already part"):
        await under_test.fleet.initialize()


async def test_a_service_is_read_as_it_was_created_and_its_tasks_run(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    spec = under_test.spec(
        labels={"mesh.stack": "shop", "empty": ""},
        instances=2,
        ports=(FleetPort(80), FleetPort(53, "udp")),
        limits=FleetResources(cpu_nanos=500_000_000, memory_bytes=64 << 20, pids=50),
        restart=FleetRestart(delay=1_000_000_000),
    )
    spec = replace(
        spec,
        container=replace(spec.container, environment=(("A", "1"), ("B", "")), labels={"mesh.service": "shop/web"}),
    )
    id = await fleet.create(spec)
    (service,) = await fleet.services()
    assert (service.id, service.spec, service.unknown) == (id, spec, ())
    assert service.version > 0
    assert service.created > 1_000_000_000
    tasks = await under_test.tasks(lambda now: len(now) == 2 and all_running(now), id)
    assert sorted(task.slot for task in tasks) == [1, 2]
    assert {task.worker_id for task in tasks} == {(await fleet.state()).worker_id}
    assert all(task.container_id and task.exit_code is None and not task.reason for task in tasks)
    with pytest.raises(FleetConflictError, match="web"):
        await fleet.create(spec)


async def test_services_are_found_by_label_and_in_order(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    for name, stack in (("b", "shop"), ("a", "shop"), ("c", "blog")):
        await fleet.create(under_test.spec(name, labels={"mesh.stack": stack}, instances=0))
    assert [each.spec.name for each in await fleet.services()] == ["a", "b", "c"]
    assert [each.spec.name for each in await fleet.services("mesh.stack=shop")] == ["a", "b"]
    assert len(await fleet.services("mesh.stack")) == 3
    assert await fleet.services("mesh.other") == ()


async def test_a_scale_keeps_tasks_and_an_old_version_is_a_conflict(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    spec = under_test.spec(instances=1)
    id = await fleet.create(spec)
    (first,) = await under_test.tasks(all_running)
    (before,) = await fleet.services()
    await fleet.replace(id, before.version, replace(spec, instances=2))
    with pytest.raises(FleetConflictError):
        await fleet.replace(id, before.version, replace(spec, instances=5))
    tasks = await under_test.tasks(lambda now: len(now) == 2 and all_running(now))
    assert first.id in {task.id for task in tasks}
    (after,) = await fleet.services()
    assert (after.spec.instances, after.version > before.version) == (2, True)
    await fleet.replace(id, after.version, replace(spec, instances=0))
    await under_test.tasks(lambda now: not now)


async def test_what_makes_another_container_replaces_the_task(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    spec = under_test.spec()
    id = await fleet.create(spec)
    (first,) = await under_test.tasks(all_running)
    (before,) = await fleet.services()
    changed = replace(spec, container=replace(spec.container, environment=(("A", "2"),)))
    await fleet.replace(id, before.version, changed)
    (second,) = await under_test.tasks(lambda now: all_running(now) and now[0].id != first.id)
    assert (second.slot, second.container_id != first.container_id) == (1, True)


async def test_what_is_gone_is_no_error_to_remove_and_a_conflict_to_change(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    id = await fleet.create(under_test.spec())
    (service,) = await fleet.services()
    await fleet.remove(id)
    await fleet.remove(id)
    assert await fleet.services() == ()
    with pytest.raises(FleetConflictError):
        await fleet.replace(id, service.version, service.spec)
    with pytest.raises(FleetConflictError):
        await fleet.set_worker("nosuch", 1, {}, FleetAvailability.ACTIVE)


async def test_a_renamed_service_and_a_bad_constraint_are_refused(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    id = await fleet.create(under_test.spec(instances=0))
    (service,) = await fleet.services()
    with pytest.raises(FleetRefusedError, match="renaming"):
        await fleet.replace(id, service.version, replace(service.spec, name="other"))
    with pytest.raises(FleetRefusedError, match="constraint expected one operator"):
        await fleet.create(under_test.spec("bad", constraints=("az",)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"constraints": ("node.labels.az==9",)}, "scheduling constraints not satisfied on 1 node"),
        ({"reservations": FleetResources(memory_bytes=1 << 50)}, "insufficient resources on 1 node"),
        ({"instances": 2, "most_per_worker": 1}, "max replicas per node limit exceed"),
    ],
)
async def test_what_has_no_place_says_why(under_test: FleetUnderTest, fields: dict[str, Any], reason: str) -> None:
    await under_test.fleet.create(under_test.spec(**fields))
    tasks = await under_test.tasks(lambda now: any(task.reason for task in now))
    assert {task.reason for task in tasks if task.reason} == {f"no suitable node ({reason})"}
    assert {task.state for task in tasks if task.reason} == {"pending"}


async def test_a_label_of_the_worker_gives_a_task_its_place_and_takes_it(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    await fleet.create(under_test.spec(constraints=("node.labels.az==1",)))
    await under_test.tasks(lambda now: any(task.reason for task in now))
    (worker,) = await fleet.workers()
    await fleet.set_worker(worker.id, worker.version, {"az": "1"}, FleetAvailability.ACTIVE)
    await under_test.tasks(all_running)
    (now,) = await fleet.workers()
    assert (now.labels, now.version > worker.version) == ({"az": "1"}, True)
    with pytest.raises(FleetConflictError):
        await fleet.set_worker(worker.id, worker.version, {}, FleetAvailability.DRAIN)
    await fleet.set_worker(now.id, now.version, {}, FleetAvailability.ACTIVE)
    await under_test.tasks(lambda tasks: [task.state for task in tasks] == ["pending"])


async def test_a_global_service_has_one_task_without_a_slot(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    await fleet.create(under_test.spec(instances=None))
    (task,) = await under_test.tasks(all_running)
    assert (task.slot, task.worker_id) == (0, (await fleet.state()).worker_id)
    assert (await fleet.services())[0].spec.instances is None


async def test_a_container_that_fails_is_made_again_and_says_its_status(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    if under_test.engine is None:
        fleet.images.runs[IMAGE] = replace(fleet.images.run(IMAGE), ends_after=0, exit_code=7)  # type: ignore[attr-defined]
    spec = under_test.spec(restart=FleetRestart("on-failure", delay=1_000_000_000))
    id = await fleet.create(replace(spec, container=FleetContainer(IMAGE, args=("sh", "-c", "exit 7"))))
    await under_test.tasks(lambda now: any(task.desired == "ready" for task in now))
    failed = next(task for task in await fleet.tasks(id) if task.state == "failed")
    assert (failed.exit_code, failed.reason) == (7, "task: non-zero exit (7)")


async def test_an_image_that_is_nowhere_is_rejected_and_says_so(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    spec = under_test.spec()
    id = await fleet.create(replace(spec, container=replace(spec.container, image=ABSENT)))
    await under_test.tasks(lambda now: any(task.desired == "ready" for task in now))
    rejected = next(task for task in await fleet.tasks(id) if task.state == "rejected")
    assert ABSENT in rejected.reason


async def test_an_image_without_a_digest_is_as_it_is_unless_the_registry_is_asked(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    assert await fleet.resolve_image(IMAGE, pull=False) == IMAGE
    assert await fleet.resolve_image(ABSENT, pull=False) == ABSENT
    pinned = f"{IMAGE}@sha256:{'0' * 64}"
    assert await fleet.resolve_image(pinned, pull=True) == pinned
    with pytest.raises(FleetRefusedError, match=ABSENT):
        await fleet.resolve_image(ABSENT, pull=True)


async def test_changes_are_told_with_their_ids(under_test: FleetUnderTest) -> None:
    fleet = under_test.fleet
    async with aclosing(fleet.changes()) as changes, asyncio.timeout(40):  # type: ignore[type-var]
        assert await anext(changes) == ""
        id = await fleet.create(under_test.spec())
        while await anext(changes) != id:
            pass
        (worker,) = await fleet.workers()
        await fleet.set_worker(worker.id, worker.version, {"a": "b"}, FleetAvailability.ACTIVE)
        while await anext(changes) != worker.id:
            pass
