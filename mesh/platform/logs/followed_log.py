"""One log that is collected: its file, its labels, and what is read of it for the next batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.platform.logs.counters import ServiceLogCounters
from mesh.platform.logs.documents import LogDocument, make_documents
from mesh.platform.logs.json_file import AssembledLines, LogLine, LogPosition, StoredLine, assemble_lines
from mesh.platform.logs.line_rate import LineRateLimit
from mesh.platform.logs.tail import LONGEST_LINE, ContainerTail
from mesh.platform.logs.targets import LogTarget
from mesh.sources.docker.inspection import start_time


@dataclass(frozen=True, slots=True)
class LogTurn:
    """What one log has for a batch."""

    documents: tuple[LogDocument, ...]
    end: LogPosition
    """The position once they are delivered."""
    last_time: int | None
    """When the last line was written, in nanoseconds since 1970; None if it is not known."""


class FollowedLog:
    """Reads documents from the log of a container."""

    def __init__(self, target: LogTarget, position: LogPosition | None, counters: ServiceLogCounters) -> None:
        """`position` is that of an earlier process; None: from the beginning."""
        self.target = target
        self.tail = ContainerTail(Path(target.path), position)
        self.counters = counters
        self.is_removed = False
        """Whether the engine has no such container any more."""
        self.last_time: int | None = None
        """When the last line was written that the store has, in nanoseconds since 1970."""
        self.is_limited = False
        """Whether lines of the last turn were dropped because of `log.rate_limit`."""
        limit = target.labels.rate_limit
        self._rate = None if limit is None else LineRateLimit(limit)

    def take_turn(self, limit: int, read_at: str, clock: Callable[[], float]) -> LogTurn | None:
        """Read about `limit` bytes and return their documents; None if no line is complete. Raises `OSError`.

        `read_at` is the time of lines without one; `clock` is monotonic, in seconds.
        """
        if not self.tail.has_more():
            return None
        found = self._assemble(limit, final=self.is_removed or not self.target.runs)
        if found is None or found.end is None:
            return None
        self.counters.split += found.split
        self.counters.unreadable += found.unreadable
        lines: Sequence[LogLine] = found.lines
        if self._rate is not None:
            admitted = self._rate.admit(len(lines), clock())
            self.counters.limited += len(lines) - admitted
            self.is_limited = admitted < len(lines)
            lines = lines[:admitted]
        documents = make_documents(lines, self.target.origin, self.target.labels, read_at)
        last = found.lines[-1].time if found.lines else None
        return LogTurn(documents, found.end, start_time(last))

    def _assemble(self, limit: int, *, final: bool) -> AssembledLines | None:
        """Read more and more until a line is complete, and at the end take it as it is."""
        stored: list[StoredLine] = []
        for size in (limit, LONGEST_LINE):
            stored, is_all = self.tail.read(size)
            if not stored and is_all:
                return None
            found = assemble_lines(stored, final=final and is_all)
            if found.end is not None:
                return found
            if is_all:
                return None
        return assemble_lines(stored, final=True)
