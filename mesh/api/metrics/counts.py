"""Counts services and endpoints by state, for the metrics. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.control.local_overlay import known_health
from mesh.control.shares import ReleaseShare
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.eligibility import endpoint_verdict, vip_of
from mesh.model.service import Health, Name


class ServiceState(StrEnum):
    """Whether a service answers."""

    SERVING = "serving"
    """At least one endpoint takes connections."""
    EMPTY = "empty"
    """The service has a VIP, and no endpoint takes connections."""
    REFUSED = "refused"
    """The service has no VIP: another service holds its name or its VIP, or they have not been claimed yet."""


class EndpointState(StrEnum):
    """Whether an endpoint takes connections, and why not. If several apply, the last one in this list counts."""

    SERVING = "serving"
    """The endpoint takes connections."""
    STARTING = "starting"
    """No probe has succeeded yet."""
    UNHEALTHY = "unhealthy"
    """The endpoint's probes fail."""
    DRAINING = "draining"
    """The endpoint takes no new connections."""
    REFUSED = "refused"
    """The endpoint's service is refused."""


_OF_HEALTH = {
    None: EndpointState.SERVING,
    Health.HEALTHY: EndpointState.SERVING,
    Health.STARTING: EndpointState.STARTING,
    Health.UNHEALTHY: EndpointState.UNHEALTHY,
}


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """The counts of one service that has a VIP."""

    name: Name
    owner: str
    endpoints: int
    """The number of its endpoints."""
    serving: int
    """The number of its endpoints that take connections."""
    releases: tuple[ReleaseShare, ...] = ()
    """Its releases with their parts of new connections; empty if no endpoint names one."""


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """The counts of the whole cluster, as this worker sees it."""

    services: Counter[ServiceState] = field(default_factory=Counter)
    """The number of services in each state."""
    endpoints: Counter[EndpointState] = field(default_factory=Counter)
    """The number of endpoints in each state."""
    workers: int = 0
    """The number of workers with at least one endpoint."""
    rows: tuple[ServiceCounts, ...] = ()
    """The counts of each service, sorted by name; each name once."""


def count_cluster(observed: WorkerSnapshot) -> ClusterCounts:
    """Count services and endpoints. Before the first pass all counts are zero."""
    effective = observed.effective()
    if effective is None or observed.plan is None:
        return ClusterCounts()
    view = effective.known
    health = known_health(view, observed.facts.worker, observed.probed)
    services: Counter[ServiceState] = Counter()
    states: Counter[EndpointState] = Counter()
    rows = []
    for service in view.services:
        group = view.groups[service.owner].endpoints if service.owner in view.groups else ()
        if vip_of(service, view) is None:
            services[ServiceState.REFUSED] += 1
            states[EndpointState.REFUSED] += len(group)
            continue
        own = Counter(
            EndpointState.DRAINING if endpoint.drain else _OF_HEALTH[endpoint_verdict(service, endpoint, health)]
            for endpoint in group
        )
        states += own
        serving = own[EndpointState.SERVING]
        services[ServiceState.SERVING if serving else ServiceState.EMPTY] += 1
        releases = effective.shared.releases(service)
        rows.append(ServiceCounts(service.name, service.owner, len(group), serving, releases))
    workers = len({endpoint.worker for endpoint in view.endpoints})
    return ClusterCounts(services, states, workers, tuple(sorted(rows, key=lambda row: row.name)))
