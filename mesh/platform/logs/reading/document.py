"""The lines of a service: of one worker, and of several, merged by time within bounds. Pure.

The lines of one instance keep the order in which they were written, also if its clock jumps back: a line counts as
written no earlier than the one before it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import merge

from mesh.model.codes import Code
from mesh.sources.docker.inspection import start_time

MAX_TEXT_CHARACTERS = 4 << 20
"""The most characters of all lines of an answer."""


@dataclass(frozen=True, slots=True)
class ServiceLogLine:
    """A line that an instance of a service has written."""

    text: str
    """As it was written, control characters included: whoever shows it must escape them."""
    container: str
    worker: str
    service: str
    """`project/service`; the container's name if it is of no service."""
    stream: str = "unknown"
    """`stdout` or `stderr`."""
    time: str | None = None
    """As the engine wrote it, `2026-11-30T11:59:16.358097495Z`; None if it is not known."""


@dataclass(frozen=True, slots=True)
class ServiceLogNote:
    """Why lines may be missing, and what to do."""

    text: str
    code: str


@dataclass(frozen=True, slots=True)
class WorkerLogDocument:
    """The lines of a service on one worker."""

    worker: str
    source: str
    """`ship`: from the files; `engine`: by the engine's API; `none`: there is neither."""
    services: tuple[str, ...] = ()
    """What the name means on this worker."""
    lines: tuple[ServiceLogLine, ...] = ()
    """By time, the oldest first."""
    cursor: str = ""
    """What to send as `after` for the lines that follow."""
    more: bool = False
    """Whether further lines follow at once."""
    notes: tuple[ServiceLogNote, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedLogWorker:
    """What came of asking a worker for lines."""

    worker: str
    source: str = "none"
    error: str | None = None
    """Why its lines are missing, and what to do; None if they are here."""
    code: str | None = None
    """The code of the error."""
    notes: tuple[ServiceLogNote, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceLogDocument:
    """The document of `vipmesh logs --json`."""

    worker: str
    """The worker that asked the others."""
    now: float
    """The time on its clock, in seconds since 1970."""
    lines: tuple[ServiceLogLine, ...] = ()
    """Of all workers, by time, the oldest first."""
    workers: tuple[AskedLogWorker, ...] = ()
    """The workers that were asked, by name."""
    dropped: int = 0
    """The oldest lines of the answers, which were left out because more were found than asked for."""


def note(text: str, code: Code) -> ServiceLogNote:
    """Return a note with its code as text."""
    return ServiceLogNote(text, str(code))


def merge_lines(
    lines: Iterable[ServiceLogLine], most: int, characters: int = MAX_TEXT_CHARACTERS
) -> tuple[tuple[ServiceLogLine, ...], int]:
    """Return lines by time, and how many of the oldest are left out.

    `lines` has those of each instance in their order. Of these, the newest `most` stay, and no more than have so many
    characters together.
    """
    instances: dict[tuple[str, str, str], list[tuple[int, ServiceLogLine]]] = {}
    for line in lines:
        known = instances.setdefault((line.worker, line.service, line.container), [])
        before = known[-1][0] if known else 0
        known.append((max(before, start_time(line.time) or 0), line))
    merged = [line for _, line in merge(*(instances[key] for key in sorted(instances)), key=lambda each: each[0])]
    kept = _newest(merged, most, characters)
    return tuple(kept), len(merged) - len(kept)


def _newest(lines: Sequence[ServiceLogLine], most: int, characters: int) -> Sequence[ServiceLogLine]:
    first = max(0, len(lines) - most)
    left = characters
    for index in range(len(lines) - 1, first - 1, -1):
        left -= len(lines[index].text)
        if left < 0:
            return lines[index + 1 :]
    return lines[first:]
