"""A log handler that never waits for the reader of the log.

Standard error is a pipe to a service manager or a container engine. When that stops reading (a full disk, a stuck log
driver, a paused terminal), a write blocks, and with it the event loop and in the end the name server. So lines go
through a bounded queue to a thread of their own. Lines that do not fit are counted, and the count is logged once there
is room again.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Collection

from mesh.model.codes import Code
from mesh.util.logging.formats import LineFormatter, LogFormat
from mesh.util.logging.rate_limit import LogRateLimit

MAX_QUEUED_LINES = 10_000
"""Maximum lines that wait to be written."""
_LAST_WORDS = 1.0
"""Seconds that waiting lines have to be written when the handler is closed."""


class QueuedLogHandler(logging.Handler):
    """Writes log lines to a file descriptor in a thread; it never blocks the caller and never raises.

    `waiting` is the maximum of lines that wait.
    """

    def __init__(self, descriptor: int, waiting: int = MAX_QUEUED_LINES) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self.limit = LogRateLimit()
        self.clock: Callable[[], float] = time.monotonic
        """The clock of the rate limit, in seconds."""
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(waiting)
        self._lost = 0
        """Lines that did not fit into the queue since the last report."""
        # A daemon thread: a stuck write must not keep the process alive.
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line, or count it as lost. Lines above level DEBUG are rate-limited."""
        if record.levelno > logging.DEBUG:  # with debug lines switched on, every one of them is wanted
            missed = self.limit.left_out((record.levelno, record.msg), self.clock())
            if missed is None:
                return
            if missed:
                self._put(
                    self.format(_of(Code.LOG_LINES_SUPPRESSED, "%d lines like the next one were left out", missed))
                )
        if self._lost and self._put(
            self.format(_of(Code.LOG_LINES_LOST, "%d log lines were lost: nobody read them", self._lost))
        ):
            self._lost = 0
        if not self._put(self.format(record)):
            self._lost += 1

    def close(self) -> None:
        """Give the waiting lines a moment to be written, then end the thread."""
        try:
            self._lines.put(None, timeout=_LAST_WORDS)
        except queue.Full:
            pass  # the writer is stuck; as a daemon thread it ends with the process
        else:
            self._thread.join(_LAST_WORDS)
        super().close()

    def _put(self, line: str) -> bool:
        """Queue a line; returns whether there was room."""
        try:
            self._lines.put_nowait(line.encode(errors="backslashreplace") + b"\n")
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        """Write queued lines until the queue yields None. Runs in the handler's thread."""
        while (line := self._lines.get()) is not None:
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except OSError:  # the reader has gone for good, and there is no other place to report that
                    break


def _of(code: Code, text: str, number: int) -> logging.LogRecord:
    """Make a record about a number of lines."""
    record = logging.LogRecord("vipmesh", logging.WARNING, "", 0, text, (number,), None)
    record.code = code
    return record


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
