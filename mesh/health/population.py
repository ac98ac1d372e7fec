"""Tracks which endpoints count for the panic threshold (`mesh.health.panic`), view by view. Pure.

An endpoint counts if it is probed, does not drain, and the floor of its service is not 0. There may be ten thousand
endpoints, of which one changes: only the services that changed are counted again.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.model.eligibility import probe_of
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.probe import Probe
from mesh.model.service import EndpointKey, Health, Service
from mesh.model.view import ClusterView, EndpointGroup

_NO_ENDPOINTS = EndpointGroup((), ())


class ServicePopulation(NamedTuple):
    """The endpoints of one service that count, in the order of its endpoints."""

    probe: Probe
    percent: int
    """The floor of the service."""
    keys: tuple[EndpointKey, ...]
    verdicts: tuple[Health | None, ...]
    probers: tuple[str, ...]
    """The worker that probes each endpoint."""


@dataclass(frozen=True, slots=True)
class EndpointPopulation:
    """The endpoints of one view that count."""

    view: ClusterView = field(default_factory=ClusterView)
    probers: Mapping[EndpointKey, str] = field(default_factory=dict)
    """The worker that probes an endpoint, where that is not its own worker."""
    floor: int = 0
    """The percentage for services whose labels set none."""
    services: Mapping[str, ServicePopulation] = field(default_factory=PersistentMap)
    """The populations by owner; without services of which no endpoint counts."""
    owners: Mapping[EndpointKey, str] = field(default_factory=PersistentMap)
    """The owner of the service of each endpoint that counts."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """The number of counted endpoints that each worker probes; only workers that probe at least one."""
    healthy: Mapping[str, int] = field(default_factory=dict)
    """The number of healthy endpoints among them."""
    declared: Mapping[str, Service] = field(default_factory=PersistentMap, repr=False)
    """The services of the view by owner."""

    def after(self, view: ClusterView, probers: Mapping[EndpointKey, str], floor: int) -> "PopulationChange":
        """The population of the next view, and what has changed."""
        declared = self.declared
        if view.services is not self.view.services:
            declared = PersistentMap({service.owner: service for service in view.services})
        moved = changed_keys(self.view.groups, view.groups)
        changed = moved | changed_keys(self.declared, declared)
        if floor != self.floor or probers != self.probers:
            changed |= view.groups.keys() | self.services.keys()
        members = {owner: _members(declared.get(owner), view.groups.get(owner), probers, floor) for owner in changed}
        owners: dict[EndpointKey, str | None] = {}
        asked, healthy = Counter(self.asked), Counter(self.healthy)
        for owner in changed:
            if (before := self.services.get(owner)) is not None:
                owners.update(dict.fromkeys(before.keys))
                asked.subtract(before.probers)
                healthy.subtract(_healthy(before))
        for owner, now in members.items():
            if now is not None:
                owners.update(dict.fromkeys(now.keys, owner))
                asked.update(now.probers)
                healthy.update(_healthy(now))
        services = PersistentMap.of(self.services).changed(members)
        population = EndpointPopulation(
            view, probers, floor, services, PersistentMap.of(self.owners).changed(owners), +asked, healthy, declared
        )
        return PopulationChange(population, changed, self._fallen(view, moved) & population.owners.keys())

    def probed_by(self, prober: str) -> frozenset[EndpointKey]:
        """The counted endpoints that a worker probes."""
        return frozenset(
            key
            for members in self.services.values()
            for key, asks in zip(members.keys, members.probers, strict=True)
            if asks == prober
        )

    def prober_of(self, key: EndpointKey) -> str:
        """The worker that probes an endpoint."""
        return self.probers.get(key, key[0]) if self.probers else key[0]

    def _fallen(self, view: ClusterView, owners: set[str]) -> set[EndpointKey]:
        failed_now: set[EndpointKey] = set()
        for owner in owners:
            before, now = self.view.groups.get(owner, _NO_ENDPOINTS), view.groups.get(owner, _NO_ENDPOINTS)
            failed_now |= _endpoints_with(now, Health.UNHEALTHY) & _endpoints_with(before, Health.HEALTHY)
        return failed_now


class PopulationChange(NamedTuple):
    """The step from one population to the next."""

    population: EndpointPopulation
    changed: set[str]
    """Owners of services that changed."""
    failed_now: set[EndpointKey]
    """Endpoints that were healthy and are unhealthy now."""


def _members(
    service: Service | None, group: EndpointGroup | None, probers: Mapping[EndpointKey, str], floor: int
) -> ServicePopulation | None:
    if service is None or group is None:
        return None
    probes = [probe_of(service, endpoint) for endpoint in group.endpoints]
    # The window and the floor are of the service: those of its declaration in force, if that has a probe.
    probe = service.probe or next((each for each in probes if each is not None), None)
    if probe is None:
        return None
    percent = floor if probe.floor is None else probe.floor
    rows = [
        (e.key, verdict)
        for e, verdict, own in zip(group.endpoints, group.verdicts, probes, strict=True)
        if e.drain is None and own is not None
    ]
    if not percent or not rows:
        return None
    keys, verdicts = zip(*rows, strict=True)
    return ServicePopulation(probe, percent, keys, verdicts, tuple(probers.get(key, key[0]) for key in keys))


def _healthy(members: ServicePopulation) -> Counter[str]:
    return Counter(
        prober for prober, verdict in zip(members.probers, members.verdicts, strict=True) if verdict is Health.HEALTHY
    )


def _endpoints_with(group: EndpointGroup, health: Health) -> set[EndpointKey]:
    return {e.key for e, verdict in zip(group.endpoints, group.verdicts, strict=True) if verdict is health}
