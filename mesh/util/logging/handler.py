"""A log handler that never blocks the caller: `logging.handlers.QueueHandler` with a bound and a rate limit.

Standard error is a pipe to a service manager or a container engine. When that stops reading (a full disk, a stuck log
driver, a paused terminal), a write blocks, and with it the event loop and in the end the name server. So a thread of
its own writes the lines. Lines that do not fit into its queue are counted, and the count is logged once there is room
again. A line that must not be lost (`log_surely`) is neither limited nor counted out, and says whether it was written.
"""

import logging
import os
import queue
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener

from typing_extensions import override

from mesh.model.codes import Code
from mesh.util.logging.formats import LineFormatter
from mesh.util.logging.log_format import LogFormat
from mesh.util.logging.rate_limit import LogRateLimit

MAX_QUEUED_LINES = 10_000
"""Maximum lines that wait to be written."""
RESERVED_LINES = 1_000
"""How many more lines may wait that must not be lost."""
_LAST_WORDS = 1.0
"""Seconds that waiting lines have to be written when the handler is closed."""


class QueuedLogHandler(QueueHandler):
    """Writes log lines to a file descriptor in a thread; it never blocks the caller and never raises.

    `waiting` is the maximum of lines that wait.
    """

    def __init__(self, descriptor: int, waiting: int = MAX_QUEUED_LINES) -> None:
        # The bound is kept in `enqueue`: lines that must not be lost are beyond it.
        lines: queue.Queue[logging.LogRecord | None] = queue.Queue()
        super().__init__(lines)
        self._lines = lines
        self._waiting = waiting
        self.setFormatter(LineFormatter())
        self.limit = LogRateLimit()
        self.clock: Callable[[], float] = time.monotonic
        """The clock of the rate limit, in seconds."""
        self._lost = 0
        """Lines that did not fit into the queue since the last report."""
        self._writer = _Writer(lines, descriptor)
        self._writer.start()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line, or count it as lost. Lines above level DEBUG are rate-limited."""
        # With debug lines switched on, every one of them is wanted.
        if record.levelno > logging.DEBUG and not _must_be_written(record):
            missed = self.limit.left_out((record.levelno, record.msg), self.clock())
            if missed is None:
                return
            if missed:
                super().emit(_of(Code.LOG_LINES_SUPPRESSED, "%d lines like the next one were left out", missed))
        super().emit(record)

    @override
    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a formatted record, or count it as lost if the queue is full and the record may be lost."""
        if lost := self._lost + self._writer.lost:
            report = self.prepare(_of(Code.LOG_LINES_LOST, "%d log lines were lost: nobody read them", lost))
            if self._fits(report):
                self._lost = self._writer.lost = 0
        if not self._fits(record):
            self._lost += 1

    @override
    def close(self) -> None:
        """Give the waiting lines a moment to be written, then end the thread."""
        self._writer.stop()
        super().close()

    def _fits(self, record: logging.LogRecord) -> bool:
        """Queue a formatted record; returns whether there was room."""
        if self._lines.qsize() >= self._waiting + (RESERVED_LINES if _must_be_written(record) else 0):
            _report_written(record, False)
            return False
        super().enqueue(record)
        return True


class _Writer(QueueListener):
    """Writes queued lines to a descriptor. Its thread is a daemon thread: a stuck reader does not keep the process."""

    def __init__(self, lines: "queue.Queue[logging.LogRecord | None]", descriptor: int) -> None:
        super().__init__(lines)
        self._waiting = lines
        self._descriptor = descriptor
        self.lost = 0
        """Lines that could not be written, such as on a full disk, since the last report."""

    @override
    def handle(self, record: logging.LogRecord) -> None:
        """Write one line. `QueueHandler.prepare` has put the whole line into `msg`."""
        line = record.msg.encode(errors="backslashreplace") + b"\n"
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except OSError:  # a full disk, or the reader has gone for good: there is no other place to report that
                self.lost += 1
                break
        _report_written(record, not line)

    @override
    def stop(self) -> None:
        """End after the waiting lines. Unlike `QueueListener.stop`, it does not wait for a reader that is stuck."""
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(_LAST_WORDS)  # a stuck writer ends with the process, as a daemon thread


def _of(code: Code, text: str, number: int) -> logging.LogRecord:
    """Make a record about a number of lines."""
    record = logging.LogRecord("vipmesh", logging.WARNING, "", 0, text, (number,), None)
    record.code = code
    return record


def log_surely(logger: logging.Logger, level: int, line: str, code: Code | None = None) -> "Future[bool]":
    """Log a line that must not be lost, whatever the level of the logger.

    Returns whether it was written, as soon as that is known. Where no `QueuedLogHandler` writes the log, the handlers
    of that program have the line when this returns, and count as having written it.
    """
    written: Future[bool] = Future()
    record = logger.makeRecord(logger.name, level, "", 0, line, (), None, extra=None if code is None else code.extra)
    record.written = written
    logger.handle(record)
    if not any(isinstance(handler, QueuedLogHandler) for handler in logging.getLogger().handlers):
        _report_written(record, True)
    return written


def _must_be_written(record: logging.LogRecord) -> bool:
    return isinstance(getattr(record, "written", None), Future)


def _report_written(record: logging.LogRecord, done: bool) -> None:
    """Tell whoever waits for the line whether it was written; he may have stopped waiting."""
    written = getattr(record, "written", None)
    if isinstance(written, Future):
        with suppress(InvalidStateError):
            written.set_result(done)


def log_to(descriptor: int, *, verbose: bool) -> QueuedLogHandler:
    """Send the log to a file descriptor.

    `verbose` logs vipmesh's own operations at level DEBUG; those of libraries stay at INFO.
    """
    handler = QueuedLogHandler(descriptor)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if verbose:
        logging.getLogger("vipmesh").setLevel(logging.DEBUG)
    return handler


def shape_log(shape: LogFormat, secrets: Collection[str]) -> None:
    """Set the format of log lines and the secrets that they must not show, from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, QueuedLogHandler):
            handler.setFormatter(LineFormatter(shape, secrets))
