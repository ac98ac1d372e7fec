"""Reads what the engine's log driver `json-file` writes: one JSON object on each line of a file. Pure.

    {"log":"a line\\n","stream":"stdout","time":"2026-11-30T11:59:16.358097495Z"}

The driver cuts lines after 16 KiB: all parts but the last lack the line feed. The parts of standard output and of
standard error may alternate. They are joined here without any state: what is not complete is not consumed, and is read
again from the file together with what follows. So a restart at any point gives the same lines with the same places.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from mesh.sources.docker.inspection import start_time

MAX_TEXT = 64 * 1024
"""Characters of one document. Longer lines become several documents, and are counted."""


class LogPosition(NamedTuple):
    """A place in the log of a container."""

    generation: str
    """Which file of the rotation it is: the fingerprint of its first line, 16 hexadecimal digits."""
    offset: int
    """Bytes from the beginning of the file, as it is before compression."""


class StoredLine(NamedTuple):
    """A line of the driver's file, as bytes."""

    start: LogPosition
    end: LogPosition
    """Behind its line feed."""
    data: bytes


class LogLine(NamedTuple):
    """A line that a container has written, its parts joined."""

    start: LogPosition
    """The place of its first part, which identifies it."""
    text: str
    """Without the line feed."""
    stream: str
    """`stdout` or `stderr`; `unknown` if the driver's line cannot be read."""
    time: str | None
    """`2026-11-30T11:59:16.358097495Z` as the engine wrote it; None if it has not, or not in this form."""


class DriverEntry(msgspec.Struct, frozen=True):
    """One line of the file."""

    log: str
    stream: str = "unknown"
    time: str = ""


@dataclass(frozen=True, slots=True)
class AssembledLines:
    """What can be delivered of some lines of the file."""

    lines: tuple[LogLine, ...]
    """In the order in which they began."""
    end: LogPosition | None
    """Everything before it is in `lines`, and nothing behind it; None if nothing is."""
    split: int = 0
    """How many documents are a part of a line that is too long, or whose end never came."""
    unreadable: int = 0
    """How many lines of the file are not of the driver's form. They are lines all the same, as they are."""


@dataclass(slots=True)
class _OpenLine:
    first: int
    """The index of its first part."""
    last: int
    time: str
    stream: str
    parts: list[str] = field(default_factory=list)
    size: int = 0

    def finish(self, start: LogPosition) -> LogLine:
        text = "".join(self.parts)
        time = self.time if start_time(self.time) is not None else None
        return LogLine(start, text.removesuffix("\n"), self.stream, time)


def parse_entry(data: bytes) -> DriverEntry | None:
    """Return the entry in a line of the file; None if it is not of the driver's form."""
    try:
        return msgspec.json.decode(data, type=DriverEntry)
    except (ValueError, RecursionError):  # `MsgspecError` and `UnicodeDecodeError` are a `ValueError`
        return None


def assemble_lines(stored: Sequence[StoredLine], *, final: bool) -> AssembledLines:
    """Join the parts of lines. `final`: nothing follows, so what is not complete is a line, too."""
    begun: dict[str, _OpenLine] = {}
    done: list[_OpenLine] = []
    split = unreadable = 0
    for index, line in enumerate(stored):
        entry = parse_entry(line.data)
        if entry is None:
            unreadable += 1
            entry = DriverEntry(line.data[:MAX_TEXT].decode(errors="replace") + "\n")
        stream = entry.stream if entry.stream in ("stdout", "stderr") else "unknown"
        current = begun.pop(stream, None)
        if current is not None and current.size + len(entry.log) > MAX_TEXT:
            done.append(current)
            split += 1
            current = None
        if current is None:
            current = _OpenLine(index, index, entry.time, stream)
        current.parts.append(entry.log)
        current.size += len(entry.log)
        current.last = index
        if entry.log.endswith("\n"):
            done.append(current)
        else:
            begun[stream] = current
    if final:
        split += len(begun)
        done += begun.values()
        begun = {}
    boundary = _boundary(done, min((each.first for each in begun.values()), default=len(stored)))
    ready = sorted((each for each in done if each.first < boundary), key=lambda each: each.first)
    end = stored[boundary - 1].end if boundary else None
    return AssembledLines(tuple(each.finish(stored[each.first].start) for each in ready), end, split, unreadable)


def _boundary(done: Sequence[_OpenLine], boundary: int) -> int:
    """Return the largest index up to `boundary` that no line lies across: such a line would be delivered twice."""
    for each in sorted(done, key=lambda each: -each.last):
        if each.first < boundary <= each.last:
            boundary = each.first
    return boundary
