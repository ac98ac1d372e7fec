"""Does the steps of a deploy, and waits between them until instances are ready.

Each round reads what runs, decides what is next, and does it with the versions that it has read. Nothing is kept beside
the engine's own services, so a deploy that is interrupted between any two steps is taken up by the next one.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from mesh.config.labels.reader import is_scaled
from mesh.model.errors import MeshError, SettingsError
from mesh.platform.fleet.errors import FleetConflictError, FleetUnavailableError
from mesh.platform.fleet.protocol import Fleet, FleetSpec
from mesh.platform.stacks.differ import missing_services, prune_steps
from mesh.platform.stacks.model import AUTOSCALED_LABEL, SET_BY_HAND, Desired, DesiredService, StackCondition
from mesh.platform.stacks.moves import settled_spec
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.records import stamp
from mesh.platform.stacks.rollout import (
    CreateStep,
    RemoveStep,
    RolloutRound,
    ScaleStep,
    StackStep,
    current_release,
    next_round,
)
from mesh.platform.stacks.running import (
    EndpointAnswer,
    RunningStack,
    has_ended,
    is_routed,
    read_running,
    waiting_reasons,
)

_POLL = 0.5
"""Seconds between two looks at what runs, while there is nothing to do."""


@dataclass(frozen=True, slots=True)
class ServiceFailure:
    """A service that did not become ready."""

    service: str
    ready: int
    wanted: int
    reasons: tuple[str, ...]
    """Why, the engine's own words or the answer to the last probe."""

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        return f"{self.service}: {self.ready} of {self.wanted} ready: {'; '.join(self.reasons) or 'no reason is known'}"


@dataclass(frozen=True, slots=True)
class StackOutcome:
    """What became of a deploy."""

    steps: tuple[str, ...]
    """What was done, in order."""
    failures: tuple[ServiceFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class DeployAuthor:
    """Who deploys, for the records."""

    name: str
    """The user, with the host: `anna@w1`."""
    now: Callable[[], float]
    """The time in seconds since the epoch."""


@dataclass(slots=True)
class _Known:
    """What this deploy has read and done: whatever differs is somebody else's doing."""

    specs: dict[str, FleetSpec] = field(default_factory=dict)
    """By the id of the engine service."""
    touched: set[str] = field(default_factory=set)
    """Services that this deploy has changed since it has read them."""
    removed: set[str] = field(default_factory=set)
    has_read: bool = False


@dataclass(frozen=True, slots=True)
class _StackView:
    """What one look at a project shows."""

    running: RunningStack
    answers: Mapping[str, EndpointAnswer]
    rounds: Mapping[str, RolloutRound]
    """By service."""
    unmet: Mapping[str, Sequence[str]]
    """The services that each service waits for."""


class StackApplier:
    """Does deploys, scalings and removals."""

    def __init__(
        self,
        fleet: Fleet,
        readiness: StackReadiness,
        author: DeployAuthor,
        *,
        wait: float,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`wait`: seconds without any progress after which it gives up. `tell`: gets a line for each step."""
        self._fleet = fleet
        self._readiness = readiness
        self._author = author
        self._wait = wait
        self._tell = tell
        self._done: list[str] = []

    async def read(self, project: str, *, asks_mesh: bool = True) -> RunningStack:
        """Return what runs of a project. Raises `MeshError` if an engine or a daemon does not answer."""
        services, tasks = await self._fleet.services(), await self._fleet.tasks()
        answers = await self._readiness.answers() if asks_mesh else {}
        return read_running(project, services, tasks, answers)

    async def deploy(
        self, desired: Desired, *, prune: bool = False, planned: RunningStack | None = None
    ) -> StackOutcome:
        """Lead a project to what is desired. `planned`: what ran when the diff was made; None: what runs now.

        Raises `FleetConflictError` if somebody else changes the same services meanwhile, and other `MeshError`.
        """
        known = _Known()
        if planned is not None:
            _remember(known, planned)
        loop, best = asyncio.get_running_loop(), _Progress()
        progress = loop.time()
        while True:
            is_late = loop.time() - progress >= self._wait
            seen = await self._look_patiently(desired, known, gives_up=is_late or not self._done)
            if seen is None:
                continue
            steps = [step for name, each in seen.rounds.items() if not seen.unmet[name] for step in each.steps]
            if all(each.is_done for each in seen.rounds.values()):
                steps.extend(prune_steps(missing_services(desired, seen.running) if prune else (), seen.running))
                if not steps:
                    return StackOutcome(self.done)
            for step in steps:
                await self._do(step, seen.running, known)
            if best.is_surpassed_by(seen) or steps:
                progress = loop.time()
            elif is_late:
                workers = {each.id: each.name for each in await self._fleet.workers()}
                return StackOutcome(self.done, tuple(_failures(desired, seen, workers)))
            if not steps:
                await asyncio.sleep(_POLL)

    @property
    def done(self) -> tuple[str, ...]:
        """What was done so far, in order."""
        return tuple(self._done)

    async def scale(self, project: str, target: DesiredService) -> StackOutcome:
        """Lead one service to its number of instances. Raises as `deploy`."""
        return await self.deploy(Desired(project, (target,)))

    async def remove(self, project: str) -> StackOutcome:
        """Remove all that runs of a project, and wait until its containers have ended."""
        running = await self.read(project, asks_mesh=False)
        removed = {each.engine.id for releases in running.releases.values() for each in releases}
        for step in prune_steps(sorted(running.releases), running):
            await self._fleet.remove(step.engine.id)
            self._report(step)
        left = await self._until_ended(removed)
        failures = [ServiceFailure(project, 0, 0, (f"{left} containers have not ended yet",))] if left else []
        return StackOutcome(self.done, tuple(failures))

    async def _look_patiently(self, desired: Desired, known: _Known, *, gives_up: bool) -> "_StackView | None":
        """Return what runs now; None, after a pause, if an engine or a daemon is slow. Raises as `_look`."""
        try:
            return await self._look(desired, known)
        except MeshError as error:
            if gives_up or isinstance(error, FleetConflictError | SettingsError):
                raise
        await asyncio.sleep(_POLL)
        return None

    async def _look(self, desired: Desired, known: _Known) -> "_StackView":
        """Return what runs now, and what is next. Raises `FleetConflictError`."""
        services, tasks = await self._fleet.services(), await self._fleet.tasks()
        asks = any(is_routed(target.spec) for target in desired.services)
        answers = await self._readiness.answers() if asks else {}
        running = read_running(desired.project, services, tasks, answers)
        if known.has_read:
            _raise_if_changed(known, running)
        _remember(known, running)
        rounds = {
            target.name: next_round(target, running.of(target.name), running.taken) for target in desired.services
        }
        unmet = {target.name: _unmet_needs(target, desired, running, rounds) for target in desired.services}
        return _StackView(running, answers, rounds, unmet)

    async def _do(self, step: StackStep, running: RunningStack, known: _Known) -> None:
        match step:
            case CreateStep(service, _, spec):
                at = int(self._author.now())
                stamped = stamp(spec, running.of(service), at, self._author.name)
                known.touched.add(await self._fleet.create(stamped))
            case ScaleStep(_, _, engine, instances):
                known.touched.add(engine.id)
                await self._fleet.replace(engine.id, engine.version, _set_by_hand(settled_spec(engine.spec, instances)))
            case RemoveStep(_, _, engine, ends_first):
                known.removed.add(engine.id)
                await self._fleet.remove(engine.id)
                if ends_first:
                    await self._until_ended({engine.id})
        self._report(step)

    async def _until_ended(self, services: Collection[str]) -> int:
        """Wait until no task of these services runs; return how many still do after the time that is waited.

        Raises `FleetUnavailableError` if the engine does not answer then.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait
        while True:
            is_late = loop.time() >= deadline
            try:
                tasks = await self._fleet.tasks()
            except FleetUnavailableError:
                if is_late:
                    raise
            else:
                left = sum(
                    task.service_id in services and not has_ended(task) and bool(task.container_id) for task in tasks
                )
                if not left or is_late:
                    return left
            await asyncio.sleep(_POLL)

    def _report(self, step: StackStep) -> None:
        self._done.append(str(step))
        self._tell(str(step))


class _Progress:
    """The most that was ready of each service so far: one that fails again and again makes no progress."""

    def __init__(self) -> None:
        self._best: dict[str, int] = {}

    def is_surpassed_by(self, seen: _StackView) -> bool:
        """Return whether more is ready, or less is left to end, than ever before; and remember it."""
        surpassed = False
        for name, each in seen.rounds.items():
            left = sum(release.live for release in seen.running.of(name) if not release.instances)
            for key, now in ((name, each.ready), (f"left of {name}", -left)):
                if key not in self._best or now > self._best[key]:
                    self._best[key], surpassed = now, True
        return surpassed


def _remember(known: _Known, running: RunningStack) -> None:
    known.specs = {each.engine.id: each.engine.spec for releases in running.releases.values() for each in releases}
    known.touched.clear()
    known.has_read = True


def _raise_if_changed(known: _Known, running: RunningStack) -> None:
    """Raise `FleetConflictError` if somebody else changed, created or removed a service of the project."""
    now = {each.engine.id: each.engine for releases in running.releases.values() for each in releases}
    for id in known.specs.keys() - now.keys() - known.removed:
        raise FleetConflictError(
            f"service {known.specs[id].name} was removed by somebody else during this deploy; deploy again"
        )
    for id, engine in now.items():
        if id not in known.touched and known.specs.get(id) != engine.spec:
            what = "changed" if id in known.specs else "created"
            raise FleetConflictError(
                f"service {engine.spec.name} was {what} by somebody else during this deploy; deploy again"
            )


def _unmet_needs(
    target: DesiredService, desired: Desired, running: RunningStack, rounds: Mapping[str, RolloutRound]
) -> tuple[str, ...]:
    """Return the services that this one waits for. One that has nothing to do waits for nobody."""
    if not rounds[target.name].steps:
        return ()
    wanted = {each.name: each for each in desired.services}
    unmet = []
    for need in target.needs:
        needed = wanted.get(need.service)
        if needed is None and not need.is_required and not running.of(need.service):
            continue
        releases = running.of(need.service)
        if needed is not None:
            current = current_release(needed, releases)
            releases = () if current is None else (current,)
        met = {
            StackCondition.STARTED: any(each.started or each.completed for each in releases),
            StackCondition.SERVING: any(each.ready for each in releases)
            or (needed is not None and rounds[need.service].is_done),
            StackCondition.COMPLETED: any(each.completed and each.completed >= each.instances for each in releases),
        }
        if not met[need.condition]:
            unmet.append(need.service)
    return tuple(unmet)


def _failures(desired: Desired, seen: _StackView, workers: Mapping[str, str]) -> Iterator[ServiceFailure]:
    """Yield each service that is not done, and why."""
    for target in desired.services:
        each, running = seen.rounds[target.name], seen.running.of(target.name)
        if each.is_done:
            continue
        new = current_release(target, running)
        if seen.unmet[target.name]:
            reasons: tuple[str, ...] = (f"waits for {', '.join(seen.unmet[target.name])}",)
        elif new is None or each.ready >= each.wanted:
            left = sum(release.live for release in running if release is not new)
            reasons = (f"{left} instances of the release before have not ended yet",)
        else:
            reasons = waiting_reasons(new, seen.answers, workers)
        yield ServiceFailure(target.name, each.ready, each.wanted, reasons)


def _set_by_hand(spec: FleetSpec) -> FleetSpec:
    """Return the specification; of a service that is scaled, with the mark of a number that was set by hand."""
    if not is_scaled(spec.labels):
        return spec
    return replace(spec, labels={**spec.labels, AUTOSCALED_LABEL: SET_BY_HAND})
