"""Decides the next steps of one service: from what runs and what serves to what is wanted. Pure.

Nothing is remembered between two rounds. Each round looks at what the engine has now, so a deploy that was interrupted
is taken up by the next one, whatever state it was left in.

`rolling`: with N instances wanted and a parallelism of P, old and new instances are never more than N + P, and an old
one leaves only after a new one serves in its place. Instances that drain are not counted: they take no new connection.
`replace`: the old instances end before the first new one begins, for a service that writes to a volume.

The engine's own updater is not used: to it an instance that runs is good enough, whatever the probes say.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from mesh.platform.fleet.protocol import FleetService, FleetSpec
from mesh.platform.stacks.model import STACK_LABEL, DesiredService, StackStrategy
from mesh.platform.stacks.running import RunningRelease
from mesh.platform.stacks.translate import with_digest_in_name

_NAME_LENGTH = 63
"""The most characters of the name of an engine service."""


@dataclass(frozen=True, slots=True)
class CreateStep:
    """Create an engine service."""

    service: str
    release: str
    spec: FleetSpec

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        return f"{self.service}: start release {self.release} with {instances_text(self.spec.instances)}"


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """Change how many instances an engine service has."""

    service: str
    release: str
    engine: FleetService
    instances: int

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        before = self.engine.spec.instances
        return f"{self.service}: scale release {self.release} from {before} to {self.instances}"


@dataclass(frozen=True, slots=True)
class RemoveStep:
    """Remove an engine service."""

    service: str
    release: str
    engine: FleetService
    ends_first: bool = False
    """Whether its tasks must have ended before the next step."""

    @override
    def __str__(self) -> str:
        """Return the line that a person reads."""
        return f"{self.service}: remove release {self.release}"


StackStep = CreateStep | ScaleStep | RemoveStep


@dataclass(frozen=True, slots=True)
class RolloutRound:
    """What one look at a service results in."""

    steps: tuple[StackStep, ...]
    """In order. Empty: there is nothing to do, or something to wait for."""
    is_done: bool
    ready: int
    """Ready instances of the wanted release."""
    wanted: int
    """The instances that must be ready."""


def instances_text(instances: int | None) -> str:
    """Return a number of instances in words; None is one on each worker."""
    if instances is None:
        return "an instance on each worker"
    return f"{instances} instance{'' if instances == 1 else 's'}"


def current_release(target: DesiredService, running: Sequence[RunningRelease]) -> RunningRelease | None:
    """Return the engine service that is the wanted release already; None if there is none.

    What it is made of decides, not what its labels say: it may have been changed outside vipmesh.
    """
    same = [
        each
        for each in running
        if each.actual_digest == target.digest
        and each.release == target.release
        and (each.engine.spec.instances is None) == target.is_global
    ]
    return min(same, key=lambda each: (each.engine.created, each.engine.id), default=None)


def next_round(target: DesiredService, running: Sequence[RunningRelease], taken: Collection[str] = ()) -> RolloutRound:
    """Return the next steps of a service.

    `running`: its own engine services; `taken`: the names of all engine services.
    """
    new = current_release(target, running)
    old = sorted((each for each in running if each is not new), key=_leaves_first)
    has, ready = (0, 0) if new is None else (new.instances, new.ready)
    if target.is_global:
        steps = _global_steps(target, new, old, taken)
    elif target.strategy is StackStrategy.REPLACE:
        steps = _replace_steps(target, new, old, taken)
    else:
        steps = _rolling_steps(target, new, old, taken)
    wanted = max(1, has) if target.spec.instances is None else target.spec.instances
    is_done = not steps and not old and new is not None and ready >= wanted
    return RolloutRound(tuple(steps), is_done, ready, wanted)


def _leaves_first(release: RunningRelease) -> tuple[int, float]:
    """Order old releases: first the one with the most instances that are not ready, then the newest."""
    return release.ready - release.instances, -release.engine.created


def _rolling_steps(
    target: DesiredService, new: RunningRelease | None, old: Sequence[RunningRelease], taken: Collection[str]
) -> list[StackStep]:
    wanted, parallelism = target.spec.instances or 0, max(1, target.parallelism)
    has, ready = (0, 0) if new is None else (new.instances, new.ready)
    before = sum(each.instances for each in old)
    after = min(before, max(0, wanted - ready))
    # Old ones leave first: in the other order there would be more than N + P for a moment.
    steps = _shrink(old, before - after)
    goal = wanted
    if before and has <= wanted:
        goal = max(has, min(wanted, wanted + parallelism - after))
    if new is None:
        steps.append(_create(target, goal, taken))
    elif goal != has:
        steps.append(ScaleStep(target.name, new.release, new.engine, goal))
    return steps


def _shrink(old: Sequence[RunningRelease], surplus: int) -> list[StackStep]:
    """Return the steps that take `surplus` instances from old releases, and remove those that have none left."""
    steps: list[StackStep] = []
    for each in old:
        fewer = min(each.instances, surplus)
        if fewer == each.instances:
            steps.append(RemoveStep(each.service, each.release, each.engine))
        elif fewer and each.engine.spec.instances is not None:
            steps.append(ScaleStep(each.service, each.release, each.engine, each.instances - fewer))
        else:
            continue  # one on each worker cannot be fewer
        surplus -= fewer
    return steps


def _replace_steps(
    target: DesiredService, new: RunningRelease | None, old: Sequence[RunningRelease], taken: Collection[str]
) -> list[StackStep]:
    # Scaled to none and only then removed: the next deploy could not see what still runs of a removed one.
    counted = [each for each in old if each.engine.spec.instances is not None]
    ending: list[StackStep] = [
        ScaleStep(each.service, each.release, each.engine, 0) for each in counted if each.instances
    ]
    if ending or any(each.live for each in counted):
        return ending
    steps: list[StackStep] = [
        RemoveStep(each.service, each.release, each.engine, ends_first=each not in counted) for each in old
    ]
    wanted = target.spec.instances or 0
    if new is None:
        steps.append(_create(target, wanted, taken))
    elif new.instances != wanted:
        steps.append(ScaleStep(target.name, new.release, new.engine, wanted))
    return steps


def _global_steps(
    target: DesiredService, new: RunningRelease | None, old: Sequence[RunningRelease], taken: Collection[str]
) -> list[StackStep]:
    """One on each worker: all new ones beside the old ones, or the old ones removed first."""
    replaces = target.strategy is StackStrategy.REPLACE
    is_ready = new is not None and 0 < new.instances <= new.ready
    steps: list[StackStep] = []
    if replaces or is_ready:
        steps.extend(RemoveStep(each.service, each.release, each.engine, ends_first=replaces) for each in old)
    if new is None:
        steps.append(_create(target, None, taken))
    return steps


def _create(target: DesiredService, instances: int | None, taken: Collection[str]) -> CreateStep:
    # A release that the file names keeps its name while its container changes.
    names = (target.spec.name, with_digest_in_name(target, target.spec.labels[STACK_LABEL]).spec.name)
    name = next((name for name in names if name not in taken), None) or _numbered(names[0], taken)
    return CreateStep(target.name, target.release, replace(target.spec, name=name, instances=instances))


def _numbered(name: str, taken: Collection[str]) -> str:
    number = 2
    while (found := f"{name[: _NAME_LENGTH - len(str(number)) - 1]}-{number}") in taken:
        number += 1
    return found
