"""Turns the events of the admin API into the table of `vipmesh top`. Pure.

The busiest service comes first, followed by its endpoints that have connections or traffic. Lines that do not fit the
terminal are left out at the end, with a note. In a narrow terminal names are shortened to `web.examp...`, and columns
are left out whole: no number is ever cut. Names come from labels: characters that could move the cursor are shown
as `?`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_UNITS = ("", "k", "M", "G", "T")
_CONNECTIONS = 2
"""The index of the column of connections."""
_COLUMNS = ("VIP", "SERVING", "CONNECTIONS", "NEW/s", "IN/s", "OUT/s")
_LEFT_OUT = ((), (0,), (0, 4, 5), (0, 1, 4, 5), (0, 1, 3, 4, 5), tuple(range(len(_COLUMNS))))
"""Indexes of the columns that are left out, in the order in which they are tried."""
_NAME = 24
"""Characters of a name that are worth more than another column."""


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
    rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """`opened`, `bytes_in` and `bytes_out` per second of each endpoint that has traffic, by the same names."""


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
            {names.get(key, key): dict(rates) for key, rates in carried.get("endpoint_rates", {}).items()},
        )


def render_top(top: TopSnapshot, columns: int, lines: int) -> list[str]:
    """Return the lines of the table for a terminal of this size, at most `lines` of them."""
    serving, endpoints = sum(row.serving for row in top.services), sum(row.endpoints for row in top.services)
    services = f"{len(top.services)} services, {serving} of {endpoints} endpoints serving"
    rates = (f"{_rate(top.opened)} new/s", f"in {_octets(top.bytes_in)}", f"out {_octets(top.bytes_out)}")
    paragraphs = ((top.worker, top.data_plane, services), (f"{top.connections} connections", *rates))
    head = [*(line for parts in paragraphs for line in _paragraph(parts, columns)), ""]
    if len(head) > lines // 2:
        head = [*(_shortened(_plain("  ".join(parts)), columns) for parts in paragraphs), ""]
    heading, *body = _table(top.services, columns)
    room = max(1, lines - len(head) - 1)
    if len(body) > room:
        remedy = "; enlarge the terminal or use --json"
        note = f"... {len(body) - room + 1} more lines"
        body = [*body[: room - 1], note + remedy if len(note + remedy) <= columns else note]
    return [line[:columns] for line in (*head, heading, *body)]


def _table(rows: Iterable[TopRow], columns: int) -> list[str]:
    """Return the heading and the lines of the services, none wider than `columns` unless a number alone is."""
    lines = [("SERVICE", _COLUMNS), *(line for row in rows for line in _lines(row))]
    widths = [max(len(cells[index]) for _, cells in lines) for index in range(len(_COLUMNS))]
    longest = max(len(name) for name, _ in lines)
    shown: list[int] = []
    room = columns
    for left_out in _LEFT_OUT:
        shown = [index for index in range(len(_COLUMNS)) if index not in left_out]
        room = columns - sum(widths[index] + 2 for index in shown)
        if room >= min(longest, _NAME):
            break
    name_width = max(0, min(longest, room))
    return [_line(name, cells, shown, widths, name_width) for name, cells in lines]


def _line(name: str, cells: Sequence[str], shown: Sequence[int], widths: Sequence[int], name_width: int) -> str:
    texts = [f"{_shortened(name, name_width):<{name_width}}"]
    # A VIP is a text and begins its column; numbers end theirs.
    texts += [f"{cells[index]:{'>' if index else '<'}{widths[index]}}" for index in shown]
    return "  ".join(texts).rstrip()


def _lines(row: TopRow) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the name and the cells of a service, and of each of its endpoints that has connections or traffic."""
    serving = f"{row.serving} of {row.endpoints}"
    rates = (_rate(rate) for rate in (row.opened, row.bytes_in, row.bytes_out))
    yield _plain(row.name), (_plain(row.vip or "REFUSED"), serving, str(row.connections), *rates)
    counts = {**dict.fromkeys(row.rates, 0), **row.busy}
    for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        cells = [""] * len(_COLUMNS)
        cells[_CONNECTIONS] = str(count)
        if name in row.rates:
            cells[_CONNECTIONS + 1 :] = (_rate(row.rates[name][rate]) for rate in ("opened", "bytes_in", "bytes_out"))
        yield f"  {_plain(name)}", cells


def _paragraph(parts: Iterable[str], columns: int) -> list[str]:
    """Return the parts in as few lines as they fit into; a part that fits into none is shortened."""
    lines: list[str] = []
    for part in parts:
        text = _shortened(_plain(part), columns)
        if lines and len(lines[-1]) + 2 + len(text) <= columns:
            lines[-1] += f"  {text}"
        else:
            lines.append(text)
    return lines


def _shortened(text: str, width: int) -> str:
    """Return the text, shortened to `width` characters with dots at its end if it is longer."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."[:width]


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
