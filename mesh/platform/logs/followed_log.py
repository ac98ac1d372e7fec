"""The standard output of one container: its file, its labels, and what is read of it for the next batch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mesh.model.problem import Problem
from mesh.platform.logs.counters import ServiceLogCounters
from mesh.platform.logs.documents import PlainDocuments, make_documents, make_plain_documents
from mesh.platform.logs.json_file import AssembledLines, LogPosition, assemble_lines
from mesh.platform.logs.line_rate import LineRateLimit
from mesh.platform.logs.plain_lines import LogBlock, PlainLines, read_plain_lines
from mesh.platform.logs.reader import LogTurn
from mesh.platform.logs.tail import LONGEST_LINE, ContainerTail, LostLines, lines_of
from mesh.platform.logs.targets import LogTarget
from mesh.sources.docker.inspection import start_time


class FollowedLog:
    """Reads documents from the log of a container."""

    def __init__(
        self,
        target: LogTarget,
        position: LogPosition | None,
        counters: ServiceLogCounters,
        rate: LineRateLimit | None,
        clock: Callable[[], float],
    ) -> None:
        """`position` is that of an earlier process; None: from the beginning. `rate` is that of the container, and
        `clock` monotonic, in seconds.
        """
        self.target = target
        self.tail = ContainerTail(Path(target.path), position)
        self.counters = counters
        self.is_removed = False
        self.last_time: int | None = None
        self.is_limited = False
        self.rate = rate
        self._clock = clock

    def follow(self) -> None:
        """Open the files that a rotation has made. Raises `OSError`."""
        self.tail.follow()

    def take_turn(self, limit: int, read_at: str) -> LogTurn | None:
        """Read about `limit` bytes and return their documents; None if no line is complete. Raises `OSError`."""
        if not self.tail.has_more():
            return None
        blocks, is_all = self.tail.read_blocks(limit)
        plain = [found for each in blocks if (found := read_plain_lines(each)) is not None]
        if plain and len(plain) == len(blocks):
            return self._plain_turn(plain)
        assembled = self._assemble(blocks, is_all=is_all)
        if assembled is None or assembled.end is None:
            return None
        self.counters.split += assembled.split
        self.counters.unreadable += assembled.unreadable
        lines = assembled.lines[: self._admit(len(assembled.lines))]
        documents = make_documents(lines, self.target.origin, self.target.labels, read_at)
        last = assembled.lines[-1].time if assembled.lines else None
        return LogTurn(documents, assembled.end, start_time(last))

    def prepare(self, turn: LogTurn) -> None:
        """Do nothing: no turn is forced."""

    def advance(self, turn: LogTurn) -> None:
        """The store has the documents of a turn."""
        if isinstance(turn.end, LogPosition):
            self.tail.advance(turn.end)

    def saved(self) -> LogPosition | None:
        """Return the position."""
        return self.tail.position

    def skip(self) -> None:
        """Give up the oldest file, and count it as lost."""
        self.tail.skip()

    def take_lost(self) -> LostLines:
        """Return what was lost since the last call."""
        return self.tail.take_lost()

    def has_more(self) -> bool:
        """Return whether there may be something to read."""
        return self.tail.has_more()

    def quiet_path(self) -> Path | None:
        """Return the file that the engine writes to if all of it is read."""
        return None if self.is_removed else self.tail.quiet_path()

    def unread(self) -> int:
        """Return how many bytes follow the position, of compressed files none."""
        return self.tail.unread()

    def is_finished(self) -> bool:
        """Return whether the container is removed and has no log any more."""
        return self.is_removed and self.tail.is_gone() and not self.tail.has_more()

    def refused_count(self) -> int:
        """Return 0: what cannot be opened is a problem of its own."""
        return 0

    def problems(self) -> tuple[Problem, ...]:
        """Return nothing, for the same reason."""
        return ()

    def close(self) -> None:
        """Close all files."""
        self.tail.close()

    def _plain_turn(self, plain: Sequence[PlainLines]) -> LogTurn:
        parts: list[PlainDocuments] = []
        left = self._admit(sum(len(each.starts) for each in plain))
        for each in plain:
            parts.append(make_plain_documents(each.first(left), self.target.origin, self.target.labels))
            left -= len(parts[-1])
        documents = parts[0] if len(parts) == 1 else [document for part in parts for document in part]
        last = plain[-1]
        return LogTurn(documents, LogPosition(last.generation, last.end), start_time(last.times[-1]))

    def _admit(self, count: int) -> int:
        """Return how many of so many lines are collected, and count the others."""
        if self.rate is None:
            return count
        admitted = self.rate.admit(count, self._clock())
        self.counters.limited += count - admitted
        self.is_limited = admitted < count
        return admitted

    def _assemble(self, blocks: Sequence[LogBlock], *, is_all: bool) -> AssembledLines | None:
        """Join the parts of lines; read more until a line is complete, and at the end take it as it is."""
        final = self.is_removed or not self.target.runs
        for size in (0, LONGEST_LINE):
            if size:
                blocks, is_all = self.tail.read_blocks(size)
            if not blocks and is_all:
                return None
            found = assemble_lines(lines_of(blocks), final=final and is_all)
            if found.end is not None:
                return found
            if is_all:
                return None
        return assemble_lines(lines_of(blocks), final=True)
