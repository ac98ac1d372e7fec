"""The log of a program that must not wait for whoever reads it.

Standard error is a pipe to a service manager or a container engine. When that stops reading (a full disk, a stuck
log driver, a terminal that is held), a write blocks, and with it the event loop, and in the end the name server too.
So lines go to a thread of their own, by a queue with a bound: what does not fit is counted, and told once there is
room again.
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
"""Lines that wait at most."""
_LAST_WORDS = 1.0
"""Seconds that the last lines get at the end."""


class QueuedLogHandler(logging.Handler):
    """Writes lines to a file descriptor, whenever that takes them. Never blocks who logs, and never raises for it."""

    def __init__(self, descriptor: int, waiting: int = MAX_QUEUED_LINES) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self.limit = LogRateLimit()
        self.clock: Callable[[], float] = time.monotonic
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(waiting)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)  # a stuck one must not keep us
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """One line more, or one more lost."""
        if record.levelno > logging.DEBUG:  # who asks for every step gets every step
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
        """The last lines get a moment to go out."""
        try:
            self._lines.put(None, timeout=_LAST_WORDS)
        except queue.Full:
            pass  # it is stuck
        else:
            self._thread.join(_LAST_WORDS)
        super().close()

    def _put(self, line: str) -> bool:
        try:
            self._lines.put_nowait(line.encode(errors="backslashreplace") + b"\n")
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            while line:
                try:
                    line = line[os.write(self._descriptor, line) :]
                except OSError:  # the reader has gone for good: then there is nobody to tell
                    break


def _of(code: Code, text: str, number: int) -> logging.LogRecord:
    record = logging.LogRecord("vipmesh", logging.WARNING, "", 0, text, (number,), None)
    record.code = code
    return record


def log_to(descriptor: int, *, verbose: bool) -> QueuedLogHandler:
    """Send the log there. `verbose`: every operation of ours; the libraries' own steps are not of use to anybody."""
    handler = QueuedLogHandler(descriptor)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if verbose:
        logging.getLogger("vipmesh").setLevel(logging.DEBUG)
    return handler


def shape_log(shape: LogFormat, secrets: Collection[str]) -> None:
    """From now on lines look like this, and have none of these secrets."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, QueuedLogHandler):
            handler.setFormatter(LineFormatter(shape, secrets))
