"""A mass failure is suspected, not obeyed: how far pruning goes when most endpoints fail at once. Pure.

One endpoint that fails is broken. When most of those that answered a moment ago fail together, what they have in common
is likelier to be the cause: the network of whoever asks them, or something that all of them depend on. To take them all
out of traffic would turn a doubtful outage into a certain one. So:

* at once is: fallen within the time that a failure needs to be noticed (`failure_window`). What is still healthy and
  failed its last check is evidence too, as far as this worker asks it; it takes two endpoints at the least
  (`mesh.health.correlation`);
* a service is suspected while more than half of those of its endpoints that answered a moment ago fail; a worker, while
  that is so of all endpoints that it asks, whichever services they belong to. The services of a suspected worker are
  suspected as far as it asks them;
* of a suspected service so many endpoints stay in traffic that the floor is kept: a share of those that answered a
  moment ago. Those that fell last stay, and among those that fell at once the first by name: the workers that ask them
  come to the same choice, although each learns of its own endpoints first;
* the suspicion ends when half of them answer, old ones or new ones. Those that fell one after the other, over a longer
  time, are all believed.

An endpoint that drains is not counted, nor one whose floor is 0. Nor does any of this change what is known of an
endpoint's health: it only says who stays in traffic in spite of it.

One more rule is of the same kind: endpoints that are only held back because they come and go
(`mesh.health.state_machine`) serve while the service has nobody better.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mesh.health.correlation import (
    FailureCorrelator,
    FailureGroup,
    FailureGroupKind,
    RecentFailures,
    failure_window,
    update_failures,
)
from mesh.health.population import EndpointPopulation
from mesh.model.service import EndpointKey, Health
from mesh.model.view import ClusterView

DEFAULT_FLOOR_PERCENT = 50
"""Per cent of the endpoints that stay in traffic."""

_Keys: TypeAlias = frozenset[EndpointKey]


@dataclass(frozen=True, slots=True)
class FailureSuspicion:
    """Most of a group has failed at once, and that still holds."""

    group: FailureGroup
    failing: int
    of: int
    """How many answered a moment ago."""
    kept: int
    """How many of them stay in traffic although they are unhealthy."""


@dataclass(frozen=True, slots=True)
class ProbeEvidence:
    """What this worker knows of the asking, beside the verdicts in the picture."""

    failing: _Keys = frozenset()
    """Those that failed their last check, whatever their health; only as far as this worker asks them."""
    judges: Mapping[EndpointKey, str] = field(default_factory=dict)
    """Who asks an endpoint, if that is not its own worker."""


@dataclass(frozen=True, slots=True)
class PanicState:
    """What is suspected, and what must be remembered for the next look."""

    kept: _Keys = frozenset()
    """Unhealthy endpoints that stay in traffic."""
    suspicions: tuple[FailureSuspicion, ...] = ()
    """In order of their groups."""
    roll: EndpointPopulation = field(default_factory=EndpointPopulation, repr=False)
    """Who counts, as it was at the last look."""
    fallen: Mapping[str, RecentFailures] = field(default_factory=dict, repr=False)
    """By `Service.owner`."""
    groups: Mapping[FailureGroup, _Keys] = field(default_factory=dict, repr=False)
    """Of each suspected group, those that answered a moment before."""


@dataclass(frozen=True, slots=True)
class PanicInput:
    """What one update of the panic state follows from, beside the view."""

    before: PanicState
    asked: ProbeEvidence
    percent: int
    """The floor of services whose labels do not say."""
    now: float
    """Seconds of a clock that never goes back."""


def resume_panic_state(view: ClusterView, up: Iterable[EndpointKey], kept: _Keys, now: float) -> PanicState:
    """Where a process begins: those that are `up` in traffic count as having answered a moment ago, and those that its
    former life has `kept` stay kept, until their services answer."""
    roll = (
        EndpointPopulation()
        .after(replace(view, health=dict.fromkeys(up, Health.HEALTHY)), {}, DEFAULT_FLOOR_PERCENT)
        .roll
    )
    fallen: dict[str, RecentFailures] = {}
    groups: dict[FailureGroup, _Keys] = {}
    for owner in {roll.owners[key] for key in kept if key in roll.owners}:
        counted = roll.services[owner]
        groups[FailureGroup(FailureGroupKind.SERVICE, owner)] = frozenset(counted.keys)
        fallen[owner] = RecentFailures.of({key: now for key in counted.keys if key in kept}, counted.probe)
    return PanicState(kept, (), roll, fallen, groups)


def update_panic_state(
    before: PanicState, view: ClusterView, asked: ProbeEvidence, *, floor: int, now: float
) -> PanicState:
    """What is suspected now.

    `floor` is in per cent, for services whose labels do not say; `now` is of a clock that never goes back. The work
    follows what has changed since `before`, and what is suspected.
    """
    step = before.roll.after(view, asked.judges, floor)
    roll, fallen = step.roll, update_failures(before.fallen, step, now)
    if not fallen:
        return PanicState(roll=roll)  # the usual case
    recent = {owner: of.recent(roll.services[owner].probe, now) for owner, of in fallen.items() if of.ends < now}
    moment = FailureCorrelator(roll, asked.failing, fallen, recent)
    suspected = {
        group: answered
        for group in moment.doubtful(step.changed, before.groups)
        if (answered := moment.suspect(group, before.groups.get(group)))
    }
    remembered = frozenset[EndpointKey]().union(*suspected.values())
    for owner, keys in recent.items():
        left = {key: since for key, since in fallen[owner].since.items() if key in keys or key in remembered}
        if left:
            fallen[owner] = RecentFailures.of(left, roll.services[owner].probe)
        else:
            del fallen[owner]
    kept: _Keys = frozenset()
    if suspected:
        kept = frozenset(key for owner, of in fallen.items() for key in _keep(owner, roll, of.since, suspected))
    told = tuple(_suspicion(group, suspected[group], moment, kept) for group in sorted(suspected))
    return PanicState(kept, told, roll, fallen, suspected)


def panic_overrides(view: ClusterView, kept: _Keys, held_back: _Keys) -> Mapping[EndpointKey, Health]:
    """Whom traffic takes for healthy although the verdicts say otherwise: what is kept, and what is held back where
    nobody else is.
    """
    serving = dict.fromkeys(kept, Health.HEALTHY)
    held = [endpoint for key in held_back if (endpoint := view.by_key.get(key)) is not None]
    served = {owner for owner in {endpoint.owner for endpoint in held} if _is_served(view, owner, kept)}
    return serving | {endpoint.key: Health.HEALTHY for endpoint in held if endpoint.owner not in served}


def _is_served(view: ClusterView, owner: str, kept: _Keys) -> bool:
    group = view.groups[owner]
    return any(
        endpoint.drain is None and (said is Health.HEALTHY or endpoint.key in kept)
        for endpoint, said in zip(group.endpoints, group.verdicts, strict=True)
    )


def _keep(
    owner: str, roll: EndpointPopulation, fallen: Mapping[EndpointKey, float], suspected: Mapping[FailureGroup, _Keys]
) -> list[EndpointKey]:
    """Who of a service stays in traffic although it fails."""
    service = roll.services[owner]
    counted = suspected.get(FailureGroup(FailureGroupKind.SERVICE, owner), frozenset())
    failed = [
        key
        for key in fallen
        if key in counted
        or key in suspected.get(FailureGroup(FailureGroupKind.WORKER, roll.prober_of(key)), frozenset())
    ]
    healthy = {key for key, said in zip(service.keys, service.verdicts, strict=True) if said is Health.HEALTHY}
    answered = len(healthy.union(failed, counted))
    missing = math.ceil(answered * service.percent / 100) - len(healthy)
    last = max((fallen[key] for key in failed), default=0.0)
    at_once = failure_window(service.probe)
    return sorted(failed, key=lambda key: ((last - fallen[key]) // at_once, key))[: max(0, missing)]


def _suspicion(group: FailureGroup, answered: _Keys, moment: FailureCorrelator, kept: _Keys) -> FailureSuspicion:
    return FailureSuspicion(group, len(answered) - moment.up(answered), len(answered), len(kept & answered))
