"""Who fell at once, and of which groups of endpoints most did: what `mesh.health.panic` suspects. Pure.

There may be ten thousand endpoints, and hundreds of them may have fallen in the last half minute, one here and one
there. Only groups are looked at of which something has changed, and those that were suspected before.
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
    """What the failed have in common."""

    SERVICE = "service"
    WORKER = "worker"


class FailureGroup(NamedTuple):
    """Endpoints that may fail for one reason."""

    kind: FailureGroupKind
    name: str
    """The owner of a service, or the worker that asks."""


def failure_window(probe: Probe) -> float:
    """Seconds within which endpoints that fail for one reason fall, however they are spread over the interval."""
    return (probe.unhealthy_threshold + 1) * probe.interval + probe.timeout + _PUBLISHED


class RecentFailures(NamedTuple):
    """Those of one service that fell and may still count."""

    since: Mapping[EndpointKey, float]
    """When."""
    ends: float
    """When the first of them did not fall a moment ago any more."""

    @classmethod
    def of(cls, since: Mapping[EndpointKey, float], probe: Probe) -> "RecentFailures":
        """There is one at least."""
        return cls(since, min(since.values()) + failure_window(probe))

    def recent(self, probe: Probe, now: float) -> _Keys:
        """Those that fell a moment ago."""
        if now <= self.ends:
            return frozenset(self.since)
        return frozenset(key for key, since in self.since.items() if now - since <= failure_window(probe))


def update_failures(
    before: Mapping[str, RecentFailures], step: PopulationChange, now: float
) -> dict[str, RecentFailures]:
    """Those that fell, with those that fall now and without those that have come back or do not count any more."""
    fell: dict[str, dict[EndpointKey, float]] = {}
    for key in step.fell:
        fell.setdefault(step.roll.owners[key], {})[key] = now
    fallen = dict(before)
    for owner in step.changed & (before.keys() | fell.keys()):
        counted = step.roll.services.get(owner)
        since = {**(before[owner].since if owner in before else {}), **fell.get(owner, {})}
        still = {key: since[key] for key in _unhealthy(counted) if key in since}
        if counted is not None and still:
            fallen[owner] = RecentFailures.of(still, counted.probe)
        else:
            fallen.pop(owner, None)
    return fallen


def _unhealthy(counted: ServicePopulation | None) -> list[EndpointKey]:
    if counted is None:
        return []
    return [key for key, said in zip(counted.keys, counted.verdicts, strict=True) if said is Health.UNHEALTHY]


class FailureCorrelator:
    """What the groups are looked at by."""

    def __init__(
        self,
        roll: EndpointPopulation,
        failing: _Keys,
        fallen: Mapping[str, RecentFailures],
        recent: Mapping[str, _Keys],
    ) -> None:
        """`recent`: of the services of which not all that fell did so a moment ago, those that did."""
        self._roll = roll
        self._health = roll.view.health
        self._failing = frozenset(key for key in failing if key in roll.owners)
        self._fallen = fallen
        self._recent = recent

    def doubtful(self, changed: set[str], before: Iterable[FailureGroup]) -> list[FailureGroup]:
        """The groups in which somebody has fallen and of which most may fail now.

        What was not suspected and has not `changed` since is not suspected now: time alone dispels.
        """
        roll, suspected = self._roll, set(before)
        owners = changed | {roll.owners[key] for key in self._failing}
        owners |= {name for kind, name in suspected if kind is FailureGroupKind.SERVICE}
        found = [FailureGroup(FailureGroupKind.SERVICE, owner) for owner in owners & self._fallen.keys()]
        failing = Counter(roll.prober_of(key) for key in self._failing if self._health.get(key) is Health.HEALTHY)
        few = sum(len(of.since) for of in self._fallen.values())
        workers = any(kind is FailureGroupKind.WORKER for kind, _ in suspected)
        if not workers and all(roll.healthy.get(judge, 0) - 2 * failing[judge] >= few for judge in roll.asked):
            return found  # whoever asks them: they are not most of what it asks
        fallen = Counter(roll.prober_of(key) for of in self._fallen.values() for key in of.since)
        for judge, count in fallen.items():
            group = FailureGroup(FailureGroupKind.WORKER, judge)
            if group in suspected or _most(roll.healthy.get(judge, 0), failing[judge], count):
                found.append(group)
        return found

    def suspect(self, group: FailureGroup, before: _Keys | None) -> _Keys:
        """Those of a group that answered a moment ago, if most of them fail now; otherwise empty.

        `before`: the same of the last look, None if it was not suspected.
        """
        keys, recent = self._of(group)
        healthy = frozenset(key for key in keys if self._health.get(key) is Health.HEALTHY)
        answered = healthy | recent | (before & keys if before is not None else frozenset())
        failing = len(healthy & self._failing)
        if before is None and not _most(len(healthy), failing, len(recent)):
            return frozenset()
        return answered if 2 * (len(healthy) - failing) < len(answered) else frozenset()

    def up(self, keys: _Keys) -> int:
        """How many of them answer."""
        return sum(self._health.get(key) is Health.HEALTHY and key not in self._failing for key in keys)

    def _of(self, group: FailureGroup) -> tuple[_Keys, _Keys]:
        """Its endpoints, and those of them that fell a moment ago."""
        if group.kind is FailureGroupKind.SERVICE:
            return frozenset(self._roll.services[group.name].keys), self._fell(group.name)
        recent = frozenset(
            key for owner in self._fallen for key in self._fell(owner) if self._roll.prober_of(key) == group.name
        )
        return self._roll.probed_by(group.name), recent

    def _fell(self, owner: str) -> _Keys:
        return self._recent[owner] if owner in self._recent else frozenset(self._fallen[owner].since)


def _most(healthy: int, failing: int, recent: int) -> bool:
    """Whether most of those that answered a moment ago fail now: some have fallen, and it takes two."""
    return recent > 0 and recent + failing >= 2 and 2 * (healthy - failing) < healthy + recent
