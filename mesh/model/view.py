"""The cluster view: everything that all workers have registered, as one immutable value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mesh.model.claims import Claims
from mesh.model.persistent_map import PersistentMap
from mesh.model.release_rollout import ReleaseRollout
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import (
    Endpoint,
    EndpointKey,
    Health,
    Service,
)


class EndpointGroup(NamedTuple):
    """The endpoints of one service and their health."""

    endpoints: tuple[Endpoint, ...]
    """Sorted by `id`, then by `worker`."""
    verdicts: tuple[Health | None, ...]
    """The last verdict on each endpoint, in the same order; None: no result of its probe yet."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """An immutable view of what all workers have registered. `make_plan` reads nothing else of the store."""

    services: tuple[Service, ...] = ()
    """Sorted by `owner`."""
    endpoints: tuple[Endpoint, ...] = ()
    """Sorted by `id`, then by `worker`."""
    claims: Claims = field(default_factory=Claims)
    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """The last verdict on each endpoint, by its own worker or, if that is gone, by the workers that probe in its place.
    An endpoint without a result of its probe is missing.
    """
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy endpoints that stay in traffic because too many failed at once."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Endpoints that answer again but still count as unhealthy, because they failed and recovered too often."""
    reasons: Mapping[EndpointKey, str] = field(default_factory=dict)
    """The answer of the probe that made an endpoint unhealthy, as the worker that probes it has published it. An
    endpoint of a worker that publishes none is missing.
    """
    workers: frozenset[str] = frozenset()
    """Workers whose daemon is alive."""
    silent: frozenset[str] = frozenset()
    """Workers whose verdicts are no longer valid: they are gone, or nothing is received from them."""
    shares: Mapping[str, ReleaseShares] = field(default_factory=dict)
    """The shares of releases that operators or rollouts have given, by `Service.owner`."""
    rollouts: Mapping[str, ReleaseRollout] = field(default_factory=dict)
    """The rollouts of services, by `Service.owner`."""
    _groups: Mapping[str, EndpointGroup] | None = field(default=None, init=False, compare=False, repr=False)
    _by_key: Mapping[EndpointKey, Endpoint] | None = field(default=None, init=False, compare=False, repr=False)

    def with_health(self, health: Mapping[EndpointKey, Health], groups: Mapping[str, EndpointGroup]) -> "ClusterView":
        """Return a copy with this health.

        `groups` must be those that follow from it. Unchanged groups must stay the same objects, so that what depends on
        them is not computed again.
        """
        return _indexed(replace(self, health=health), groups, self._by_key)

    def with_endpoints(
        self,
        endpoints: tuple[Endpoint, ...],
        groups: Mapping[str, EndpointGroup],
        by_key: Mapping[EndpointKey, Endpoint],
        health: Mapping[EndpointKey, Health] | None = None,
    ) -> "ClusterView":
        """Return a copy with these endpoints, and with this health unless it is None.

        `groups` and `by_key` must be those that follow from them. Unchanged groups must stay the same objects.
        """
        return _indexed(
            replace(self, endpoints=endpoints, health=self.health if health is None else health), groups, by_key
        )

    def with_claims(self, claims: Claims) -> "ClusterView":
        """Return a copy with these claims."""
        return _indexed(replace(self, claims=claims), self._groups, self._by_key)

    def with_silent(self, silent: frozenset[str]) -> "ClusterView":
        """Return a copy in which the verdicts of these workers are no longer valid."""
        return _indexed(replace(self, silent=silent), self._groups, self._by_key)

    def with_index(
        self, groups: Mapping[str, EndpointGroup], by_key: Mapping[EndpointKey, Endpoint] | None = None
    ) -> "ClusterView":
        """Return a copy with these groups and endpoints by key; a `by_key` of None is computed when it is needed."""
        return _indexed(replace(self), groups, by_key)

    @property
    def by_key(self) -> Mapping[EndpointKey, Endpoint]:
        """The endpoints by their key."""
        if self._by_key is None:
            found = PersistentMap({endpoint.key: endpoint for endpoint in self.endpoints})
            object.__setattr__(self, "_by_key", found)  # a cache: it is derived from the other fields
            return found
        return self._by_key

    @property
    def groups(self) -> Mapping[str, EndpointGroup]:
        """The endpoints by `Service.owner`."""
        if self._groups is None:
            found: dict[str, list[Endpoint]] = {}
            for endpoint in self.endpoints:
                found.setdefault(endpoint.owner, []).append(endpoint)
            groups = PersistentMap(
                {owner: group_endpoints(endpoints, self.health) for owner, endpoints in found.items()}
            )
            object.__setattr__(self, "_groups", groups)  # a cache: it is derived from the other fields
            return groups
        return self._groups

    def judged(self, verdicts: Mapping[EndpointKey, Health | None]) -> "ClusterView":
        """Return a copy with these verdicts changed (None removes one), or the view itself if nothing changes."""
        changed = {key: health for key, health in verdicts.items() if self.health.get(key) is not health}
        owners = {endpoint.owner for key in changed if (endpoint := self.by_key.get(key)) is not None}
        if not owners:
            return self
        health = PersistentMap.of(self.health).changed(changed)
        groups = {owner: group_endpoints(self.groups[owner].endpoints, health) for owner in owners}
        return self.with_health(health, PersistentMap.of(self.groups).changed(groups))


def _indexed(
    view: ClusterView, groups: Mapping[str, EndpointGroup] | None, by_key: Mapping[EndpointKey, Endpoint] | None
) -> ClusterView:
    """Set the indexes of a new view, which no other code has yet, and return it. None: computed when it is needed."""
    object.__setattr__(view, "_groups", groups)
    object.__setattr__(view, "_by_key", by_key)
    return view


def group_endpoints(endpoints: Iterable[Endpoint], health: Mapping[EndpointKey, Health]) -> EndpointGroup:
    """Return the group of these endpoints of one service, in their order."""
    ordered = tuple(endpoints)
    return EndpointGroup(ordered, tuple(health.get(endpoint.key) for endpoint in ordered))


class HealthReport(NamedTuple):
    """The health of an endpoint as the worker that probes it reports it to the others."""

    health: Health
    kept: bool = False
    """The endpoint stays in traffic although it is unhealthy."""
    held_back: bool = False
    """The endpoint answers again but still counts as unhealthy, because it failed and recovered too often."""
    run: str | None = None
    """The run that was probed (`Endpoint.run`)."""
    reason: str | None = None
    """The answer of the probe that made an endpoint unhealthy; None for other endpoints, or if it is not known."""
