"""Moves instances between workers: rebalances services, empties a worker and takes it back.

Each round reads what runs, decides what is next, and does it with the versions that it has read. What has to be known
between two rounds is kept in the engine (`mesh.platform.stacks.moves`), so whatever is interrupted is taken up by the
same command.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from mesh.model.errors import MeshError, SettingsError
from mesh.platform.fleet.errors import FleetConflictError
from mesh.platform.fleet.protocol import Fleet, FleetService, FleetTask, FleetWorker
from mesh.platform.stacks.applier import ServiceFailure
from mesh.platform.stacks.moves import (
    REBALANCE,
    InstanceMove,
    is_deployed,
    move_of,
    raised_spec,
    service_name,
    settled_spec,
    wanted_instances,
)
from mesh.platform.stacks.placing import rebalance_step
from mesh.platform.stacks.readiness import StackEndpoints, StackReadiness
from mesh.platform.stacks.running import EndpointAnswer, is_ready, is_routed, running_release, waiting_reasons
from mesh.platform.stacks.worker_drain import (
    AvailabilityStep,
    CountStep,
    DrainRound,
    EndpointsStep,
    MoveStep,
    WorkerView,
    next_drain_round,
    next_return_round,
)

_POLL = 0.5
"""Seconds between two looks at what runs, while there is nothing to do."""


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """What became of a rebalancing or a drain."""

    steps: tuple[str, ...]
    """What was done, in order."""
    failures: tuple[ServiceFailure, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left alone or left out, and why."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What runs at one moment."""

    workers: Sequence[FleetWorker]
    services: Sequence[FleetService]
    tasks: Sequence[FleetTask]
    answers: Mapping[str, EndpointAnswer] = field(default_factory=dict)

    def ready(self, service: FleetService) -> frozenset[str]:
        """Return the tasks of a service that serve, or that run if they are not routed."""
        return frozenset(
            task.id
            for task in self.tasks
            if task.service_id == service.id and is_ready(task, service.spec, self.answers)
        )

    def kept(self, service: FleetService) -> int:
        """Return how many instances of a service the engine keeps now."""
        return sum(task.service_id == service.id and task.desired in ("running", "ready") for task in self.tasks)

    def failure(self, service: FleetService, wanted: int) -> ServiceFailure:
        """Return why a service has too few instances that are ready."""
        own = [task for task in self.tasks if task.service_id == service.id]
        release = running_release(service, own, self.answers)
        names = {each.id: each.name for each in self.workers}
        return ServiceFailure(
            service_name(service), release.ready, wanted, waiting_reasons(release, self.answers, names)
        )


class StackMover:
    """Moves instances, one step after the other."""

    def __init__(
        self,
        fleet: Fleet,
        readiness: StackReadiness,
        endpoints: StackEndpoints,
        *,
        wait: float,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`wait`: seconds without any progress after which it gives up. `tell`: gets a line for each step."""
        self._fleet = fleet
        self._readiness = readiness
        self._endpoints = endpoints
        self._wait = wait
        self._tell = tell
        self._done: list[str] = []
        self._notes: list[str] = []

    @property
    def done(self) -> tuple[str, ...]:
        """What was done so far, in order."""
        return tuple(self._done)

    async def rebalance(self, services: Collection[str]) -> MoveOutcome:
        """Spread the instances of engine services over the workers, one service after the other.

        `services`: their IDs. Raises `FleetConflictError` if somebody else changes one, and other `MeshError`.
        """
        failures = [found for each in services if (found := await self._rebalance(each)) is not None]
        return MoveOutcome(self.done, tuple(failures), tuple(self._notes))

    async def drain(self, worker: str, bound: Collection[str] = ()) -> MoveOutcome:
        """End the instances of a worker (its ID) after as many serve elsewhere.

        `bound`: the names of services that end without. Raises as `rebalance`.
        """
        return await self._lead(worker, partial(next_drain_round, bound=bound))

    async def undrain(self, worker: str) -> MoveOutcome:
        """Let a worker take instances again, and end what a drain had begun. Raises as `rebalance`."""
        return await self._lead(worker, next_return_round)

    async def _rebalance(self, id: str) -> ServiceFailure | None:
        """Return why a service could not be spread; None if it is, or is left alone."""
        loop = asyncio.get_running_loop()
        progress, most, left = loop.time(), -1, -1
        while True:
            look = await self._look()
            service = next((each for each in look.services if each.id == id), None)
            if service is None or service.spec.instances is None or not is_deployed(service):
                return None
            if left < 0:
                left = 2 * service.spec.instances + 2
            move = move_of(service)
            if move is not None and move.reason != REBALANCE:
                self._notes.append(f"{service_name(service)} is left alone: a worker is being drained")
                return None
            wanted = wanted_instances(service) or 0
            ready = len(look.ready(service))
            # The engine makes and ends tasks a moment after the number was changed.
            if look.kept(service) == service.spec.instances <= ready:
                step = _spreading_step(service, look, wanted)
                if step is None:
                    return None
                if not left:
                    self._notes.append(f"{service_name(service)}: the engine does not place it evenly")
                    return None
                await self._do(step)
                progress, most, left = loop.time(), -1, left - 1
            elif ready > most:
                progress, most = loop.time(), ready
            elif loop.time() - progress >= self._wait:
                return look.failure(service, service.spec.instances)
            else:
                await asyncio.sleep(_POLL)

    async def _lead(self, worker: str, next_round: Callable[[WorkerView], DrainRound]) -> MoveOutcome:
        loop = asyncio.get_running_loop()
        asked: set[str] = set()
        progress, best = loop.time(), _WaitingProgress()
        while True:
            look, found = await self._look(), None
            view = _view_of(worker, look, asked)
            found = next_round(view)
            for step in found.steps:
                await self._do(step)
                if isinstance(step, EndpointsStep):
                    asked.update(step.tasks)
            if found.is_done:
                return MoveOutcome(self.done, (), tuple(self._notes))
            if found.steps or best.is_surpassed_by(found, look):
                progress = loop.time()
            elif loop.time() - progress >= self._wait:
                return MoveOutcome(self.done, _failures(view.worker, found, look), tuple(self._notes))
            if not found.steps:
                await asyncio.sleep(_POLL)

    async def _look(self) -> _Look:
        """Return what runs now. Waits for an engine or a daemon that is slow, once something was done.

        Raises `MeshError` after the time that is waited.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._wait if self._done else 0)
        while True:
            try:
                workers, services = await self._fleet.workers(), await self._fleet.services()
                tasks = await self._fleet.tasks()
                asks = any(is_routed(each.spec) for each in services)
                return _Look(workers, services, tasks, await self._readiness.answers() if asks else {})
            except MeshError as error:
                if isinstance(error, FleetConflictError | SettingsError) or loop.time() >= deadline:
                    raise
            await asyncio.sleep(_POLL)

    async def _do(self, step: MoveStep) -> None:
        match step:
            case AvailabilityStep(worker, availability):
                await self._fleet.set_worker(worker.id, worker.version, worker.labels, availability)
            case CountStep(service, spec):
                await self._fleet.replace(service.id, service.version, spec)
            case EndpointsStep(_, tasks, takes_connections):
                change = self._endpoints.undrain if takes_connections else self._endpoints.drain
                self._notes.extend(await change(tasks))
        self._done.append(str(step))
        self._tell(str(step))


class _WaitingProgress:
    """The most that was ready elsewhere, and the least that was left: the same again is no progress."""

    def __init__(self) -> None:
        self._best: tuple[int, int] | None = None

    def is_surpassed_by(self, found: DrainRound, look: _Look) -> bool:
        """Return whether more is ready or less is left than ever before; and remember it."""
        ready = sum(len(look.ready(service)) for service in found.waiting)
        now = (ready - len(found.waiting) * 1_000_000, -found.left)
        if self._best is not None and now <= self._best:
            return False
        self._best = now
        return True


def _spreading_step(service: FleetService, look: _Look, wanted: int) -> CountStep | None:
    """Return the next change of the number of instances; None if the service is even, or is left alone."""
    number = rebalance_step(service, look.workers, look.tasks, wanted)
    if number is None or number == service.spec.instances:
        return None
    if number > wanted:
        return CountStep(service, raised_spec(service, InstanceMove(REBALANCE, wanted, number)))
    return CountStep(service, settled_spec(service.spec, number))


def _view_of(worker: str, look: _Look, asked: Collection[str]) -> WorkerView:
    """Raises `FleetConflictError` if the worker is gone."""
    found = next((each for each in look.workers if each.id == worker), None)
    if found is None:
        raise FleetConflictError(f"worker {worker} has left the swarm meanwhile")
    ready = frozenset[str]().union(*(look.ready(service) for service in look.services))
    return WorkerView(found, look.services, look.tasks, ready, frozenset(asked))


def _failures(worker: FleetWorker, found: DrainRound, look: _Look) -> tuple[ServiceFailure, ...]:
    if found.waiting:
        return tuple(look.failure(service, wanted_instances(service) or 0) for service in found.waiting)
    return (ServiceFailure(worker.name, 0, 0, (f"{found.left} instances have not ended yet",)),)
