"""Cuts the bytes of a file into lines, and joins lines to events. Pure.

No state is kept: what is not complete is not consumed, and is read again from the file together with what follows. So a
restart at any point gives the same events at the same offsets.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_EVENT = 64 * 1024
"""Bytes of a line, or of an event of several lines. What is longer is cut into several."""
MAX_EVENT_LINES = 500
"""Lines of an event."""
COMPARED = 256
"""Bytes at the beginning of a line that are compared with the pattern."""
_ZEROS = re.compile(rb"\0+")


class FileEvent(NamedTuple):
    """A line, or several that belong together."""

    start: int
    """Bytes from the beginning of the file, which identify it."""
    text: str
    """Without the last line feed. Bytes that are no UTF-8 are replaced."""


@dataclass(frozen=True, slots=True)
class FileEvents:
    """What can be delivered of some bytes of a file."""

    events: tuple[FileEvent, ...]
    end: int
    """Everything before it is in `events`, and nothing behind it; where the bytes begin if nothing is."""
    split: int = 0
    """How many events are a part of something longer."""
    is_forced: bool = False
    """Whether the last event ended only because nothing followed: what follows later is no part of it."""


class _Line(NamedTuple):
    start: int
    end: int
    """Behind its line feed."""
    is_cut: bool
    """Whether it goes on: it is longer than an event."""
    is_whole: bool
    """Whether its line feed is there."""


@dataclass(slots=True)
class _OpenEvent:
    start: int
    end: int
    lines: int = 1

    def has_room_for(self, line: _Line) -> bool:
        return line.end - self.start <= MAX_EVENT and self.lines < MAX_EVENT_LINES


@dataclass(frozen=True, slots=True)
class EventRules:
    """How lines of a file become events."""

    begins: Callable[[bytes], object] | None = None
    """Whether an event begins with this line; None: each line is one."""
    is_over: Callable[[], bool] = lambda: False
    """Whether the time of this turn is over: comparing lines with a pattern takes as long as the pattern makes it."""
    is_idle: bool = False
    """Whether nothing was written for so long that the last event is complete, though not a line without its end."""


_EACH_LINE = EventRules()


def cut_events(data: bytes, offset: int, *, final: bool, rules: EventRules = _EACH_LINE) -> FileEvents:
    """Cut `data`, which begins at `offset` of its file. `final`: nothing follows, so an incomplete line is one, too.

    `data` must have more than `MAX_EVENT` bytes, or all that there are, and not end in zeros.
    """
    if rules.begins is not None:
        return _join(data, offset, rules, rules.begins, final=final)
    events = []
    end, split, is_forced = _after_zeros(data, 0), 0, False
    for line in _lines(data, final=final):
        events.append(_event(data, offset, line.start, line.end))
        end, split = _after_zeros(data, line.end), split + line.is_cut
        is_forced = not (line.is_whole or line.is_cut)
    return FileEvents(tuple(events), offset + end, split, is_forced)


def _join(data: bytes, offset: int, rules: EventRules, begins: Callable[[bytes], object], *, final: bool) -> FileEvents:
    events: list[FileEvent] = []
    current: _OpenEvent | None = None
    split, end = 0, _after_zeros(data, 0)
    is_closed = final or rules.is_idle
    for line in _lines(data, final=final):
        if current is not None:
            is_first = begins(_text(data, line.start, min(line.end, line.start + COMPARED))) is not None
            if not is_first and current.has_room_for(line):
                current.end, current.lines = line.end, current.lines + 1
            else:
                split += not is_first
                events.append(_event(data, offset, current.start, current.end))
                end = _after_zeros(data, current.end)
                current = None
        if current is None:
            current = _OpenEvent(line.start, line.end)
        if rules.is_over():
            # The next turn goes on with this event, unless the pattern is so slow that none would ever end.
            is_closed = not events
            break
    if is_closed and current is not None:
        events.append(_event(data, offset, current.start, current.end))
        return FileEvents(tuple(events), offset + current.end, split, is_forced=True)
    return FileEvents(tuple(events), offset + end, split)


def _lines(data: bytes, *, final: bool) -> Iterator[_Line]:
    start = 0
    while (start := _after_zeros(data, start)) < len(data):
        feed = data.find(b"\n", start, start + MAX_EVENT + 1)
        if feed >= 0:
            yield _Line(start, feed + 1, is_cut=False, is_whole=True)
            start = feed + 1
        elif len(data) - start > MAX_EVENT:
            end = _character_boundary(data, start + MAX_EVENT)
            yield _Line(start, end, is_cut=True, is_whole=False)
            start = end
        else:
            if final:
                yield _Line(start, len(data), is_cut=False, is_whole=False)
            return


def _after_zeros(data: bytes, start: int) -> int:
    """Return where a line begins. Zeros are where a program has written nothing: before the end of the data it has
    begun further on, since its file was cut; at the end something may be written yet.
    """
    match = _ZEROS.match(data, start)
    return start if match is None or match.end() == len(data) else match.end()


def _character_boundary(data: bytes, end: int) -> int:
    """Return where the character of UTF-8 begins that `end` lies in."""
    for back in range(4):
        if data[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def _event(data: bytes, offset: int, start: int, end: int) -> FileEvent:
    return FileEvent(offset + start, _text(data, start, end).decode(errors="replace"))


def _text(data: bytes, start: int, end: int) -> bytes:
    return data[start:end].removesuffix(b"\n").removesuffix(b"\r")
