"""The panic threshold: limits how many endpoints are taken out of traffic when most fail at once. Pure.

One endpoint that fails is broken. When most endpoints that answered a moment ago fail together, the likelier cause is
what they have in common: the network of the worker that probes them, or a dependency of all of them. Taking all of them
out of traffic would turn a doubtful outage into a certain one. So:

* "At once" is: within the time that a failure needs to be noticed (`failure_window`). An endpoint that is still healthy
  but failed its last check counts as evidence too, as far as this worker probes it. It takes at least two endpoints
  (`mesh.health.correlation`).
* A service is suspected while more than half of its endpoints that answered a moment ago fail; a worker, while that is
  true of all endpoints that it probes, whatever their services. The services of a suspected worker are suspected as far
  as the worker probes them.
* Of a suspected service, enough endpoints stay in traffic to reach the floor: a percentage of the endpoints that
  answered a moment ago. The last ones to fail stay; among those that failed at once, the first by name. So the workers
  that probe them make the same choice, although each learns of its own endpoints first.
* The suspicion ends when half of the endpoints answer, old or new ones. Endpoints that fail one after the other, over a
  longer time, all leave traffic.

An endpoint that drains is not counted, nor is one whose floor is 0. None of this changes an endpoint's health: it only
decides which endpoints stay in traffic in spite of it.

One more rule has the same effect: endpoints that are held back only because of flapping (`mesh.health.state_machine`)
serve while the service has no other endpoint.
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
"""The percentage of endpoints that stay in traffic."""

_Keys: TypeAlias = frozenset[EndpointKey]


@dataclass(frozen=True, slots=True)
class FailureSuspicion:
    """A group of which most endpoints failed at once, and still fail."""

    group: FailureGroup
    failing: int
    of: int
    """The number of endpoints that answered before the failure."""
    kept: int
    """The number of unhealthy endpoints among them that stay in traffic."""


@dataclass(frozen=True, slots=True)
class ProbeEvidence:
    """Evidence from the probes of this worker, beside the verdicts in the view."""

    failing: _Keys = frozenset()
    """Endpoints that failed their last check, whatever their health; only those that this worker probes."""
    probers: Mapping[EndpointKey, str] = field(default_factory=dict)
    """The worker that probes an endpoint, where that is not its own worker."""


@dataclass(frozen=True, slots=True)
class PanicState:
    """The current suspicions, and the state that the next update needs."""

    kept: _Keys = frozenset()
    """Unhealthy endpoints that stay in traffic."""
    suspicions: tuple[FailureSuspicion, ...] = ()
    """The suspicions, in order of their groups."""
    population: EndpointPopulation = field(default_factory=EndpointPopulation, repr=False)
    """The endpoints that count, by the last view."""
    fallen: Mapping[str, RecentFailures] = field(default_factory=dict, repr=False)
    """Recent failures by `Service.owner`."""
    groups: Mapping[FailureGroup, _Keys] = field(default_factory=dict, repr=False)
    """The suspected groups, each with its endpoints that answered before the failure."""


@dataclass(frozen=True, slots=True)
class PanicInput:
    """All inputs of one update of the panic state, beside the view."""

    before: PanicState
    asked: ProbeEvidence
    percent: int
    """The floor of services whose labels set none."""
    now: float
    """Seconds of a clock that never goes back."""


def resume_panic_state(view: ClusterView, up: Iterable[EndpointKey], kept: _Keys, now: float) -> PanicState:
    """The state at the start of a process. Endpoints that are `up` in traffic count as having answered a moment ago;
    endpoints that the former process has `kept` stay kept until their services answer.
    """
    population = (
        EndpointPopulation()
        .after(replace(view, health=dict.fromkeys(up, Health.HEALTHY)), {}, DEFAULT_FLOOR_PERCENT)
        .population
    )
    fallen: dict[str, RecentFailures] = {}
    groups: dict[FailureGroup, _Keys] = {}
    for owner in {population.owners[key] for key in kept if key in population.owners}:
        members = population.services[owner]
        groups[FailureGroup(FailureGroupKind.SERVICE, owner)] = frozenset(members.keys)
        fallen[owner] = RecentFailures.of({key: now for key in members.keys if key in kept}, members.probe)
    return PanicState(kept, (), population, fallen, groups)


def update_panic_state(
    before: PanicState, view: ClusterView, asked: ProbeEvidence, *, floor: int, now: float
) -> PanicState:
    """Update the suspicions and the kept endpoints.

    `floor` is the percentage for services whose labels set none; `now` is of a clock that never goes back. The effort
    depends on what has changed since `before`, and on what is suspected.
    """
    step = before.population.after(view, asked.probers, floor)
    population, fallen = step.population, update_failures(before.fallen, step, now)
    if not fallen:
        return PanicState(population=population)  # the usual case
    recent = {
        owner: failures.recent(population.services[owner].probe, now)
        for owner, failures in fallen.items()
        if failures.ends < now
    }
    correlator = FailureCorrelator(population, asked.failing, fallen, recent)
    suspected = {
        group: answered
        for group in correlator.candidate_groups(step.changed, before.groups)
        if (answered := correlator.answered_before(group, before.groups.get(group)))
    }
    remembered = frozenset[EndpointKey]().union(*suspected.values())
    for owner, keys in recent.items():
        # A failure outside the window is forgotten, unless its group is suspected: it may have to stay in traffic.
        left = {key: since for key, since in fallen[owner].since.items() if key in keys or key in remembered}
        if left:
            fallen[owner] = RecentFailures.of(left, population.services[owner].probe)
        else:
            del fallen[owner]
    kept: _Keys = frozenset()
    if suspected:
        kept = frozenset(
            key for owner, failures in fallen.items() for key in _keep(owner, population, failures.since, suspected)
        )
    suspicions = tuple(_suspicion(group, suspected[group], correlator, kept) for group in sorted(suspected))
    return PanicState(kept, suspicions, population, fallen, suspected)


def panic_overrides(view: ClusterView, kept: _Keys, held_back: _Keys) -> Mapping[EndpointKey, Health]:
    """Endpoints treated as healthy despite their verdict: kept ones, and flapping ones if the service has no other."""
    serving = dict.fromkeys(kept, Health.HEALTHY)
    held = [endpoint for key in held_back if (endpoint := view.by_key.get(key)) is not None]
    served = {owner for owner in {endpoint.owner for endpoint in held} if _is_served(view, owner, kept)}
    return serving | {endpoint.key: Health.HEALTHY for endpoint in held if endpoint.owner not in served}


def _is_served(view: ClusterView, owner: str, kept: _Keys) -> bool:
    group = view.groups[owner]
    return any(
        endpoint.drain is None and (verdict is Health.HEALTHY or endpoint.key in kept)
        for endpoint, verdict in zip(group.endpoints, group.verdicts, strict=True)
    )


def _keep(
    owner: str,
    population: EndpointPopulation,
    fallen: Mapping[EndpointKey, float],
    suspected: Mapping[FailureGroup, _Keys],
) -> list[EndpointKey]:
    """The endpoints of a service that stay in traffic although they fail."""
    service = population.services[owner]
    members = suspected.get(FailureGroup(FailureGroupKind.SERVICE, owner), frozenset())
    failed = [
        key
        for key in fallen
        if key in members
        or key in suspected.get(FailureGroup(FailureGroupKind.WORKER, population.prober_of(key)), frozenset())
    ]
    healthy = {key for key, verdict in zip(service.keys, service.verdicts, strict=True) if verdict is Health.HEALTHY}
    answered = len(healthy.union(failed, members))
    missing = math.ceil(answered * service.percent / 100) - len(healthy)
    # The latest window first, then by name: within a window the order of failures differs from worker to worker.
    last = max((fallen[key] for key in failed), default=0.0)
    at_once = failure_window(service.probe)
    return sorted(failed, key=lambda key: ((last - fallen[key]) // at_once, key))[: max(0, missing)]


def _suspicion(group: FailureGroup, answered: _Keys, correlator: FailureCorrelator, kept: _Keys) -> FailureSuspicion:
    return FailureSuspicion(group, len(answered) - correlator.up(answered), len(answered), len(kept & answered))
