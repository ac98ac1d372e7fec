"""Lays out the status of a worker for people: what is wrong first, in columns that fit the terminal. Pure.

A line is a sequence of words with their styles; what prints it decides whether styles become colours. Where the columns
do not fit, each row is a paragraph: nothing is cut off.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias

from mesh.cli.output import printable
from mesh.cli.status_document import EndpointRow, LogsRow, Notice, ServiceRow, StatusDocument

FEW_ENDPOINTS = 20
"""Up to this many endpoints are listed unasked; of more only those of services in trouble."""
SHOWN_PORTS = 3
"""The most ports of a service in its row, unless it was asked for."""
_GAP = "  "
_RANKS = ("error", "warning", "good")
_SERVICE_COLUMNS = ("SERVICE", "VIP", "PORTS", "SERVING", "CONNECTIONS")
_ENDPOINT_COLUMNS = (
    "  ENDPOINT",
    "WORKER",
    "ADDRESS",
    "STATE",
    "SINCE",
    "LAST PROBE",
    "WEIGHT",
    "RELEASE",
    "CONNECTIONS",
)
_COUNTER_COLUMNS = ("OPENED", "BYTES IN", "BYTES OUT")
"""Columns of endpoints that are shown if they are asked for."""
_NAMED = frozenset({"SERVING", "SINCE", "LAST PROBE", "WEIGHT", "RELEASE", "CONNECTIONS", *_COUNTER_COLUMNS})
"""Columns whose values are not understood without their title."""


class Word(NamedTuple):
    """A piece of a line."""

    text: str
    style: str = ""
    """`error`, `warning`, `good`, `head`, `quiet`, or empty for none."""


Line: TypeAlias = Sequence[Word]
Row: TypeAlias = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class StatusLayout:
    """How the status is to be shown."""

    width: int | None = None
    """The columns of the terminal; None if there is none: lines are as long as they are."""
    now: datetime | None = None
    """The time by the daemon's clock; None if it is not known: ages are left out."""
    endpoints: bool = False
    """Whether the endpoints of all services are listed, with all ports."""
    only_problems: bool = False
    """Whether services that are well are left out."""
    measure: Callable[[str], int] = len
    """Returns how many columns a text takes."""


def render_status(status: StatusDocument, layout: StatusLayout) -> Iterator[Line]:
    """Yield the lines of a status."""
    for line in _summary(status):
        yield from _wrapped(line, layout)
    for notice in status.conditions:
        yield from _notice_lines(notice, layout)
    shown = sorted(status.services, key=lambda service: (service.rank, service.name, service.owner))
    if layout.only_problems:
        shown = [service for service in shown if service.rank < 2]
    if shown:
        yield ()
        yield from _table(shown, layout)


def _summary(status: StatusDocument) -> Iterator[Line]:
    """Yield what there is in all, and how much of it is wrong."""
    services, ranks = status.services, Counter(service.rank for service in status.services)
    endpoints = [endpoint for service in services for endpoint in service.endpoints]
    levels = Counter(notice.severity for notice in status.conditions)
    if status.digest is None and not services:
        about = Word("no services are known yet: no pass has ended since the start", "warning")
    elif not services:
        about = Word("no services")
    else:
        serving = sum(endpoint.serving for endpoint in endpoints)
        about = Word(
            f"{_count(len(services), 'service')}, {len(services) - ranks[0]} serving; "
            f"{_count(len(endpoints), 'endpoint')}, {serving} serving",
            _RANKS[min(ranks)],
        )
    wrong = [Word(f"; {_count(levels[level], level)}", level) for level in ("error", "warning") if levels[level]]
    if not wrong and ranks[0]:
        first = min(service.name for service in services if not service.rank)
        wrong = [Word(f"; `vipmesh explain {first}` says why", "error")]
    yield (Word(f"{status.worker}: ", "head"), about, *(wrong or [Word("; no problems", "good")]))
    facts = [f"vipmesh {status.version}", f"{status.data_plane}: {status.data_plane_reason}"]
    if status.digest is not None:
        facts.append(f"digest {status.digest}")
    if len(status.workers) > 1:
        running = len({endpoint.worker for service in services for endpoint in service.endpoints})
        facts.append(f"{len(status.workers)} workers, {running} with endpoints shown here")
    if status.acting is not None:
        facts.append(f"{status.acting} acts for the swarm")
    if status.repairs:
        facts.append(f"{_count(status.repairs, 'change')} from outside reverted")
    if status.logs is not None:
        facts.append(_logs(status.logs))
    yield (Word("; ".join(facts), "quiet"),)


def _logs(logs: LogsRow) -> str:
    """Return how far the collection of logs is: what was lost and refused only if anything was."""
    if not logs.answers:
        return "logs are not collected"
    parts = [f"{_count(logs.logs, 'log')} collected"]
    parts += [f"{logs.lag_seconds:.0f} s behind"] if logs.lag_seconds >= 1 else []
    parts += [f"{logs.lost} times lost"] if logs.lost else []
    parts += [f"{_count(logs.refused, 'line')} refused"] if logs.refused else []
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _notice_lines(notice: Notice, layout: StatusLayout) -> Iterator[Line]:
    kind = {"frozen": "frozen", "suspicion": "suspected", "failure": "the data plane refused"}.get(notice.kind)
    code = "" if notice.code is None else f" [{notice.code}]"
    text = notice.text if kind is None else f"{notice.severity}: {kind}: {notice.text}"
    yield from _wrapped((Word(text + code, notice.severity),), layout)


def _table(services: Sequence[ServiceRow], layout: StatusLayout) -> Iterator[Line]:
    few = sum(len(service.endpoints) for service in services) <= FEW_ENDPOINTS
    rows = [_service_row(service, layout) for service in services]
    listed = [
        [_endpoint_row(endpoint, layout) for endpoint in service.endpoints]
        if few or layout.endpoints or service.rank < 2
        else []
        for service in services
    ]
    beneath = [row for group in listed for row in group]
    inner = _endpoint_columns(layout)
    upper, lower = _widths(_SERVICE_COLUMNS, rows, layout), _widths(inner, beneath, layout)
    yield from _row(tuple(Word(each, "head") for each in _SERVICE_COLUMNS), upper, _SERVICE_COLUMNS, layout)
    if beneath:
        yield from _row(tuple(Word(each, "quiet") for each in inner), lower, inner, layout)
    for service, row, group in zip(services, rows, listed, strict=True):
        yield from _row(row, upper, _SERVICE_COLUMNS, layout)
        if len(service.names) > 1 and layout.endpoints:
            yield from _wrapped((Word(f"  names: {' '.join(service.names)}", "quiet"),), layout)
        if any(each.given is not None for each in service.releases):
            shares = ", ".join(f"{each.release or '(no release)'} {each.share:g} %" for each in service.releases)
            yield from _wrapped((Word(f"  shares: {shares}"),), layout)
        if service.not_arriving:
            text = f"  requests do not arrive from {', '.join(service.not_arriving)}"
            yield from _wrapped((Word(text, "warning"),), layout)
        for each in group:
            yield from _row(each, lower, inner, layout)


def _endpoint_columns(layout: StatusLayout) -> tuple[str, ...]:
    return _ENDPOINT_COLUMNS + _COUNTER_COLUMNS if layout.endpoints else _ENDPOINT_COLUMNS


def _service_row(service: ServiceRow, layout: StatusLayout) -> Row:
    style = _RANKS[service.rank]
    counts = [endpoint.connections for endpoint in service.endpoints if endpoint.connections is not None]
    ports = list(dict.fromkeys(_port(each) for each in service.virtual_servers))
    ports += [f"*:{each.removesuffix('/tcp')}" for each in service.published]
    if len(ports) > SHOWN_PORTS and not layout.endpoints:
        ports = [*ports[: SHOWN_PORTS - 1], f"+{len(ports) - SHOWN_PORTS + 1}"]
    return (
        _cell(service.name),
        _cell(service.vip or "REFUSED", "" if service.vip else "error"),
        _cell(" ".join(ports) or "-"),
        _cell(f"{service.serving}/{len(service.endpoints)}", style),
        _cell(str(sum(counts)) if counts or not service.endpoints else "-"),
    )


def _port(virtual_server: str) -> str:
    """Return the port of `tcp://10.112.0.7:80`, with its transport unless that is TCP."""
    transport, _, rest = virtual_server.partition("://")
    port = rest.rpartition(":")[2]
    return port if transport == "tcp" else f"{port}/{transport}"


def _endpoint_row(endpoint: EndpointRow, layout: StatusLayout) -> Row:
    now = layout.now
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    probe = endpoint.last_probe or "-"
    counters = (endpoint.opened, endpoint.bytes_in, endpoint.bytes_out) if layout.endpoints else ()
    if endpoint.last_probe and (age := _age(endpoint.last_probe_at, now)) is not None:
        probe = f"{probe}, {age} ago"
    return (
        _cell(f"  {endpoint.name or endpoint.id}"),
        _cell(endpoint.worker),
        _cell(address if endpoint.port is None else f"{address}:{endpoint.port}"),
        _cell(_state(endpoint), _style(endpoint)),
        _cell(_age(endpoint.since, now) or "-"),
        _cell(probe),
        _cell(_weight(endpoint, now)),
        _cell(endpoint.release or "-"),
        _cell(_number(endpoint.connections)),
        *(_cell(_number(count)) for count in counters),
    )


def _weight(endpoint: EndpointRow, now: datetime | None) -> str:
    """Return the weight; of an endpoint that ramps also how much of it counts, and for how long: `3, 40 % for 12 s`."""
    percent = endpoint.slow_start_percent
    if percent is None:
        return str(endpoint.weight)
    left = _seconds_left(endpoint.slow_start_until, now)
    return f"{endpoint.weight}, {percent} %" + ("" if left is None else f" for {left} s")


def _seconds_left(until: str | None, now: datetime | None) -> int | None:
    if until is None or now is None:
        return None
    try:
        return max(0, int((datetime.fromisoformat(until) - now).total_seconds()))
    except (ValueError, TypeError, OverflowError):
        return None


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)


def _state(endpoint: EndpointRow) -> str:
    if endpoint.drain:
        return f"draining: {endpoint.drain}"
    if endpoint.programming:
        return "being programmed"
    state = endpoint.health if endpoint.serving or endpoint.health != "healthy" else "healthy, not serving"
    if endpoint.kept:
        return f"{state}, kept in traffic"
    return f"{state}, held back" if endpoint.held_back else state


def _style(endpoint: EndpointRow) -> str:
    if endpoint.serving:
        return "warning" if endpoint.kept or endpoint.held_back else "good"
    return "error" if endpoint.health == "unhealthy" else "warning"


def _age(at: str | None, now: datetime | None) -> str | None:
    """Return how long ago this was: `7 s`, `3 min`, `2 h`, `5 d`; None if it is not known."""
    if at is None or now is None:
        return None
    try:
        seconds = max(0, int((now - datetime.fromisoformat(at)).total_seconds()))
    except (ValueError, TypeError, OverflowError):
        return None
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


# ------------------------------------------------------------------------------------------------------ columns


def _widths(head: Sequence[str], rows: Sequence[Row], layout: StatusLayout) -> Sequence[int] | None:
    """Return the width of each column; None if they do not fit: then each row is a paragraph.

    The first column is as wide as is left. A longer text in it has a line of its own.
    """
    texts = zip(*((word.text for word in row) for row in rows), strict=True) if rows else ((),) * len(head)
    widths = [max(map(layout.measure, (title, *column))) for title, column in zip(head, texts, strict=True)]
    if layout.width is None:
        return widths
    left = layout.width - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
    if left < len(head[0]) + 6:
        return None
    return [min(widths[0], left), *widths[1:]]


def _row(row: Row, widths: Sequence[int] | None, head: Sequence[str], layout: StatusLayout) -> Iterator[Line]:
    if widths is None:
        yield from _paragraph(row, head, layout)
        return
    line: list[Word] = []
    for index, (word, width) in enumerate(zip(row, widths, strict=True)):
        text, taken = word.text, layout.measure(word.text)
        if index == 0 and taken > width:
            yield from _wrapped((Word(text, word.style),), layout)
            text, taken = "", 0
        line.append(Word(text, word.style))
        if index < len(row) - 1:
            line.append(Word(" " * (width - taken) + _GAP))
    yield line


def _paragraph(row: Row, head: Sequence[str], layout: StatusLayout) -> Iterator[Line]:
    """Yield a row as text: its first word, then the others, each with its title where it would not be understood."""
    if row[0].text == head[0]:
        return  # no columns, no titles
    inner = " " * (4 if head[0] == _ENDPOINT_COLUMNS[0] else 2)
    yield from _wrapped(row[:1], layout)
    line: list[Word] = []
    taken = 0
    for word, title in zip(row[1:], head[1:], strict=True):
        if word.text == "-":
            continue
        text = f"{title.lower()} {word.text}" if title in _NAMED else word.text
        size = len(_GAP) + layout.measure(text)
        if line and layout.width is not None and len(inner) + taken + size > layout.width:
            yield from _wrapped(line, layout, inner)
            line, taken = [], 0
        line += [Word(_GAP if line else inner), Word(text, word.style)]
        taken += size
    if line:
        yield from _wrapped(line, layout, inner)


def _wrapped(line: Iterable[Word], layout: StatusLayout, indent: str = "  ") -> Iterator[Line]:
    """Yield a line, escaped, and wrapped if it is too long; a wrapped one has the style of its first word."""
    words = [Word(_clean(word.text), word.style) for word in line]
    whole = "".join(word.text for word in words)
    if layout.width is None or layout.measure(whole) <= layout.width:
        yield words
        return
    import textwrap  # most lines fit

    style = next((word.style for word in words if word.style), "")
    room = max(layout.width, len(indent) + 1)
    for each in textwrap.wrap(
        whole, room, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True, replace_whitespace=False
    ):
        yield (Word(each, style),)


def _cell(text: str, style: str = "") -> Word:
    return Word(_clean(text), style)


def _clean(text: str) -> str:
    """Return text that stays on its line, whatever its source."""
    return text if text.isprintable() else printable(text).replace("\n", "\\n")
