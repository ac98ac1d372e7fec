"""The log files of one container, and what is read of them for the next batch."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from mesh.config.labels.log_files import compile_start_pattern
from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.platform.logs.counters import ServiceLogCounters
from mesh.platform.logs.documents import LogDocument, make_documents
from mesh.platform.logs.file_lines import MAX_EVENT, MAX_EVENT_LINES, EventRules, FileEvents
from mesh.platform.logs.file_positions import FilePosition, LogFilePositions
from mesh.platform.logs.file_set import MAX_FILES, QUIET, LogFileSet
from mesh.platform.logs.file_tail import FileTail
from mesh.platform.logs.json_file import LogLine, LogPosition
from mesh.platform.logs.line_rate import LineRateLimit
from mesh.platform.logs.line_time import leading_time
from mesh.platform.logs.reader import LogTurn
from mesh.platform.logs.tail import LostLines
from mesh.platform.logs.targets import LogTarget

log = logging.getLogger("vipmesh")

LEAST_SHARE = 8 * 1024
"""Bytes that a file may add to a turn of its container."""
EVENT_PATIENCE = 3.0
"""Seconds without a change of the file after which its last event of several lines is complete."""
PATTERN_TIME = 0.05
"""Seconds of CPU time after which a turn has no further file of the container, and a file no further event: its pattern
must delay no other container.
"""


class FollowedFiles:
    """Reads documents from the log files of a container."""

    def __init__(
        self,
        target: LogTarget,
        positions: LogFilePositions,
        counters: ServiceLogCounters,
        rate: LineRateLimit | None,
        clock: Callable[[], float],
    ) -> None:
        """`rate` is that of the container; `clock` is monotonic, in seconds."""
        self.target = target
        self.counters = counters
        self.is_removed = self.is_limited = False
        self.last_time: int | None = None
        self._positions = positions
        self.rate = rate
        self._clock = clock
        self._files = LogFileSet(target.origin.container_id, target.sources, positions, clock)
        pattern = target.labels.multiline
        self._begins = None if pattern is None else compile_start_pattern(pattern).search
        self._split: str | None = None
        """The file that had a line or an event that was too long."""
        self._first = 0
        """Which file has the first part of the next turn."""

    def follow(self) -> None:
        """Look what has become of the files."""
        self._files.follow()

    def take_turn(self, limit: int, read_at: str) -> LogTurn | None:
        """Read about `limit` bytes and return their documents; None if no event is complete."""
        now = self._clock()
        for tail in self._files.tails.values():
            tail.look(now)
        tails = [tail for tail in self._files.tails.values() if self._is_ready(tail, now)]
        if not tails:
            return None
        start = self._first % len(tails)
        share = max(LEAST_SHARE, limit // len(tails))
        until = time.thread_time() + PATTERN_TIME
        documents: list[LogDocument] = []
        ends: list[FilePosition] = []
        is_forced = self.is_limited = False
        left = limit
        for number, tail in enumerate((*tails[start:], *tails[:start])):
            if left <= 0 or time.thread_time() > until:
                self._first = start + number
                break
            found = self._read(tail, min(share, left), now)
            if found is not None:
                events, end = found
                left -= end.offset - tail.offset
                ends.append(end)
                # A new file is saved before it is delivered, too: its copy is recognised although it was cut meanwhile.
                is_forced |= events.is_forced or tail.offset == 0
                documents += self._documents(tail, events, read_at)
        return LogTurn(tuple(documents), tuple(ends), time.time_ns(), is_forced=is_forced) if ends else None

    def prepare(self, turn: LogTurn) -> None:
        """Remember where the last events of a turn end before they are delivered, as far as more may follow them."""
        ends = {end.generation: end.offset for end in turn.end if isinstance(end, FilePosition)}
        for tail in self._files.tails.values():
            if tail.position is not None and tail.position.generation in ends:
                self._positions.put(msgspec.structs.replace(tail.position, cut=ends[tail.position.generation]))

    def advance(self, turn: LogTurn) -> None:
        """The store has the documents of a turn."""
        for end in turn.end:
            if isinstance(end, FilePosition):
                self._files.advance(end)

    def saved(self) -> None:
        """Return nothing: the positions of files are kept for all containers together."""

    def skip(self) -> None:
        """Do nothing: a file that cannot be read is left out where it is found."""

    def take_lost(self) -> LostLines:
        """Return what was lost since the last call."""
        lost, self._files.lost = self._files.lost, LostLines()
        return lost

    def has_more(self) -> bool:
        """Return whether there may be something to read."""
        now = self._clock()
        return any(self._is_ready(tail, now) for tail in self._files.tails.values())

    def quiet_path(self) -> None:
        """Return nothing: a new file may appear in any of the directories."""

    def unread(self) -> int:
        """Return how many bytes follow the positions, of compressed files none."""
        return sum(0 if t.file.is_compressed else max(0, t.size - t.offset) for t in self._files.tails.values())

    def is_finished(self) -> bool:
        """Return whether nothing more can come."""
        return self.is_removed and not self.has_more()

    def close(self) -> None:
        """Close all files. The positions in the layer of a container go with it, not those in volumes."""
        layers = {tail.key for tail in self._files.tails.values() if tail.is_removed()} if self.is_removed else set()
        self._files.close()
        for key in layers:
            self._positions.drop(key)

    def problems(self) -> Iterator[Problem]:
        """Yield what of the labels cannot be collected now."""
        scan, is_copied = self._files.scan, self._files.is_copied
        if scan is None or not (self._split or is_copied or scan.unreadable or scan.refused or scan.excess):
            return
        subject = f"container {escape_unprintable(self.target.origin.container)}"
        for base, reason in scan.unreadable.items():
            remedy = "give vipmesh ship CAP_DAC_READ_SEARCH, and the directory at the same path as the engine has it"
            text = f"the directory {escape_unprintable(base)} of its log files cannot be opened: {reason}"
            yield Problem(Code.LOG_DIRECTORY_UNREADABLE, Severity.ERROR, subject, text, remedy)
        if self._split is not None:
            path = escape_unprintable(self._split)
            text = f"{path} has lines or events of more than {MAX_EVENT} bytes or {MAX_EVENT_LINES} lines"
            remedy = "write shorter lines, or correct log.multiline; they are delivered in parts"
            yield Problem(Code.LOG_LINES_CUT, Severity.WARNING, subject, text, remedy)
        if is_copied:
            text = "its log files are rotated by a copy and a cut; lines written between the two are in neither file"
            remedy = "rotate by renaming, without copytruncate, and have the program open its file again"
            yield Problem(Code.LOG_COPY_ROTATION, Severity.WARNING, subject, text, remedy)
        if scan.refused:
            path, reason = min(scan.refused.items())
            text = (
                f"{len(scan.refused)} of its log files are not read, the first is {escape_unprintable(path)}: {reason}"
            )
            remedy = "name regular files without links, by the path that they have themselves"
            yield Problem(Code.LOG_FILE_REFUSED, Severity.WARNING, subject, text, remedy)
        if scan.excess:
            path = min(scan.excess)
            text = f"{escape_unprintable(path)} has more log files than are collected at once, {MAX_FILES}"
            remedy = "name fewer of them, or remove old ones"
            yield Problem(Code.LOG_TOO_MANY_FILES, Severity.WARNING, subject, text, remedy)

    def refused_count(self) -> int:
        """Return how many names are refused now."""
        scan = self._files.scan
        return 0 if scan is None else len(scan.refused) + scan.excess.total()

    def _is_ready(self, tail: FileTail, now: float) -> bool:
        return tail.has_more() and not tail.is_searched(final=self._is_final(tail, now) or self._is_idle(tail, now))

    def _is_final(self, tail: FileTail, now: float) -> bool:
        """Return whether a last line without line feed is complete."""
        is_over = self.is_removed or not self.target.runs or tail.file.is_compressed
        return is_over or (not tail.name and now - tail.changed >= QUIET)

    def _is_idle(self, tail: FileTail, now: float) -> bool:
        return self._begins is not None and now - tail.changed >= EVENT_PATIENCE

    def _read(self, tail: FileTail, limit: int, now: float) -> tuple[FileEvents, FilePosition] | None:
        until = time.thread_time() + PATTERN_TIME
        rules = EventRules(self._begins, lambda: time.thread_time() > until, self._is_idle(tail, now))
        try:
            return tail.read_events(limit, rules, final=self._is_final(tail, now))
        except OSError as error:
            log.error(
                "container %s: its file %s cannot be read: %s; it is left out",
                self.target.origin.container,
                escape_unprintable(tail.path),
                error,
                extra=Code.LOG_FILE_DAMAGED.extra,
            )
            self._files.skip(tail)
            return None

    def _documents(self, tail: FileTail, events: FileEvents, read_at: str) -> tuple[LogDocument, ...]:
        self.counters.split += events.split
        if events.split:
            self._split = tail.path
        found = events.events
        if self.rate is not None:
            admitted = self.rate.admit(len(found), self._clock())
            self.counters.limited += len(found) - admitted
            self.is_limited |= admitted < len(found)
            found = found[:admitted]
        generation = tail.position.generation if tail.position is not None else ""
        lines = [
            LogLine(LogPosition(generation, each.start), each.text, "file", leading_time(each.text)) for each in found
        ]
        labels = replace(self.target.labels, store=tail.label.store, ttl_days=tail.label.ttl_days)
        # A name of a file may be no UTF-8.
        path = os.fsencode(tail.path).decode(errors="replace")
        return make_documents(lines, self.target.origin, labels, read_at, file=path)
