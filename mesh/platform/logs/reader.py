"""What the shipper asks of a source of lines: the standard output of a container, or its files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesh.model.problem import Problem
from mesh.platform.logs.counters import ServiceLogCounters
from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.file_positions import FilePosition
from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.line_rate import LineRateLimit
from mesh.platform.logs.tail import LostLines
from mesh.platform.logs.targets import LogTarget


@dataclass(frozen=True, slots=True)
class LogTurn:
    """What one reader has for a batch."""

    documents: Sequence[LogDocument]
    end: LogPosition | tuple[FilePosition, ...]
    """The position once they are delivered, or those of several files."""
    last_time: int | None
    """When the last line was written, in nanoseconds since 1970; None if it is not known."""
    is_forced: bool = False
    """Whether where it ends is saved before it is delivered: documents end there only because nothing followed, or they
    are the first ones of a file.
    """


class LogReader(Protocol):
    """Reads documents of one container in turns."""

    target: LogTarget
    counters: ServiceLogCounters
    rate: LineRateLimit | None
    """That of the container, which its readers share."""
    is_removed: bool
    """Whether the engine has no such container any more."""
    is_limited: bool
    """Whether lines of the last turn were dropped because of `log.rate_limit`."""
    last_time: int | None
    """When the last line was written that the store has, in nanoseconds since 1970."""

    def follow(self) -> None:
        """Look what has become of the files. Raises `OSError` if they cannot be opened."""

    def take_turn(self, limit: int, read_at: str) -> LogTurn | None:
        """Read about `limit` bytes and return their documents; None if no line is complete. Raises `OSError`.

        `read_at` is the time of lines without one.
        """

    def prepare(self, turn: LogTurn) -> None:
        """Note what must be saved before the turn is delivered, which is forced."""

    def advance(self, turn: LogTurn) -> None:
        """The store has the documents of a turn."""

    def saved(self) -> LogPosition | None:
        """Return the position to save under the key of the reader, None if there is none."""

    def skip(self) -> None:
        """Give up the oldest file, whose data cannot be read, and count it as lost."""

    def take_lost(self) -> LostLines:
        """Return what was lost since the last call."""

    def has_more(self) -> bool:
        """Return whether there may be something to read."""

    def quiet_path(self) -> Path | None:
        """Return the file whose next change is the next news of this reader; None if it is to be looked at anyway."""

    def unread(self) -> int:
        """Return how many bytes follow the position, of compressed files none."""

    def is_finished(self) -> bool:
        """Return whether the container is removed and everything of it is read."""

    def refused_count(self) -> int:
        """Return how many files are refused now."""

    def problems(self) -> Iterable[Problem]:
        """Return what cannot be collected now."""

    def close(self) -> None:
        """Close all files."""
