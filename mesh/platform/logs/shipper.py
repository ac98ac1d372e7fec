"""Reads logs in turns and delivers them: position after the store's answer, one batch at a time.

While the store does not take a batch, or the position cannot be saved, nothing further is read: the engine's files are
the buffer. New files of rotations are opened all the same, so that they can be read to their end later.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError
from mesh.model.part import DaemonPart, ProblemPart, ShipPart
from mesh.model.problem import Problem, Severity
from mesh.platform.logs.counters import LogCounters
from mesh.platform.logs.documents import LogDocument, size_of
from mesh.platform.logs.file_positions import LogFilePositions
from mesh.platform.logs.file_watch import FileWatch
from mesh.platform.logs.followed_files import FollowedFiles
from mesh.platform.logs.followed_log import FollowedLog
from mesh.platform.logs.idle_logs import IdleLogs
from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.line_rate import LineRateLimit
from mesh.platform.logs.positions import PositionFile
from mesh.platform.logs.reader import LogReader, LogTurn
from mesh.platform.logs.refused_documents import RefusedDocumentFile
from mesh.platform.logs.ship_state import ShipState, ship_state
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument
from mesh.platform.logs.targets import LogTarget
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead
from mesh.util.conditions import Conditions

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.LOGS)

MAX_BATCH = 1 << 20
"""Bytes of documents after which no further log has a turn in a batch."""
LEAST_TURN, LARGEST_TURN = 32 * 1024, 384 * 1024
"""Bytes of its file that a log may add to a batch: all that have something to read share the batch."""
POLL_INTERVAL = 0.2
"""Seconds between two looks at files in which there was nothing new."""
MEASURE_INTERVAL = 2.5
"""Seconds between two looks at how far logs are behind; the metrics are written every 5 seconds."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds before a delivery is tried again, doubled from the first to the longest."""


@dataclass(slots=True)
class LogBatch:
    """What is delivered at once."""

    turns: dict[str, LogTurn] = field(default_factory=dict)
    """What each reader has in it, by its key."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of the documents of each."""

    def documents(self) -> Sequence[LogDocument]:
        """Return all of them, in the order of the turns."""
        parts = [each.documents for each in self.turns.values() if each.documents]
        return parts[0] if len(parts) == 1 else [document for part in parts for document in part]


@dataclass(frozen=True, slots=True)
class ShipperFiles:
    """Where the shipper keeps what must survive it."""

    positions: PositionFile
    refused: RefusedDocumentFile
    file_positions: LogFilePositions = field(default_factory=LogFilePositions)
    """The positions of files of an earlier process, which the readers change."""


class LogShipper:
    """Collects the logs of the containers of one engine."""

    def __init__(
        self,
        sink: LogSink,
        files: ShipperFiles,
        positions: Mapping[str, LogPosition],
        counters: LogCounters,
        clock: Callable[[], float] = time.monotonic,
        *,
        watch: FileWatch | None = None,
    ) -> None:
        """`positions` are those of an earlier process, by container ID. `clock` is in seconds.

        `watch` tells of logs that nobody has written to for a while, and stays the caller's; None: they are looked at.
        """
        self._sink = sink
        self._files = files
        self._positions = dict(positions)
        self._counters = counters
        self._clock = clock
        self._logs: dict[str, LogReader] = {}
        """By the ID of the container for its standard output, and with `/files` behind it for its files."""
        self._first = 0
        """Which log has the first turn of the next batch."""
        self._idle = IdleLogs(watch)
        self._conditions = Conditions()
        self._unreadable: dict[str, Problem] = {}
        """Logs that cannot be opened, by the ID of the container."""

    def update(self, targets: Sequence[LogTarget]) -> None:
        """Collect these logs. A log that is not among them any more is read to its end first."""
        wanted = {each.origin.container_id: each for each in targets}
        for id, target in wanted.items():
            with bulkhead.contain(f"log of {target.origin.container}"):
                self._add(id, target)
        for id, known in self._logs.items():
            target_now = wanted.get(id.partition("/")[0])
            known.is_removed = target_now is None
            if known.is_removed:
                self._idle.wake((id,))
            known.target = target_now or known.target
        self._positions = {id: each for id, each in self._positions.items() if id in self._logs}
        self.follow_rotation()

    def follow_rotation(self) -> None:
        """Open the files that rotations have made, and report what they took unread."""
        self._idle.wake_told()
        now = self._clock()
        looked_at = [*self._idle.awake(self._logs), *self._idle.due(self._logs, now)]
        for id, each in looked_at:
            with bulkhead.contain(f"log of {each.target.origin.container}"):
                self._follow(id, each)
        self._idle.settle(looked_at, now)
        self._report()

    async def keep_following(self) -> None:
        """Follow rotations until the task is cancelled, also while the store does not answer."""
        measured = -MEASURE_INTERVAL
        while True:
            self.follow_rotation()
            if self._clock() - measured >= MEASURE_INTERVAL:
                measured = self._clock()
                self._measure()
            await asyncio.sleep(POLL_INTERVAL)

    async def run(self) -> None:
        """Deliver until the task is cancelled."""
        while True:
            if not await self.ship_once():
                await asyncio.sleep(POLL_INTERVAL)

    async def ship_once(self) -> bool:
        """Deliver one batch, however long that takes. Return whether there was anything to deliver."""
        batch = self._collect()
        if not batch.turns:
            if self._files.file_positions.is_changed:
                await self._save()
            self._close_finished()
            return False
        if self._prepare(batch):
            await self._save()
        refused = await self._deliver(batch.documents())
        if refused:
            await self._until_saved(lambda: self._files.refused.append(refused))
        self._advance(batch, refused)
        await self._save()
        self._close_finished()
        return True

    def state(self, waits: Mapping[str, CodedText]) -> ShipState:
        """Return the state of the process; `waits` has what its other parts wait for."""
        return ship_state(len(self._logs), self._counters, {**waits, **self._conditions.frozen})

    def close(self) -> None:
        """Close all files. Positions are saved after each batch."""
        for each in self._logs.values():
            each.close()
        self._logs.clear()

    def _add(self, id: str, target: LogTarget) -> None:
        """Begin to read what is not read yet of a container."""
        files = f"{id}/files"
        is_new = bool(target.path) and id not in self._logs, bool(target.sources) and files not in self._logs
        if not any(is_new):
            return
        counters = self._counters.of(target.origin.service)
        limit = target.labels.rate_limit
        other = self._logs.get(files) or self._logs.get(id)
        rate = None if limit is None else other.rate if other is not None else LineRateLimit(limit)
        if is_new[0]:
            self._logs[id] = FollowedLog(target, self._positions.get(id), counters, rate, self._clock)
        if is_new[1]:
            self._logs[files] = FollowedFiles(target, self._files.file_positions, counters, rate, self._clock)

    def _follow(self, id: str, each: LogReader) -> None:
        origin = each.target.origin
        try:
            each.follow()
            self._unreadable.pop(id, None)
        except OSError as error:
            self._unreadable[id] = Problem(
                Code.LOG_FILE_UNREADABLE,
                Severity.ERROR,
                f"container {origin.container}",
                f"its log {each.target.path} cannot be opened: {error.strerror or error}",
                "give vipmesh ship CAP_DAC_READ_SEARCH, and the engine's directory at the same path",
            )
        self._report_lost(each)

    @staticmethod
    def _report_lost(each: LogReader) -> None:
        lost = each.take_lost()
        if lost.occasions:
            each.counters.lost += lost.occasions
            each.counters.lost_bytes += lost.known_bytes
            is_file = isinstance(each, FollowedFiles)
            log.error(
                "LOST: container %s: %s removed lines before they were read, %s; %s",
                each.target.origin.container,
                "rotation of its files" if is_file else "rotation",
                f"{lost.known_bytes} bytes" if lost.known_bytes else "how many is not known",
                "keep more files, by renaming them"
                if is_file
                else "let the engine keep more, see max-size and max-file",
                extra=Code.COLLECTED_LINES_LOST.extra,
            )

    def _collect(self) -> LogBatch:
        batch = LogBatch()
        size = 0
        self._idle.wake_told()
        logs = self._idle.awake(self._logs)
        start = self._first % len(logs) if logs else 0
        active = sum(each.has_more() for _, each in logs)
        limit = max(LEAST_TURN, min(LARGEST_TURN, MAX_BATCH // 2 // max(1, active)))
        read_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        for number, (id, each) in enumerate((*logs[start:], *logs[:start])):
            if size >= MAX_BATCH:
                self._first = start + number
                break
            with bulkhead.contain(f"log of {each.target.origin.container}"):
                turn = self._turn(each, limit, read_at)
                if turn is not None:
                    batch.turns[id] = turn
                    batch.sizes[id] = size_of(turn.documents)
                    size += batch.sizes[id]
        self._report()
        return batch

    def _turn(self, each: LogReader, limit: int, read_at: str) -> LogTurn | None:
        try:
            return each.take_turn(limit, read_at)
        except OSError as error:
            log.error(
                "container %s: a file of its log cannot be read: %s; it is left out",
                each.target.origin.container,
                error,
                extra=Code.LOG_FILE_UNREADABLE.extra,
            )
            each.skip()
            self._report_lost(each)
            return None

    async def _deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=0.3, random=random.random)
        while True:
            try:
                refused = await self._sink.deliver(documents)
            except LogSinkError as error:
                self._counters.store_failures += 1
                self._conditions.froze(ShipPart.STORE, error)
                pause = error.pause
            else:
                self._conditions.thawed(ShipPart.STORE)
                return refused
            await asyncio.sleep(max(backoff.next_pause(), pause))

    async def _until_saved(self, save: Callable[[], None]) -> None:
        """Call `save` in a thread until the disk takes it."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await asyncio.to_thread(save)
            except OSError as error:
                text = f"[ship] state: it cannot be written, and nothing is read until it can: {error}; make room"
                self._conditions.froze(ShipPart.STATE, MeshError(Code.LOG_POSITIONS, text))
            else:
                self._conditions.thawed(ShipPart.STATE)
                return
            await asyncio.sleep(backoff.next_pause())

    async def _save(self) -> None:
        files = self._files.file_positions
        files.is_changed = False
        await self._until_saved(lambda: self._files.positions.save(self._positions, files.saved()))

    def _prepare(self, batch: LogBatch) -> bool:
        """Note what must be saved before the batch is delivered, and return whether there is anything: a repeat after a
        crash must have the same documents under the same identifiers.
        """
        forced = {id: turn for id, turn in batch.turns.items() if turn.is_forced}
        for id, turn in forced.items():
            self._logs[id].prepare(turn)
        return bool(forced)

    def _advance(self, batch: LogBatch, refused: Sequence[RefusedDocument]) -> None:
        not_stored = {each.document.id for each in refused}
        for id, turn in batch.turns.items():
            each = self._logs[id]
            each.advance(turn)
            if (position := each.saved()) is not None:
                self._positions[id] = position
            each.last_time = turn.last_time or each.last_time
            lost = [document for document in turn.documents if document.id in not_stored] if not_stored else ()
            each.counters.lines += len(turn.documents) - len(lost)
            each.counters.bytes += batch.sizes[id] - size_of(lost)
            each.counters.refused += len(lost)
        if refused:
            log.error(
                "store of logs: it refuses %d documents, the first with %s; they are in refused.jsonl in [ship] state",
                len(refused),
                refused[0].reason,
                extra=Code.LOG_DOCUMENT_REFUSED.extra,
            )

    def _report(self) -> None:
        """Report the files that cannot be read, and the containers that write too much."""
        limited = [
            Problem(
                Code.LOG_RATE_LIMITED,
                Severity.WARNING,
                f"container {each.target.origin.container}",
                f"it writes more than {each.target.labels.rate_limit} lines per second, and the others are dropped",
                "raise its label log.rate_limit, or let it write less",
            )
            for each in self._logs.values()
            if each.is_limited
        ]
        others = [problem for each in self._logs.values() for problem in each.problems()]
        self._conditions.found(ProblemPart.SOURCE, [*self._unreadable.values(), *limited, *others])

    def _close_finished(self) -> None:
        """Forget logs of removed containers that have been read to their end."""
        finished = [id for id, each in self._logs.items() if each.is_finished()]
        for id in finished:
            self._logs.pop(id).close()
            self._idle.wake((id,))
            self._unreadable.pop(id, None)
            self._positions.pop(id, None)

    def _measure(self) -> None:
        now = time.time()
        awake = [each for _, each in self._idle.awake(self._logs)]
        behind = [each for each in awake if each.has_more() and each.last_time is not None]
        self._counters.refused_files = sum(each.refused_count() for each in self._logs.values())
        self._counters.unread_bytes = sum(each.unread() for each in awake)
        self._counters.lag_seconds = max((now - (each.last_time or 0) / 1e9 for each in behind), default=0.0)
