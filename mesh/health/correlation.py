"""Finds groups of endpoints of which most failed at once, for `mesh.health.panic`. Pure.

There may be ten thousand endpoints, and hundreds of them may have failed in the last half minute, unrelated to one
another. Only groups in which something changed, and groups that were suspected before, are examined.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from mesh.health.population import EndpointPopulation, PopulationChange, ServicePopulation
from mesh.model.probe import Probe
from mesh.model.service import EndpointKey, Health

_PUBLISHED = 5.0
"""Seconds within which other workers learn of a verdict."""

_Keys: TypeAlias = frozenset[EndpointKey]


class FailureGroupKind(StrEnum):
    """The cause that endpoints that fail together may have in common."""

    SERVICE = "service"
    WORKER = "worker"


class FailureGroup(NamedTuple):
    """Endpoints that may fail for one reason."""

    kind: FailureGroupKind
    name: str
    """The owner of a service, or the worker that probes."""


def failure_window(probe: Probe) -> float:
    """Seconds within which endpoints that fail for one reason become unhealthy, however their checks are spread over
    the interval.
    """
    return (probe.unhealthy_threshold + 1) * probe.interval + probe.timeout + _PUBLISHED


class RecentFailures(NamedTuple):
    """Endpoints of one service that failed recently enough to count."""

    since: Mapping[EndpointKey, float]
    """When each endpoint failed, in seconds of a clock that never goes back."""
    ends: float
    """When the first of them leaves the failure window."""

    @classmethod
    def of(cls, since: Mapping[EndpointKey, float], probe: Probe) -> "RecentFailures":
        """Make it from at least one failure."""
        return cls(since, min(since.values()) + failure_window(probe))

    def recent(self, probe: Probe, now: float) -> _Keys:
        """The endpoints that failed within the window."""
        if now <= self.ends:
            return frozenset(self.since)
        return frozenset(key for key, since in self.since.items() if now - since <= failure_window(probe))


def update_failures(
    before: Mapping[str, RecentFailures], step: PopulationChange, now: float
) -> dict[str, RecentFailures]:
    """Add the endpoints that failed in this change; remove those that recovered or no longer count."""
    failed_now: dict[str, dict[EndpointKey, float]] = {}
    for key in step.failed_now:
        failed_now.setdefault(step.population.owners[key], {})[key] = now
    fallen = dict(before)
    for owner in step.changed & (before.keys() | failed_now.keys()):
        members = step.population.services.get(owner)
        since = {**(before[owner].since if owner in before else {}), **failed_now.get(owner, {})}
        still = {key: since[key] for key in _unhealthy(members) if key in since}
        if members is not None and still:
            fallen[owner] = RecentFailures.of(still, members.probe)
        else:
            fallen.pop(owner, None)
    return fallen


def _unhealthy(members: ServicePopulation | None) -> list[EndpointKey]:
    if members is None:
        return []
    return [key for key, verdict in zip(members.keys, members.verdicts, strict=True) if verdict is Health.UNHEALTHY]


class FailureCorrelator:
    """Examines groups of endpoints at one moment."""

    def __init__(
        self,
        population: EndpointPopulation,
        failing: _Keys,
        fallen: Mapping[str, RecentFailures],
        recent: Mapping[str, _Keys],
    ) -> None:
        """`recent`: the endpoints that failed within the window, for each service in which not all of `fallen` did."""
        self._population = population
        self._health = population.view.health
        self._failing = frozenset(key for key in failing if key in population.owners)
        self._fallen = fallen
        self._recent = recent

    def candidate_groups(self, changed: set[str], before: Iterable[FailureGroup]) -> list[FailureGroup]:
        """The groups that have a failed endpoint and of which most may fail now.

        A group becomes suspected only when it changes; passing time can only clear it.
        """
        population, suspected = self._population, set(before)
        owners = changed | {population.owners[key] for key in self._failing}
        owners |= {name for kind, name in suspected if kind is FailureGroupKind.SERVICE}
        found = [FailureGroup(FailureGroupKind.SERVICE, owner) for owner in owners & self._fallen.keys()]
        failing = Counter(population.prober_of(key) for key in self._failing if self._health.get(key) is Health.HEALTHY)
        failed_count = sum(len(failures.since) for failures in self._fallen.values())
        workers = any(kind is FailureGroupKind.WORKER for kind, _ in suspected)
        if not workers and all(
            population.healthy.get(prober, 0) - 2 * failing[prober] >= failed_count for prober in population.asked
        ):
            # However the failed endpoints are spread over the probers, they cannot be most of any prober's endpoints.
            return found
        fallen = Counter(population.prober_of(key) for failures in self._fallen.values() for key in failures.since)
        for prober, count in fallen.items():
            group = FailureGroup(FailureGroupKind.WORKER, prober)
            if group in suspected or _most(population.healthy.get(prober, 0), failing[prober], count):
                found.append(group)
        return found

    def answered_before(self, group: FailureGroup, before: _Keys | None) -> _Keys:
        """The endpoints of a group that answered before the failure, if most of them fail now; otherwise empty.

        `before`: the result of the last look at the group, None if it was not suspected.
        """
        keys, recent = self._of(group)
        healthy = frozenset(key for key in keys if self._health.get(key) is Health.HEALTHY)
        answered = healthy | recent | (before & keys if before is not None else frozenset())
        failing = len(healthy & self._failing)
        if before is None and not _most(len(healthy), failing, len(recent)):
            return frozenset()
        return answered if 2 * (len(healthy) - failing) < len(answered) else frozenset()

    def up(self, keys: _Keys) -> int:
        """How many of these endpoints answer."""
        return sum(self._health.get(key) is Health.HEALTHY and key not in self._failing for key in keys)

    def _of(self, group: FailureGroup) -> tuple[_Keys, _Keys]:
        """The endpoints of a group, and the endpoints among them that failed within the window."""
        if group.kind is FailureGroupKind.SERVICE:
            return frozenset(self._population.services[group.name].keys), self._fell(group.name)
        recent = frozenset(
            key for owner in self._fallen for key in self._fell(owner) if self._population.prober_of(key) == group.name
        )
        return self._population.probed_by(group.name), recent

    def _fell(self, owner: str) -> _Keys:
        return self._recent[owner] if owner in self._recent else frozenset(self._fallen[owner].since)


def _most(healthy: int, failing: int, recent: int) -> bool:
    """Whether most endpoints that answered before the failure fail now. It takes two, and one that is unhealthy
    already.
    """
    return recent > 0 and recent + failing >= 2 and 2 * (healthy - failing) < healthy + recent
