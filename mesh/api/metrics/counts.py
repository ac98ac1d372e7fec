"""How many services and endpoints there are, and in which state. Pure, for the metrics."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.control.local_overlay import known_health
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.eligibility import endpoint_verdict, vip_of
from mesh.model.service import Health, Name


class ServiceState(StrEnum):
    """Whether a service answers."""

    SERVING = "serving"
    """It has an endpoint that takes connections."""
    EMPTY = "empty"
    """It has a VIP, and no endpoint takes connections."""
    REFUSED = "refused"
    """It has no VIP: another service holds its name or its VIP, or the claim is still to come."""


class EndpointState(StrEnum):
    """Whether an endpoint takes connections, and why not. The first that applies, from below."""

    SERVING = "serving"
    STARTING = "starting"
    """No probe has succeeded yet."""
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    REFUSED = "refused"
    """Its service is."""


_OF_HEALTH = {
    None: EndpointState.SERVING,
    Health.HEALTHY: EndpointState.SERVING,
    Health.STARTING: EndpointState.STARTING,
    Health.UNHEALTHY: EndpointState.UNHEALTHY,
}


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """One service that has its VIP."""

    name: Name
    owner: str
    endpoints: int
    serving: int


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """Of the whole cluster, as this worker sees it."""

    services: Counter[ServiceState] = field(default_factory=Counter)
    endpoints: Counter[EndpointState] = field(default_factory=Counter)
    workers: int = 0
    """Those that offer an endpoint."""
    rows: tuple[ServiceCounts, ...] = ()
    """In order of their names, each name once."""


def count_cluster(observed: WorkerSnapshot) -> ClusterCounts:
    """Count. Before the first pass there is nothing to count."""
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
        rows.append(ServiceCounts(service.name, service.owner, len(group), serving))
    workers = len({endpoint.worker for endpoint in view.endpoints})
    return ClusterCounts(services, states, workers, tuple(sorted(rows, key=lambda row: row.name)))
