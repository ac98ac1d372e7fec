"""Reads lines from the files of one log: the newest ones, or what follows a position, within bounds.

It opens the files anew each time and keeps nothing: it shares no state with what is shipped.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from mesh.platform.logs.generations import LogGeneration, open_generations
from mesh.platform.logs.json_file import LogLine, LogPosition, assemble_lines
from mesh.platform.logs.tail import split_lines
from mesh.sources.docker.inspection import start_time

FIRST_SPAN = 64 << 10
"""Bytes at the end of a file that are looked at first; four times as many each time that they do not suffice."""
LEAST_BYTES = 1 << 20
"""The least bytes that may be read of one log for an answer: more than a line has."""


class LinesWanted(NamedTuple):
    """Which lines of one log are wanted, and what may be read for them."""

    lines: int
    since: int = 0
    """In nanoseconds since 1970."""
    pattern: str = ""
    most_bytes: int = LEAST_BYTES
    is_late: Callable[[], bool] = lambda: False
    """Whether the time of the question is over."""


class FoundLines(NamedTuple):
    """What was read of one log."""

    lines: Sequence[LogLine]
    """In their order."""
    end: LogPosition | None
    """Where the rest begins; None if there is no file yet."""
    last_time: int = 0
    """When the last line was written that was looked at, in nanoseconds since 1970; 0 if it is not known."""
    is_cut: bool = False
    """Whether older lines were not looked at, because of the bounds."""
    more: bool = False
    """Whether further lines follow at once."""
    is_gap: bool = False
    """Whether rotation has removed the file of the position."""


def read_newest(path: Path, wanted: LinesWanted) -> FoundLines:
    """Return the newest lines. Raises `OSError`."""
    parts: list[Sequence[LogLine]] = []
    seen: set[str] = set()
    end, last_time, found, left, is_cut = None, 0, 0, wanted.most_bytes, False
    with closing(open_generations(path)) as generations:
        for generation in generations:
            with closing(generation):
                if generation.fingerprint in seen:
                    continue
                part = _end_of(generation, wanted, wanted.lines - found, left, is_newest=not seen)
                seen.add(generation.fingerprint)
            end = end or part.end
            last_time = last_time or part.last_time
            parts.append(part.lines)
            found, left, is_cut = found + len(part.lines), left - part.read, part.is_cut
            if found >= wanted.lines or part.is_over:
                break
            if left <= 0 or wanted.is_late():
                is_cut = True
                break
    lines = [line for part in reversed(parts) for line in part]
    return FoundLines(lines[max(0, len(lines) - wanted.lines) :], end, last_time, is_cut)


def read_following(path: Path, after: LogPosition | None, wanted: LinesWanted) -> FoundLines:
    """Return the lines that follow a position, None: all lines; `wanted.lines` is no bound here. Raises `OSError`."""
    with _opened_from(path, after) as (generations, is_gap):
        lines: list[LogLine] = []
        end, left, last_time = after, wanted.most_bytes, 0
        for number, generation in enumerate(generations):
            offset = after.offset if after is not None and generation.fingerprint == after.generation else 0
            if generation.unread(offset) < 0 and not generation.is_compressed:
                offset = 0  # it was cut, and begins again
            data = generation.read(offset, left)
            is_whole = len(data) < left
            is_newest = number == len(generations) - 1
            kept = data if is_whole and not is_newest else data[: data.rfind(b"\n") + 1]
            found = assemble_lines(split_lines(kept, generation.fingerprint, offset), final=is_whole and not is_newest)
            end = found.end or LogPosition(generation.fingerprint, offset)
            lines += (line for line in found.lines if _is_wanted(line, wanted))
            last_time = _last_time(found.lines) or last_time
            left -= len(data)
            if not is_whole or left <= 0 or wanted.is_late():
                # What is left may be less than a line: then the next answer begins with it.
                more = end != after and not (is_whole and is_newest)
                return FoundLines(lines, end, last_time, more=more, is_gap=is_gap)
        return FoundLines(lines, end, last_time, is_gap=is_gap)


@contextmanager
def _opened_from(path: Path, after: LogPosition | None) -> Iterator[tuple[Sequence[LogGeneration], bool]]:
    """Open the files from that of a position on, the oldest first; and whether that one is missing."""
    opened: dict[str, LogGeneration] = {}
    try:
        is_found = after is None
        with closing(open_generations(path)) as generations:
            for generation in generations:
                if generation.fingerprint in opened:
                    generation.close()
                    continue
                opened[generation.fingerprint] = generation
                if after is not None and generation.fingerprint == after.generation:
                    is_found = True
                    break
        yield tuple(reversed(opened.values())), not is_found and bool(opened)
    finally:
        for each in opened.values():
            each.close()


class _FileEnd(NamedTuple):
    lines: Sequence[LogLine]
    end: LogPosition
    last_time: int
    read: int
    """Bytes that were read."""
    is_cut: bool
    is_over: bool
    """Whether all older lines were written before the time that is asked for."""


def _end_of(generation: LogGeneration, wanted: LinesWanted, most: int, left: int, *, is_newest: bool) -> _FileEnd:
    """Return the newest lines of one file."""
    whole = left if generation.is_compressed else max(0, generation.unread(0))
    span = whole if generation.is_compressed else FIRST_SPAN
    read = 0
    while True:
        start = 0 if generation.is_compressed else max(0, whole - span)
        data = generation.read(start, whole - start)
        read += len(data)
        begin = data.find(b"\n") + 1 if start else 0
        stop = data.rfind(b"\n") + 1 if is_newest else len(data)
        stored = split_lines(data[begin:stop], generation.fingerprint, start + begin)
        found = assemble_lines(stored, final=not is_newest)
        lines = _without_first(found.lines) if start else found.lines
        first_time = start_time(lines[0].time) if lines else None
        is_over = first_time is not None and first_time < wanted.since
        kept = [line for line in lines if _is_wanted(line, wanted)]
        if not start or len(kept) >= most or is_over or read + 4 * span > left or wanted.is_late():
            # Of a compressed file the beginning is read, and its end may be beyond the bound.
            is_cut = bool(start) and len(kept) < most and not is_over
            is_cut = is_cut or (generation.is_compressed and len(data) >= whole)
            end = found.end or LogPosition(generation.fingerprint, start + begin)
            return _FileEnd(kept, end, _last_time(found.lines), read, is_cut, is_over)
        span *= 4


def _without_first(lines: Sequence[LogLine]) -> Sequence[LogLine]:
    """Leave out the first line of each stream: its beginning may lie before what was read."""
    seen: set[str] = set()
    kept = []
    for line in lines:
        if line.stream in seen:
            kept.append(line)
        seen.add(line.stream)
    return kept


def _is_wanted(line: LogLine, wanted: LinesWanted) -> bool:
    if wanted.pattern and wanted.pattern not in line.text:
        return False
    return not wanted.since or (start_time(line.time) or wanted.since) >= wanted.since


def _last_time(lines: Sequence[LogLine]) -> int:
    return (start_time(lines[-1].time) or 0) if lines else 0
