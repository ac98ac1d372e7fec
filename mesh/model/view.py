"""The cluster view: everything that all workers have registered, as one immutable value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from mesh.model.claims import Claims
from mesh.model.persistent_map import PersistentMap
from mesh.model.service import (
    Endpoint,
    EndpointKey,
    Health,
    Service,
)


class EndpointGroup(NamedTuple):
    """The endpoints of one service."""

    endpoints: tuple[Endpoint, ...]
    """In order of `id`, and of `worker` where that is the same."""
    verdicts: tuple[Health | None, ...]
    """What was last said of each; None: it has not answered its probes yet."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One immutable picture of what all workers have registered; `make_plan` reads nothing else of the store."""

    services: tuple[Service, ...] = ()
    """In order of `owner`."""
    endpoints: tuple[Endpoint, ...] = ()
    """In order of `id`, and of `worker` where that is the same."""
    claims: Claims = field(default_factory=Claims)
    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What was last said of each endpoint, by its own worker; if that is gone, by those that ask in its place. Who is
    missing has not answered its probes yet."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy ones that whoever asks them leaves in traffic: too many have failed at once."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Unhealthy ones that answer, and have come and gone too often."""
    workers: frozenset[str] = frozenset()
    """Those whose daemons are there."""
    silent: frozenset[str] = frozenset()
    """Workers whose verdicts have lost their validity: they are gone, or nothing can be heard of them."""
    _groups: Mapping[str, EndpointGroup] | None = field(default=None, init=False, compare=False, repr=False)
    _by_key: Mapping[EndpointKey, Endpoint] | None = field(default=None, init=False, compare=False, repr=False)

    def regrouped(
        self, groups: Mapping[str, EndpointGroup], by_key: Mapping[EndpointKey, Endpoint] | None = None, **changes: Any
    ) -> "ClusterView":
        """With these fields changed, of whoever makes one picture after another and knows the groups that follow, and
        the endpoints by key where those have changed. What is as before shall stay the same object: what follows from
        it need not be made again.
        """
        view = replace(self, **changes)
        object.__setattr__(view, "_groups", groups)
        same = "endpoints" not in changes
        object.__setattr__(view, "_by_key", self._by_key if by_key is None and same else by_key)
        return view

    @property
    def by_key(self) -> Mapping[EndpointKey, Endpoint]:
        """The endpoints."""
        if self._by_key is None:
            found = PersistentMap({endpoint.key: endpoint for endpoint in self.endpoints})
            object.__setattr__(self, "_by_key", found)  # it follows from the rest
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
            object.__setattr__(self, "_groups", groups)  # it follows from the rest
            return groups
        return self._groups

    def judged(self, verdicts: Mapping[EndpointKey, Health | None]) -> "ClusterView":
        """With these verdicts, None: there is none; the view itself where nothing differs."""
        changed = {key: health for key, health in verdicts.items() if self.health.get(key) is not health}
        owners = {endpoint.owner for key in changed if (endpoint := self.by_key.get(key)) is not None}
        if not owners:
            return self
        health = PersistentMap.of(self.health).changed(changed)
        groups = {owner: group_endpoints(self.groups[owner].endpoints, health) for owner in owners}
        return self.regrouped(PersistentMap.of(self.groups).changed(groups), health=health)


def group_endpoints(endpoints: Iterable[Endpoint], health: Mapping[EndpointKey, Health]) -> EndpointGroup:
    """These endpoints of one service, in their order."""
    ordered = tuple(endpoints)
    return EndpointGroup(ordered, tuple(health.get(endpoint.key) for endpoint in ordered))


class HealthReport(NamedTuple):
    """What a worker tells the others of an endpoint that it asks."""

    health: Health
    kept: bool = False
    """It stays in traffic all the same."""
    held_back: bool = False
    """It answers, and has come and gone too often."""
