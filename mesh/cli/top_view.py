"""Turns the events of the admin API into the table of `vipmesh top`. Pure.

The busiest service comes first, followed by its endpoints that have connections. Lines that do not fit the terminal are
left out at the end, with a note. Names come from labels: characters that could move the cursor are shown as `?`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_UNITS = ("", "k", "M", "G", "T")
_COLUMNS = f"{'SERVING':>9} {'CONNECTIONS':>12} {'NEW/s':>8} {'IN/s':>8} {'OUT/s':>8}"


@dataclass(frozen=True, slots=True)
class TopRow:
    """The traffic of one service. A value that is not counted or not known yet is None."""

    name: str
    owner: str
    """The declaration that it comes from, `project/service`."""
    vip: str | None
    """The VIP; None if it was refused."""
    serving: int
    """The number of endpoints that take connections."""
    endpoints: int
    """The number of endpoints."""
    connections: int
    """Connections that are established now."""
    opened: float | None
    """New connections per second."""
    bytes_in: float | None
    """Bytes per second from clients."""
    bytes_out: float | None
    """Bytes per second to clients."""
    busy: Mapping[str, int] = field(default_factory=dict)
    """The established connections of each endpoint that has any, by its name, or its id without a name."""


@dataclass(frozen=True, slots=True)
class TopSnapshot:
    """The traffic of a worker at one moment. A value that is not counted or not known yet is None."""

    worker: str
    data_plane: str
    connections: int
    """Connections that are established now."""
    opened: float | None
    """New connections per second."""
    bytes_in: float | None
    """Bytes per second from clients."""
    bytes_out: float | None
    """Bytes per second to clients."""
    services: tuple[TopRow, ...]
    """Every service, the busiest first."""


class TopBoard:
    """Collects the events of a worker, in their order."""

    def __init__(self) -> None:
        self._worker: Mapping[str, Any] = {}
        self._services: dict[str, Mapping[str, Any]] = {}
        self._ready = False

    def take(self, name: str, event: Mapping[str, Any]) -> TopSnapshot | None:
        """Take one event. Returns what to show after a `flow` event, or None."""
        match name:
            case "worker":
                self._worker = event
            case "service":
                self._services[event["owner"]] = event
            case "gone":
                self._services.pop(event["owner"], None)
            case "ready":
                self._ready = True
            case "flow" if self._ready:
                return self._top(event)
        return None

    def _top(self, flow: Mapping[str, Any]) -> TopSnapshot:
        idle: Mapping[str, Any] = {}
        carried = {service["owner"]: service for service in flow["services"]}
        rates = flow["counted"] and flow["opened"] is not None
        rows = (self._row(service, carried.get(owner, idle), rates=rates) for owner, service in self._services.items())
        return TopSnapshot(
            self._worker["worker"],
            self._worker["data_plane"],
            flow["connections"],
            flow["opened"],
            flow["bytes_in"],
            flow["bytes_out"],
            tuple(sorted(rows, key=lambda row: (-(row.opened or 0), -row.connections, row.name, row.owner))),
        )

    @staticmethod
    def _row(service: Mapping[str, Any], carried: Mapping[str, Any], *, rates: bool) -> TopRow:
        names = {f"{e['worker']}/{e['id']}": e["name"] or e["id"] for e in service["endpoints"]}
        quiet = 0.0 if rates else None
        return TopRow(
            service["name"],
            service["owner"],
            service["vip"],
            sum(endpoint["serving"] for endpoint in service["endpoints"]),
            len(service["endpoints"]),
            carried.get("connections", 0),
            carried.get("opened", quiet),
            carried.get("bytes_in", quiet),
            carried.get("bytes_out", quiet),
            {names.get(key, key): count for key, count in carried.get("endpoints", {}).items()},
        )


def render_top(top: TopSnapshot, columns: int, lines: int) -> list[str]:
    """Return the lines of the table for a terminal of this size, at most `lines` of them."""
    serving, endpoints = sum(row.serving for row in top.services), sum(row.endpoints for row in top.services)
    flow = f"in {_octets(top.bytes_in)}  out {_octets(top.bytes_out)}"
    head = [
        f"{top.worker}  {top.data_plane}  {len(top.services)} services, {serving} of {endpoints} endpoints serving",
        f"{top.connections} connections  {_rate(top.opened)} new/s  {flow}",
        "",
        f"{'SERVICE':<32} {'VIP':<15} {_COLUMNS}",
    ]
    body = [line for row in top.services for line in _lines(row)]
    room = max(1, lines - len(head))
    if len(body) > room:
        body = [*body[: room - 1], f"... {len(body) - room + 1} more lines; enlarge the terminal or use --json"]
    return [_plain(line)[:columns] for line in (*head, *body)]


def _lines(row: TopRow) -> Iterator[str]:
    serving = f"{row.serving} of {row.endpoints}"
    rates = " ".join(f"{_rate(rate):>8}" for rate in (row.opened, row.bytes_in, row.bytes_out))
    yield f"{row.name:<32} {row.vip or 'REFUSED':<15} {serving:>9} {row.connections:>12} {rates}"
    for name, count in sorted(row.busy.items(), key=lambda pair: (-pair[1], pair[0])):
        yield f"  {name:<56} {count:>12}"


def _rate(rate: float | None) -> str:
    """Format a rate: `-` for None, else `0.4`, `17`, `1.2k`."""
    if rate is None:
        return "-"
    unit = 0
    while rate >= 999.5 and unit < len(_UNITS) - 1:
        rate, unit = rate / 1000, unit + 1
    digits = 1 if 0 < rate < 9.95 else 0
    return f"{rate:.{digits}f}{_UNITS[unit]}"


def _octets(rate: float | None) -> str:
    return "-" if rate is None else f"{_rate(rate)}B/s"


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
