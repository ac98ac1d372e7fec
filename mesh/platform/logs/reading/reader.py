"""Answers for one worker which lines a service has written, from the files of the logs that are collected.

It works in threads of its own, within bounds of bytes, seconds and questions at one time: shipping waits for nothing
here. The name of the service is only compared with those of the containers that the engine has; no path is made of it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mesh.model.codes import Code
from mesh.platform.logs.json_file import LogLine
from mesh.platform.logs.reading.cursors import ID_LENGTH, MAX_INSTANCES, InstanceCursor, encode_cursor
from mesh.platform.logs.reading.document import ServiceLogLine, ServiceLogNote, WorkerLogDocument, merge_lines, note
from mesh.platform.logs.reading.file_lines import (
    LEAST_BYTES,
    FoundLines,
    LinesWanted,
    read_following,
    read_newest,
)
from mesh.platform.logs.reading.query import MAX_LINES, LogQuery, is_meant
from mesh.platform.logs.targets import LogTarget

READ_SECONDS = 1.5
"""Seconds after which no further part of a file is begun for an answer."""
READ_BYTES = 8 << 20
"""Bytes of files that are read for an answer, or `LEAST_BYTES` for each instance if that is more."""
FOLLOW_BYTES = 4 << 20
"""The same for an answer that follows an earlier one: what a busy service writes meanwhile."""
READERS = 2
"""Questions that are answered at one time."""


@dataclass(slots=True)
class _Gathering:
    """What is read for an answer."""

    cursor: dict[str, InstanceCursor] = field(default_factory=dict)
    lines: list[ServiceLogLine] = field(default_factory=list)
    notes: list[ServiceLogNote] = field(default_factory=list)
    more: bool = False


class ServiceLogReader:
    """Reads the lines of services. `close` ends its threads."""

    def __init__(self, worker: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`worker` is the name of this worker; `clock` is monotonic, in seconds."""
        self._worker = worker
        self._clock = clock
        self._targets: Sequence[LogTarget] = ()
        self._threads = ThreadPoolExecutor(READERS, "log reader")

    def update(self, targets: Sequence[LogTarget]) -> None:
        """Answer from these logs from now on."""
        self._targets = tuple(targets)

    async def answer(self, query: LogQuery) -> bytes:
        """Return the document as JSON."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._encoded, query)

    def _encoded(self, query: LogQuery) -> bytes:
        return msgspec.json.encode(self.read(query))

    def read(self, query: LogQuery) -> WorkerLogDocument:
        """Return the lines, in the thread of the caller. A file that cannot be read is a note."""
        meant = [each for each in self._targets if is_meant(query.service, each.origin.service)]
        meant.sort(key=lambda each: (not each.runs, each.origin.container, each.origin.container_id))
        services = tuple(sorted({each.origin.service for each in meant}))
        if len(services) > 1:
            return WorkerLogDocument(self._worker, "ship", services)
        gathering = _Gathering()
        if len(meant) > MAX_INSTANCES:
            text = f"{len(meant) - MAX_INSTANCES} of {len(meant)} instances are left out; read them with the engine"
            gathering.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
            meant = meant[:MAX_INSTANCES]
        end = self._clock() + READ_SECONDS
        share = (READ_BYTES if query.after is None else FOLLOW_BYTES) // max(1, len(meant))
        # A container that has only begun has no log yet, and gets one.
        if query.after is None and any(each.sources and not each.path for each in meant):
            text = "some instances write to files alone; their lines are in the store of logs"
            gathering.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
        for target in (each for each in meant if each.path):
            self._read_one(query, target, max(LEAST_BYTES, share), lambda: self._clock() > end, gathering)
        lines, dropped = merge_lines(gathering.lines, query.lines if query.after is None else MAX_LINES)
        if dropped and query.after is not None:
            text = f"{dropped} lines are left out: the service writes more than can be followed; let grep choose"
            gathering.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
        return WorkerLogDocument(
            self._worker,
            "ship",
            services,
            lines,
            encode_cursor(gathering.cursor),
            gathering.more,
            tuple(gathering.notes),
        )

    def close(self) -> None:
        """End the threads, without waiting for what they read."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read_one(
        self, query: LogQuery, target: LogTarget, share: int, is_late: Callable[[], bool], gathering: _Gathering
    ) -> None:
        origin, id = target.origin, target.origin.container_id[:ID_LENGTH]
        known = None if query.after is None else query.after.get(id, InstanceCursor(None))
        try:
            found = _found(query, Path(target.path), known, LinesWanted(0, 0, query.pattern, share, is_late))
        except OSError as error:
            if known is not None:
                gathering.cursor[id] = known
            text = f"container {origin.container}: its log cannot be read: {error.strerror or error}"
            gathering.notes.append(note(text, Code.LOG_FILE_UNREADABLE))
            return
        former = InstanceCursor(None) if known is None else known
        gathering.cursor[id] = InstanceCursor(found.end or former.position, found.last_time or former.time)
        gathering.more = gathering.more or found.more
        gathering.lines += (_shown(line, target) for line in found.lines)
        if found.is_cut and query.lines:
            text = f"container {origin.container}: older lines were not looked at: the log is large; ask for less"
            gathering.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))
        if found.is_gap:
            text = f"container {origin.container}: rotation removed lines before they could be shown"
            gathering.notes.append(note(text, Code.LOG_LINES_LEFT_OUT))


def _found(query: LogQuery, path: Path, known: InstanceCursor | None, wanted: LinesWanted) -> FoundLines:
    if known is None:
        return read_newest(path, wanted._replace(lines=query.lines, since=int(query.since * 1e9)))
    if known.position is None and known.time:
        return read_newest(path, wanted._replace(lines=MAX_LINES, since=known.time + 1))
    return read_following(path, known.position, wanted)


def _shown(line: LogLine, target: LogTarget) -> ServiceLogLine:
    origin = target.origin
    return ServiceLogLine(line.text, origin.container, origin.worker, origin.service, line.stream, line.time)
