"""Decides the next steps of the drain of a worker, and of its end: from what the engine has now. Pure.

The engine's own drain ends instances before others start. Here the worker takes no new instance (`pause`), as many are
added elsewhere as run there, and only when those serve are the worker's endpoints drained and its instances ended
(`drain`); then the numbers go back. What has been done is read from the engine: the availability of the worker, and the
label `mesh.moving` of the services. So a drain that ends between any two steps is taken up by the next one.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from typing_extensions import override

from mesh.platform.fleet.protocol import FleetAvailability, FleetService, FleetSpec, FleetTask, FleetWorker
from mesh.platform.stacks.moves import (
    REBALANCE,
    InstanceMove,
    drain_reason,
    has_data,
    is_deployed,
    move_of,
    raised_spec,
    runs_on,
    service_name,
    settled_spec,
    wanted_instances,
)
from mesh.platform.stacks.placing import takes_instances
from mesh.platform.stacks.running import has_ended


@dataclass(frozen=True, slots=True)
class AvailabilityStep:
    """Change whether a worker takes instances."""

    worker: FleetWorker
    availability: FleetAvailability

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        what = {
            FleetAvailability.PAUSE: "takes no new instances",
            FleetAvailability.DRAIN: "its instances end",
            FleetAvailability.ACTIVE: "takes instances again",
        }
        return f"{self.worker.name}: {what[self.availability]}"


@dataclass(frozen=True, slots=True)
class CountStep:
    """Change the number of instances of a service, with the label that says why."""

    service: FleetService
    spec: FleetSpec

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        return f"{service_name(self.service)}: from {self.service.spec.instances} to {self.spec.instances} instances"


@dataclass(frozen=True, slots=True)
class EndpointsStep:
    """Drain the endpoints of instances, or let them take connections again."""

    worker: FleetWorker
    tasks: tuple[str, ...]
    """IDs of tasks."""
    takes_connections: bool = False

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        number = f"{len(self.tasks)} endpoint{'' if len(self.tasks) == 1 else 's'}"
        return f"{self.worker.name}: {number} {'taken back' if self.takes_connections else 'drained'}"


MoveStep = AvailabilityStep | CountStep | EndpointsStep


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One look at a worker and what runs."""

    worker: FleetWorker
    services: Sequence[FleetService]
    tasks: Sequence[FleetTask]
    ready: Collection[str] = ()
    """The IDs of the tasks that serve, or that run if they are not routed."""
    drained: Collection[str] = ()
    """The IDs of the tasks whose endpoints this drain has drained."""


@dataclass(frozen=True, slots=True)
class DrainRound:
    """What one look results in."""

    steps: tuple[MoveStep, ...] = ()
    """In order. Empty: it is done, or there is something to wait for."""
    waiting: tuple[FleetService, ...] = ()
    """Services of which too few instances serve elsewhere."""
    left: int = 0
    """Instances on the worker that have not ended."""
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class DrainEffects:
    """What the drain of a worker means for services that cannot be kept whole. Each is sorted by name."""

    everywhere: tuple[str, ...] = ()
    """Services with one instance on each worker: that of this worker ends."""
    bound: tuple[str, ...] = ()
    """Services whose instances there have data of the worker, or no other worker that may have them."""
    outside: tuple[str, ...] = ()
    """Services that vipmesh has not deployed: the engine ends their instances before others start."""
    moving: tuple[str, ...] = ()
    """Services that another drain or a rebalancing moves now."""
    moved: tuple[tuple[str, int], ...] = ()
    """Services whose instances are replaced elsewhere, with the number."""


def drain_effects(view: WorkerView, workers: Sequence[FleetWorker]) -> DrainEffects:
    """Return what the drain of a worker means for each service that runs there."""
    here = Counter(task.service_id for task in view.tasks if runs_on(task, view.worker))
    everywhere, bound, outside, moving, moved = [], [], [], [], []
    for service in view.services:
        name = service_name(service)
        move = move_of(service)
        if not here[service.id]:
            continue
        if service.spec.instances is None:
            everywhere.append(name)
        elif not is_deployed(service):
            outside.append(name)
        elif has_data(service) or not _has_room_elsewhere(service, view.worker, workers):
            bound.append(name)
        elif move is not None and move.reason not in (drain_reason(view.worker), REBALANCE):
            moving.append(name)
        else:
            moved.append((name, here[service.id]))
    return DrainEffects(
        tuple(sorted(everywhere)),
        tuple(sorted(bound)),
        tuple(sorted(outside)),
        tuple(sorted(moving)),
        tuple(sorted(moved)),
    )


def _has_room_elsewhere(service: FleetService, worker: FleetWorker, workers: Sequence[FleetWorker]) -> bool:
    return any(each.id != worker.id and takes_instances(each, service.spec.constraints) for each in workers)


def next_drain_round(view: WorkerView, bound: Collection[str] = ()) -> DrainRound:
    """Return the next steps of the drain of a worker.

    `bound`: names of services that are not replaced elsewhere before their instances end.
    """
    worker = view.worker
    if worker.availability is FleetAvailability.ACTIVE:
        return DrainRound((AvailabilityStep(worker, FleetAvailability.PAUSE),))
    if worker.availability is FleetAvailability.DRAIN:
        return _ending_round(view)
    moved = [each for each in view.services if _is_replaced(each, view, bound)]
    raised = [step for service in moved if (step := _raise(service, view)) is not None]
    if raised:
        return DrainRound(tuple(raised))
    waiting = tuple(service for service in moved if not _is_whole_elsewhere(service, view))
    if waiting:
        return DrainRound(waiting=waiting)
    routed = {service.id for service in view.services if service.spec.ports}
    left = [
        task.id
        for task in view.tasks
        if runs_on(task, worker)
        and task.state == "running"
        and task.service_id in routed
        and task.id not in view.drained
    ]
    if left:
        return DrainRound((EndpointsStep(worker, tuple(sorted(left))),))
    return DrainRound((AvailabilityStep(worker, FleetAvailability.DRAIN),))


def _ending_round(view: WorkerView) -> DrainRound:
    # The numbers go back at once: the engine takes away first what does not run yet, and that is what it is about to
    # start in the place of the instances that end.
    back = _settling_steps(view)
    # Of a worker that is down nobody knows what has ended.
    left = sum(view.worker.is_ready and task.worker_id == view.worker.id and not has_ended(task) for task in view.tasks)
    return DrainRound(tuple(back), left=left, is_done=not back and not left)


def next_return_round(view: WorkerView) -> DrainRound:
    """Return the next steps by which a worker takes instances again. Nothing is moved back to it."""
    worker = view.worker
    steps: list[MoveStep] = []
    if worker.availability is not FleetAvailability.ACTIVE:
        steps.append(AvailabilityStep(worker, FleetAvailability.ACTIVE))
    routed = {service.id for service in view.services if service.spec.ports}
    # A drain that was interrupted may have drained endpoints that run on.
    left = [
        task.id
        for task in view.tasks
        if runs_on(task, worker)
        and task.state == "running"
        and task.service_id in routed
        and task.id not in view.ready
        and task.id not in view.drained
    ]
    if left:
        steps.append(EndpointsStep(worker, tuple(sorted(left)), takes_connections=True))
    steps.extend(_settling_steps(view))
    return DrainRound(tuple(steps), is_done=not steps)


def _settling_steps(view: WorkerView) -> list[CountStep]:
    reason = drain_reason(view.worker)
    return [
        CountStep(service, settled_spec(service.spec, move.wanted))
        for service in view.services
        if (move := move_of(service)) is not None and move.reason == reason
    ]


def _is_replaced(service: FleetService, view: WorkerView, bound: Collection[str]) -> bool:
    """Return whether instances of a service are started elsewhere before those of the worker end."""
    if service.spec.instances is None or not is_deployed(service):
        return False
    if has_data(service) or service_name(service) in bound:
        return False
    return any(task.service_id == service.id and runs_on(task, view.worker) for task in view.tasks)


def _raise(service: FleetService, view: WorkerView) -> CountStep | None:
    """Return the step that adds as many instances as run on the worker; None if they were added."""
    wanted = wanted_instances(service) or 0
    here = sum(task.service_id == service.id and runs_on(task, view.worker) for task in view.tasks)
    reason, raised, move = drain_reason(view.worker), wanted + here, move_of(service)
    if move is not None and move.reason == reason and move.raised >= raised:
        return None
    return CountStep(service, raised_spec(service, InstanceMove(reason, wanted, raised)))


def _is_whole_elsewhere(service: FleetService, view: WorkerView) -> bool:
    ready = sum(
        task.service_id == service.id and task.worker_id != view.worker.id and task.id in view.ready
        for task in view.tasks
    )
    return ready >= (wanted_instances(service) or 0)
