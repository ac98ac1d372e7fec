"""Tracks which endpoints count for the panic threshold (`mesh.health.panic`), view by view. Pure.

An endpoint counts if it is probed, does not drain, and the floor of its service is not 0. There may be ten thousand of
them, and one verdict changes: only the services that are not as they were are looked at again.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.probe import Probe
from mesh.model.service import EndpointKey, Health, Service
from mesh.model.view import ClusterView, EndpointGroup

_NOBODY = EndpointGroup((), ())


class ServicePopulation(NamedTuple):
    """Those of one service that count, in the order of its endpoints."""

    probe: Probe
    percent: int
    """The floor of the service."""
    keys: tuple[EndpointKey, ...]
    verdicts: tuple[Health | None, ...]
    judges: tuple[str, ...]
    """The worker that asks each of them."""


@dataclass(frozen=True, slots=True)
class EndpointPopulation:
    """Of one picture."""

    view: ClusterView = field(default_factory=ClusterView)
    judges: Mapping[EndpointKey, str] = field(default_factory=dict)
    """Who asks an endpoint, if that is not its own worker."""
    floor: int = 0
    """In per cent, of services that do not say."""
    services: Mapping[str, ServicePopulation] = field(default_factory=PersistentMap)
    """By owner; without those of which nobody counts."""
    owners: Mapping[EndpointKey, str] = field(default_factory=PersistentMap)
    """The service of each that counts."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """How many each worker asks, none left out that asks one."""
    healthy: Mapping[str, int] = field(default_factory=dict)
    """How many of those are healthy."""
    declared: Mapping[str, Service] = field(default_factory=PersistentMap, repr=False)
    """The services of the picture by owner."""

    def after(self, view: ClusterView, judges: Mapping[EndpointKey, str], floor: int) -> "PopulationChange":
        """The roll of the next picture, and what has changed."""
        declared = self.declared
        if view.services is not self.view.services:
            declared = PersistentMap({service.owner: service for service in view.services})
        moved = changed_keys(self.view.groups, view.groups)
        changed = moved | changed_keys(self.declared, declared)
        if floor != self.floor or judges != self.judges:
            changed |= view.groups.keys() | self.services.keys()
        counted = {owner: _counted(declared.get(owner), view.groups.get(owner), judges, floor) for owner in changed}
        owners: dict[EndpointKey, str | None] = {}
        asked, healthy = Counter(self.asked), Counter(self.healthy)
        for owner in changed:
            if (before := self.services.get(owner)) is not None:
                owners.update(dict.fromkeys(before.keys))
                asked.subtract(before.judges)
                healthy.subtract(_healthy(before))
        for owner, now in counted.items():
            if now is not None:
                owners.update(dict.fromkeys(now.keys, owner))
                asked.update(now.judges)
                healthy.update(_healthy(now))
        services = PersistentMap.of(self.services).changed(counted)
        roll = EndpointPopulation(
            view, judges, floor, services, PersistentMap.of(self.owners).changed(owners), +asked, healthy, declared
        )
        return PopulationChange(roll, changed, self._fallen(view, moved) & roll.owners.keys())

    def probed_by(self, judge: str) -> frozenset[EndpointKey]:
        """Those that a worker asks."""
        return frozenset(
            key
            for counted in self.services.values()
            for key, asks in zip(counted.keys, counted.judges, strict=True)
            if asks == judge
        )

    def prober_of(self, key: EndpointKey) -> str:
        """The worker that asks an endpoint."""
        return self.judges.get(key, key[0]) if self.judges else key[0]

    def _fallen(self, view: ClusterView, owners: set[str]) -> set[EndpointKey]:
        fell: set[EndpointKey] = set()
        for owner in owners:
            before, now = self.view.groups.get(owner, _NOBODY), view.groups.get(owner, _NOBODY)
            fell |= _those(now, Health.UNHEALTHY) & _those(before, Health.HEALTHY)
        return fell


class PopulationChange(NamedTuple):
    """From one roll to the next."""

    roll: EndpointPopulation
    changed: set[str]
    """Owners of services that are not as they were."""
    fell: set[EndpointKey]
    """Those that were healthy and are unhealthy now."""


def _counted(
    service: Service | None, group: EndpointGroup | None, judges: Mapping[EndpointKey, str], floor: int
) -> ServicePopulation | None:
    if service is None or service.probe is None or group is None:
        return None
    percent = floor if service.probe.floor is None else service.probe.floor
    rows = [(e.key, said) for e, said in zip(group.endpoints, group.verdicts, strict=True) if e.drain is None]
    if not percent or not rows:
        return None
    keys, verdicts = zip(*rows, strict=True)
    return ServicePopulation(service.probe, percent, keys, verdicts, tuple(judges.get(key, key[0]) for key in keys))


def _healthy(counted: ServicePopulation) -> Counter[str]:
    return Counter(
        judge for judge, said in zip(counted.judges, counted.verdicts, strict=True) if said is Health.HEALTHY
    )


def _those(group: EndpointGroup, health: Health) -> set[EndpointKey]:
    return {e.key for e, said in zip(group.endpoints, group.verdicts, strict=True) if said is health}
