"""Computes the events that the admin API sends to watchers. Pure.

A watcher first gets the complete state, then every change, and every few seconds the traffic. Rates are computed here,
from two counts and the time between them. A count that is lower than before was reset, and has no rate this time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mesh.api.status import ServiceStatus, WorkerStatus, worker_status
from mesh.control.endpoint_totals import endpoint_totals
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import WorkerSnapshot
from mesh.dataplane.drain import BackendKey
from mesh.model.eligibility import real_keys
from mesh.model.past_event import NumberedEvent
from mesh.model.table import RealKey, TrafficCounters, VirtualKey


@dataclass(frozen=True, slots=True)
class EventInput:
    """The state of a worker from which events are computed."""

    observed: WorkerSnapshot
    """The snapshot of the worker."""
    at: float
    """When it was taken, in seconds of a monotonic clock."""
    traffic: Mapping[VirtualKey, TrafficCounters] = field(default_factory=dict)
    """The traffic of each virtual server; empty if the data plane does not count it."""
    connections: Mapping[BackendKey, int] | None = field(default_factory=dict)
    """The number of established connections of each real server; None if the data plane cannot be asked."""
    endpoint_traffic: Mapping[BackendKey, TrafficCounters] = field(default_factory=dict)
    """The traffic to each real server; empty if the data plane does not count it, or if nobody asks for it."""


@dataclass(frozen=True, slots=True)
class ServiceRemovedEvent:
    """A service that no longer exists."""

    owner: str
    """The declaration that it came from, `project/service`."""


@dataclass(frozen=True, slots=True)
class EndpointTraffic:
    """The traffic to one endpoint through this worker, per second."""

    opened: float
    """New connections per second."""
    bytes_in: float
    """Bytes per second from clients."""
    bytes_out: float
    """Bytes per second to clients."""


@dataclass(frozen=True, slots=True)
class ServiceTraffic:
    """The traffic of one service through this worker."""

    owner: str
    """The declaration of the service, `project/service`."""
    connections: int
    """Connections that are established now."""
    endpoints: Mapping[str, int]
    """The established connections of each endpoint that has any, by `WORKER/ID`."""
    opened: float | None = None
    """New connections per second; None if the data plane does not count them, or at the first event."""
    bytes_in: float | None = None
    """Bytes per second from clients; None as for `opened`."""
    bytes_out: float | None = None
    """Bytes per second to clients; None as for `opened`."""
    endpoint_rates: Mapping[str, EndpointTraffic] = field(default_factory=dict)
    """The rates of each endpoint that has traffic, by `WORKER/ID`; empty if none is known."""


@dataclass(frozen=True, slots=True)
class TrafficEvent:
    """The traffic through this worker; services without any are left out."""

    connections: int
    """Connections that are established now."""
    services: tuple[ServiceTraffic, ...]
    """The traffic of each service that has any."""
    counted: bool
    """Whether the data plane counts traffic; without counts there are no rates."""
    opened: float | None = None
    """New connections per second over all services; None if no rate is known."""
    bytes_in: float | None = None
    """Bytes per second from clients; None if no rate is known."""
    bytes_out: float | None = None
    """Bytes per second to clients; None if no rate is known."""


@dataclass(frozen=True, slots=True)
class InitialStateEvent:
    """Marks the end of the complete state; only changes follow."""

    services: int
    """The number of services that were sent."""


StatusEvent: TypeAlias = (
    WorkerStatus | ServiceStatus | ServiceRemovedEvent | TrafficEvent | InitialStateEvent | NumberedEvent
)
EVENT_NAMES: Mapping[type[StatusEvent], str] = {
    WorkerStatus: "worker",
    ServiceStatus: "service",
    ServiceRemovedEvent: "gone",
    TrafficEvent: "flow",
    InitialStateEvent: "ready",
    NumberedEvent: "happened",
}
"""The name of each kind of event in the stream."""


@dataclass(frozen=True, slots=True)
class WatcherState:
    """The state that watchers have been sent so far."""

    worker: WorkerStatus
    """The status of the worker, without services."""
    services: Mapping[str, ServiceStatus]
    """The status of each service, by owner."""
    traffic: Mapping[VirtualKey, TrafficCounters]
    """The traffic of each virtual server, from which the next rates are computed."""
    at: float
    """When the state was taken, in seconds of a monotonic clock."""
    endpoint_traffic: Mapping[BackendKey, TrafficCounters] = field(default_factory=dict)
    """The traffic to each real server, as for `traffic`."""


def watcher_state(moment: EventInput) -> WatcherState:
    """Return the state to send for this input."""
    status = worker_status(moment.observed)
    services = {service.owner: service for service in status.services}
    return WatcherState(replace(status, services=()), services, moment.traffic, moment.at, moment.endpoint_traffic)


def initial_events(told: WatcherState) -> Iterator[StatusEvent]:
    """Yield the complete state, for a new watcher."""
    yield told.worker
    yield from told.services.values()
    yield InitialStateEvent(len(told.services))


def changed_events(before: WatcherState, now: WatcherState) -> Iterator[StatusEvent]:
    """Yield the changes between two states, for a watcher that has been sent the first one."""
    if now.worker != before.worker:
        yield now.worker
    yield from (ServiceRemovedEvent(owner) for owner in before.services if owner not in now.services)
    yield from (service for owner, service in now.services.items() if before.services.get(owner) != service)


def traffic_event(before: WatcherState | EventInput | None, moment: EventInput) -> TrafficEvent:
    """Return the traffic now, with rates per second since `before`; there are no rates if that is None."""
    plan = moment.observed.plan
    counts = connections_by_server(moment.connections or {})
    earlier, seconds = (before.traffic, moment.at - before.at) if before is not None else ({}, 0.0)
    moved = _moved(before.endpoint_traffic if before is not None else {}, moment.endpoint_traffic)
    services = []
    for owner, part in plan.parts.items() if plan is not None else ():
        rates = _rates(part, earlier, moment.traffic, seconds)
        endpoints = _endpoints(part, counts)
        if endpoints or any(rates):
            busy = _endpoint_rates(part, moved, seconds) if seconds > 0 and moved else {}
            services.append(ServiceTraffic(owner, sum(endpoints.values()), endpoints, *rates, busy))
    event = TrafficEvent(sum(s.connections for s in services), tuple(services), counted=bool(moment.traffic))
    if seconds <= 0 or not moment.traffic:
        return event
    # A service whose counts were reset has no rate this time, and adds nothing to the total.
    return replace(
        event,
        opened=sum(service.opened or 0.0 for service in services),
        bytes_in=sum(service.bytes_in or 0.0 for service in services),
        bytes_out=sum(service.bytes_out or 0.0 for service in services),
    )


def connections_by_server(connections: Mapping[BackendKey, int]) -> Mapping[VirtualKey, Mapping[RealKey, int]]:
    """Group the connection counts by virtual server, without zeros."""
    found: dict[VirtualKey, dict[RealKey, int]] = {}
    for (virtual, real), count in connections.items():
        if count:
            found.setdefault(virtual, {})[real] = count
    return found


def _endpoints(part: ServicePlan, counts: Mapping[VirtualKey, Mapping[RealKey, int]]) -> Mapping[str, int]:
    """Return the connections of each endpoint that has any, over all virtual servers of the service."""
    busy = [counts[virtual] for virtual in part.virtual_servers if virtual in counts]
    found: dict[str, int] = {}
    for endpoint in part.inputs.endpoints if busy else ():
        reals = real_keys(part.inputs.service, endpoint)
        if count := sum(server.get(real, 0) for server in busy for real in reals):
            found["/".join(endpoint.key)] = count
    return found


def _moved(
    before: Mapping[BackendKey, TrafficCounters], now: Mapping[BackendKey, TrafficCounters]
) -> Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]]:
    """Return what each real server has carried between two counts, without those that were reset or had no traffic."""
    found: dict[VirtualKey, dict[RealKey, TrafficCounters]] = {}
    for backend, new in now.items():
        old = before.get(backend)
        if old is not None and new != old and not new.began_again(old):
            found.setdefault(backend[0], {})[backend[1]] = new - old
    return found


def _endpoint_rates(
    part: ServicePlan, moved: Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]], seconds: float
) -> Mapping[str, EndpointTraffic]:
    """Return the rates of each endpoint with traffic, over all virtual servers of the service."""
    found: dict[str, EndpointTraffic] = {}
    for endpoint, total in endpoint_totals(part, moved):
        if total != TrafficCounters():
            rates = (total.connections / seconds, total.bytes_in / seconds, total.bytes_out / seconds)
            found["/".join(endpoint.key)] = EndpointTraffic(*rates)
    return found


def _rates(
    part: ServicePlan,
    before: Mapping[VirtualKey, TrafficCounters],
    now: Mapping[VirtualKey, TrafficCounters],
    seconds: float,
) -> tuple[float | None, float | None, float | None]:
    """Return new connections, bytes in and bytes out per second, or None for each if they cannot be computed."""
    pairs = [(before[key], now[key]) for key in part.virtual_servers if key in before and key in now]
    if seconds <= 0 or not pairs or any(new.began_again(old) for old, new in pairs):
        return None, None, None
    return (
        sum(new.connections - old.connections for old, new in pairs) / seconds,
        sum(new.bytes_in - old.bytes_in for old, new in pairs) / seconds,
        sum(new.bytes_out - old.bytes_out for old, new in pairs) / seconds,
    )
