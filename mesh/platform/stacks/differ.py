"""Compares what files want with what runs, for people who decide whether to go on. Pure.

What differs decides: the count alone is a scale; whatever makes another container is a new release beside the old one.
Values of the environment are not shown: they may be secrets.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from mesh.platform.fleet.protocol import FleetContainer, FleetSpec
from mesh.platform.stacks.model import Desired, DesiredService
from mesh.platform.stacks.rollout import RemoveStep, current_release, instances_text
from mesh.platform.stacks.running import RunningRelease, RunningStack, outside_changes

_BOOKKEEPING = frozenset({"name", "labels", "instances", "container"})
"""Fields of a specification that make no other container, and the container itself."""
_KEYED = {"environment": "variable", "labels": "label", "sysctls": "sysctl"}
"""Fields whose entries are named one by one."""
_SHOWN = 60
"""The most characters of a value that is shown."""


class ChangeKind(StrEnum):
    """What happens to a service."""

    CREATE = "create"
    RELEASE = "release"
    """A new release takes the place of what runs."""
    SCALE = "scale"
    CONTINUE = "continue"
    """An earlier deploy of the same release has not ended: old ones still run."""
    NOTHING = "nothing"
    REMOVE = "remove"
    LEAVE = "leave"
    """It is not in the files, and is left as it is."""
    REFUSE = "refuse"
    """Its files cannot be used, and what runs of it is left as it is."""


@dataclass(frozen=True, slots=True)
class StackChange:
    """What a deploy does to one service."""

    service: str
    kind: ChangeKind
    text: str
    """In words: `new release 3f2a91bc beside 1c2d3e4f`."""
    differences: tuple[str, ...] = ()
    """What of the container or its surroundings differs."""
    outside: tuple[str, ...] = ()
    """What was changed outside vipmesh since the last deploy."""
    strategy: str | None = None
    """How the release takes the place of the old one; None if none does."""
    strategy_reason: str | None = None


@dataclass(frozen=True, slots=True)
class StackDiff:
    """What a deploy does to a project."""

    project: str
    changes: tuple[StackChange, ...]
    """In order of the steps."""

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to do."""
        idle = (ChangeKind.NOTHING, ChangeKind.LEAVE, ChangeKind.REFUSE)
        return all(change.kind in idle for change in self.changes)

    def lines(self) -> Iterator[str]:
        """Yield the lines that a person reads."""
        for change in self.changes:
            how = f" ({change.strategy}: {change.strategy_reason})" if change.strategy else ""
            yield f"{change.service}: {change.text}{how}"
            yield from (f"    {difference}" for difference in change.differences)
            yield from (f"    changed outside vipmesh: {each}" for each in change.outside)


def diff_stack(desired: Desired, running: RunningStack, *, prune: bool) -> StackDiff:
    """Return what a deploy does; `prune`: whether it removes what is not in the files."""
    changes = [_change(target, running.of(target.name)) for target in desired.services]
    named = {target.name for target in desired.services}
    for service in sorted(desired.refused - named):
        text = "is refused, and left as it is" if running.of(service) else "is refused, and not started"
        changes.append(StackChange(service, ChangeKind.REFUSE, text))
    for service in missing_services(desired, running):
        has = instances_text(sum(each.instances for each in running.of(service)))
        if prune:
            changes.append(StackChange(service, ChangeKind.REMOVE, f"is not in the files: remove {has}"))
        else:
            text = f"is not in the files: {has} left running; remove with --prune"
            changes.append(StackChange(service, ChangeKind.LEAVE, text))
    return StackDiff(desired.project, tuple(changes))


def missing_services(desired: Desired, running: RunningStack) -> tuple[str, ...]:
    """Return the services that run and are not in the files any more; none if the files are incomplete."""
    if desired.broken:
        return ()
    named = {target.name for target in desired.services} | desired.refused
    return tuple(sorted(service for service in running.releases if service not in named))


def prune_steps(services: Collection[str], running: RunningStack) -> tuple[RemoveStep, ...]:
    """Return the steps that remove services."""
    return tuple(RemoveStep(service, each.release, each.engine) for service in services for each in running.of(service))


def spec_differences(before: FleetSpec, after: FleetSpec) -> tuple[str, ...]:
    """Return what makes other containers of one specification than of the other."""
    found = list(_container_differences(before.container, after.container))
    for field in fields(FleetSpec):
        if field.name not in _BOOKKEEPING:
            was, is_now = getattr(before, field.name), getattr(after, field.name)
            if was != is_now:
                found.append(_difference(field.name, was, is_now))
    return tuple(found)


def _change(target: DesiredService, running: tuple[RunningRelease, ...]) -> StackChange:
    outside = tuple(text for each in running for text in outside_changes(each))
    how = (target.strategy.value, target.why or "the default")
    if not running:
        text = f"new service, {instances_text(target.spec.instances)} of {_image(target.spec)}"
        return StackChange(target.name, ChangeKind.CREATE, text)
    new = current_release(target, running)
    old = [each for each in running if each is not new]
    olds = " and ".join(each.release or each.engine.spec.name for each in old)
    if new is None:
        text = f"new release {target.release} in the place of {olds}, {instances_text(target.spec.instances)}"
        newest = max(running, key=lambda each: each.engine.created)
        differences = spec_differences(newest.engine.spec, target.spec)
        return StackChange(target.name, ChangeKind.RELEASE, text, differences, outside, *how)
    if old:
        text = f"release {target.release} goes on taking the place of {olds}"
        return StackChange(target.name, ChangeKind.CONTINUE, text, (), outside, *how)
    if new.engine.spec.instances != target.spec.instances:
        text = f"scale from {new.engine.spec.instances} to {target.spec.instances}"
        return StackChange(target.name, ChangeKind.SCALE, text, (), outside)
    text = f"nothing to do, {instances_text(target.spec.instances)} of release {new.release}"
    return StackChange(target.name, ChangeKind.NOTHING, text, (), outside)


def _container_differences(before: FleetContainer, after: FleetContainer) -> Iterator[str]:
    for field in fields(FleetContainer):
        was, is_now = getattr(before, field.name), getattr(after, field.name)
        if was == is_now:
            continue
        if field.name in _KEYED:
            yield from _entry_differences(_KEYED[field.name], dict(was), dict(is_now))
        elif field.name == "image":
            yield f"image {_shown(_short_image(was))} -> {_shown(_short_image(is_now))}"
        else:
            yield _difference(field.name, was, is_now)


def _entry_differences(kind: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"{kind} {name} is gone"
        elif name not in before:
            yield f"{kind} {name} is new"
        elif before[name] != after[name]:
            yield f"{kind} {name} has another value"


def _difference(name: str, before: object, after: object) -> str:
    words = name.replace("_", " ")
    if isinstance(before, str | int | bool) and isinstance(after, str | int | bool):
        return f"{words} {_shown(str(before)) or 'none'} -> {_shown(str(after)) or 'none'}"
    return f"{words} differ" if words.endswith("s") else f"{words} differs"


def _image(spec: FleetSpec) -> str:
    return _shown(_short_image(spec.container.image))


def _short_image(reference: str) -> str:
    """Return a reference with the first digits of its digest."""
    name, at, digest = reference.partition("@")
    return f"{name}@{digest[:15]}" if at else name


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
