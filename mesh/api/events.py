"""What is new since the last look: the events that the API sends to whoever watches. Pure.

A watcher first gets everything, then what has changed, and every few seconds what goes through. Rates are worked out
here, from two counts and the time between them; a count that went back began anew, and has no rate this time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from mesh.api.status import ServiceStatus, WorkerStatus, worker_status
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import WorkerSnapshot
from mesh.dataplane.drain import BackendKey
from mesh.model.eligibility import real_keys
from mesh.model.table import RealKey, TrafficCounters, VirtualKey


@dataclass(frozen=True, slots=True)
class EventInput:
    """All that there is to tell, taken down at once."""

    observed: WorkerSnapshot
    at: float
    """Seconds of a clock that never goes back."""
    traffic: Mapping[VirtualKey, TrafficCounters] = field(default_factory=dict)
    """Empty: the data plane does not count."""
    connections: Mapping[BackendKey, int] = field(default_factory=dict)
    """The established ones, as far as they can be counted."""


@dataclass(frozen=True, slots=True)
class ServiceRemovedEvent:
    """A service that is not there any more."""

    owner: str


@dataclass(frozen=True, slots=True)
class ServiceTraffic:
    """What goes through one service on this worker."""

    owner: str
    connections: int
    """Established now."""
    endpoints: Mapping[str, int]
    """The same for each endpoint that has any, by `WORKER/ID`."""
    opened: float | None = None
    """Connections that were opened in a second; None: it is not counted, or not known yet."""
    bytes_in: float | None = None
    """Octets in a second from clients."""
    bytes_out: float | None = None


@dataclass(frozen=True, slots=True)
class TrafficEvent:
    """What goes through this worker; services without any are left out."""

    connections: int
    services: tuple[ServiceTraffic, ...]
    counted: bool
    """Whether the data plane counts at all; without, there are no rates."""
    opened: float | None = None
    bytes_in: float | None = None
    bytes_out: float | None = None


@dataclass(frozen=True, slots=True)
class InitialStateEvent:
    """Everything has been told; what follows is news."""

    services: int


StatusEvent: TypeAlias = WorkerStatus | ServiceStatus | ServiceRemovedEvent | TrafficEvent | InitialStateEvent
EVENT_NAMES: Mapping[type[StatusEvent], str] = {
    WorkerStatus: "worker",
    ServiceStatus: "service",
    ServiceRemovedEvent: "gone",
    TrafficEvent: "flow",
    InitialStateEvent: "ready",
}
"""What each is called on the wire."""


@dataclass(frozen=True, slots=True)
class WatcherState:
    """What watchers know by now."""

    worker: WorkerStatus
    """Without services."""
    services: Mapping[str, ServiceStatus]
    """By owner."""
    traffic: Mapping[VirtualKey, TrafficCounters]
    at: float


def watcher_state(moment: EventInput) -> WatcherState:
    """What there is to know at this moment."""
    status = worker_status(moment.observed)
    services = {service.owner: service for service in status.services}
    return WatcherState(replace(status, services=()), services, moment.traffic, moment.at)


def initial_events(told: WatcherState) -> Iterator[StatusEvent]:
    """For a new watcher."""
    yield told.worker
    yield from told.services.values()
    yield InitialStateEvent(len(told.services))


def changed_events(before: WatcherState, now: WatcherState) -> Iterator[StatusEvent]:
    """For one who knows what was before."""
    if now.worker != before.worker:
        yield now.worker
    yield from (ServiceRemovedEvent(owner) for owner in before.services if owner not in now.services)
    yield from (service for owner, service in now.services.items() if before.services.get(owner) != service)


def traffic_event(before: WatcherState | None, moment: EventInput) -> TrafficEvent:
    """What goes through now, and in a second since before."""
    plan = moment.observed.plan
    counts = _by_server(moment.connections)
    earlier, seconds = (before.traffic, moment.at - before.at) if before is not None else ({}, 0.0)
    services = []
    for owner, part in plan.parts.items() if plan is not None else ():
        rates = _rates(part, earlier, moment.traffic, seconds)
        endpoints = _endpoints(part, counts)
        if endpoints or any(rates):
            services.append(ServiceTraffic(owner, sum(endpoints.values()), endpoints, *rates))
    whole = (
        None if seconds <= 0 or not moment.traffic else sum(rate or 0.0 for rate in column)
        for column in (
            [service.opened for service in services],
            [service.bytes_in for service in services],
            [service.bytes_out for service in services],
        )
    )
    return TrafficEvent(sum(s.connections for s in services), tuple(services), bool(moment.traffic), *whole)


def _by_server(connections: Mapping[BackendKey, int]) -> Mapping[VirtualKey, Mapping[RealKey, int]]:
    found: dict[VirtualKey, dict[RealKey, int]] = {}
    for (virtual, real), count in connections.items():
        if count:
            found.setdefault(virtual, {})[real] = count
    return found


def _endpoints(part: ServicePlan, counts: Mapping[VirtualKey, Mapping[RealKey, int]]) -> Mapping[str, int]:
    """Over all virtual servers of the service."""
    busy = [counts[virtual] for virtual in part.virtual_servers if virtual in counts]
    found: dict[str, int] = {}
    for endpoint in part.grounds.endpoints if busy else ():
        reals = real_keys(part.grounds.service, endpoint)
        if count := sum(server.get(real, 0) for server in busy for real in reals):
            found["/".join(endpoint.key)] = count
    return found


def _rates(
    part: ServicePlan,
    before: Mapping[VirtualKey, TrafficCounters],
    now: Mapping[VirtualKey, TrafficCounters],
    seconds: float,
) -> tuple[float | None, float | None, float | None]:
    pairs = [(before[key], now[key]) for key in part.virtual_servers if key in before and key in now]
    if seconds <= 0 or not pairs or any(_began_anew(old, new) for old, new in pairs):
        return None, None, None
    return (
        sum(new.connections - old.connections for old, new in pairs) / seconds,
        sum(new.bytes_in - old.bytes_in for old, new in pairs) / seconds,
        sum(new.bytes_out - old.bytes_out for old, new in pairs) / seconds,
    )


def _began_anew(old: TrafficCounters, new: TrafficCounters) -> bool:
    return new.connections < old.connections or new.bytes_in < old.bytes_in or new.bytes_out < old.bytes_out
