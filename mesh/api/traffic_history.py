"""The last hour of a worker's traffic, in a bounded amount of memory. Pure.

A sample is taken every ten seconds. The totals are always kept; beside them the series of the services that had
traffic, up to a limit. Beyond it the service that has been without traffic for longest gives up its place, and a
service for which no place is free has no series of its own. All series together take less than 4 MiB, however many
services there are.
"""

import math
from array import array
from dataclasses import dataclass

from mesh.api.events import ServiceTraffic, TrafficEvent
from mesh.control.planner import has_virtual_servers
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.eligibility import serves, vip_of

INTERVAL = 10.0
"""Seconds between two samples."""
SAMPLES = 360
"""The number of samples that are kept: one hour."""
MAX_SERVICES = 500
"""The most services with series of their own."""

_UNKNOWN = math.nan
_TRAFFIC = ("connections", "opened", "bytes_in", "bytes_out")
_TOTALS = ("services", "endpoints", *_TRAFFIC)


@dataclass(frozen=True, slots=True)
class HistorySample:
    """The state of a worker at one time."""

    services: int
    """Services with at least one endpoint that serves."""
    endpoints: int
    """Endpoints that serve."""
    traffic: TrafficEvent
    """The traffic through this worker."""


@dataclass(frozen=True, slots=True)
class HistoryDocument:
    """The document of `GET /v1/history`: series of equal length, the oldest value first; null where none is known."""

    worker: str
    """The worker whose traffic it is."""
    at: float
    """When the last sample was taken, in seconds since 1970 by the worker's clock; 0 without samples."""
    interval: float
    """Seconds between two samples."""
    connections: tuple[float | None, ...] = ()
    """Established connections."""
    opened: tuple[float | None, ...] = ()
    """New connections per second."""
    bytes_in: tuple[float | None, ...] = ()
    """Bytes per second from clients."""
    bytes_out: tuple[float | None, ...] = ()
    """Bytes per second to clients."""
    services: tuple[float | None, ...] = ()
    """Services with at least one endpoint that serves; empty in the history of one service."""
    endpoints: tuple[float | None, ...] = ()
    """Endpoints that serve; empty in the history of one service."""
    owner: str | None = None
    """The service whose history it is, `project/service`; None for all services together."""


class _ServiceSeries:
    """The ring of one service."""

    __slots__ = ("active", "values")

    def __init__(self, samples: int) -> None:
        self.values = {name: array("f", [_UNKNOWN]) * samples for name in _TRAFFIC}
        self.active = 0
        """The slot of the last sample in which the service had traffic."""


class TrafficHistory:
    """Rings of samples: of all services together, and of each of a limited number of services.

    A slot is the number of an interval of the clock. A slot without a sample has no values.
    """

    def __init__(self, samples: int = SAMPLES, most: int = MAX_SERVICES) -> None:
        """`samples`: how many are kept. `most`: the most services with series of their own."""
        self._samples = samples
        self._most = most
        self._totals = {name: array("f", [_UNKNOWN]) * samples for name in _TOTALS}
        self._services: dict[str, _ServiceSeries] = {}
        self._slot: int | None = None
        """The slot of the last sample."""
        self._first = 0
        """The slot of the first sample."""
        self._at = 0.0

    def record(self, slot: int, at: float, sample: HistorySample) -> None:
        """Add the sample of a slot, which was taken at `at` seconds since 1970.

        A sample for a slot that has one, or for one before it, is left out.
        """
        if self._slot is None:
            self._first = slot
        elif slot <= self._slot:
            return
        self._clear_to(slot)
        self._slot, self._at = slot, at
        column = slot % self._samples
        self._totals["services"][column] = sample.services
        self._totals["endpoints"][column] = sample.endpoints
        _write(self._totals, column, sample.traffic)
        for owner in [owner for owner, series in self._services.items() if series.active <= slot - self._samples]:
            del self._services[owner]
        for series in self._services.values():
            for name in _TRAFFIC:
                series.values[name][column] = 0.0 if name == "connections" or sample.traffic.counted else _UNKNOWN
        for service in sample.traffic.services:
            self._record_service(slot, service)

    def document(self, worker: str, owner: str | None = None) -> HistoryDocument:
        """Return the series of all services together, or those of the service that `owner` declares."""
        if self._slot is None:
            return HistoryDocument(worker, 0.0, INTERVAL, owner=owner)
        if owner is None:
            found = self._totals
        elif owner in self._services:
            found = self._services[owner].values
        else:
            return HistoryDocument(worker, self._at, INTERVAL, owner=owner)
        length = min(self._samples, self._slot - self._first + 1)
        slots = range(self._slot - length + 1, self._slot + 1)
        series = {name: tuple(_known(values[slot % self._samples]) for slot in slots) for name, values in found.items()}
        return HistoryDocument(worker, self._at, INTERVAL, owner=owner, **series)

    def owners(self) -> frozenset[str]:
        """Return the services that have series of their own."""
        return frozenset(self._services)

    def _clear_to(self, slot: int) -> None:
        """Forget the values of the slots that have passed without a sample."""
        if self._slot is None:
            return
        rings = [self._totals, *(series.values for series in self._services.values())]
        for missed in range(max(self._slot + 1, slot - self._samples + 1), slot):
            for ring in rings:
                for values in ring.values():
                    values[missed % self._samples] = _UNKNOWN

    def _record_service(self, slot: int, service: ServiceTraffic) -> None:
        series = self._services.get(service.owner)
        if series is None:
            if len(self._services) >= self._most and not self._free_place(slot):
                return
            series = self._services[service.owner] = _ServiceSeries(self._samples)
        series.active = slot
        _write(series.values, slot % self._samples, service)

    def _free_place(self, slot: int) -> bool:
        """Drop the service that has been without traffic for longest; return whether there is one."""
        owner, series = min(self._services.items(), key=lambda each: each[1].active)
        if series.active == slot:
            return False
        del self._services[owner]
        return True


def take_history_sample(observed: WorkerSnapshot, traffic: TrafficEvent) -> HistorySample:
    """Return the sample of a worker with this traffic."""
    effective, plan = observed.effective(), observed.plan
    if effective is None or plan is None:
        return HistorySample(0, 0, traffic)
    view, services, endpoints = effective.known, 0, 0
    for service in view.services:
        vip = vip_of(service, view)
        if vip is None or service.owner not in view.groups or not has_virtual_servers(plan, service.owner):
            continue
        group = view.groups[service.owner].endpoints
        serving = sum(serves(service, endpoint, vip, effective.traffic.health) for endpoint in group)
        services += serving > 0
        endpoints += serving
    return HistorySample(services, endpoints, traffic)


def _write(ring: "dict[str, array[float]]", column: int, traffic: TrafficEvent | ServiceTraffic) -> None:
    for name in _TRAFFIC:
        value = getattr(traffic, name)
        ring[name][column] = _UNKNOWN if value is None else value


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 1)
