"""Writes the audit lines of the admin API. An action whose first line can be written nowhere is refused.

A line goes to the log, and to `[admin] audit_file` if that is set; one of the two is enough. If neither takes it, it
goes to the journal directly. The line of an action that has ended is kept until one of them takes it.
"""

import asyncio
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead
from mesh.util.logging.handler import log_surely

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.ADMIN)

WRITE_TIMEOUT = 2.0
"""Seconds that the log or a file has to take a line."""
RETRY_INTERVAL = 5.0
"""Seconds between attempts to write the line of an action that has ended."""
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
"""The native protocol of the journal: systemd.io/JOURNAL_NATIVE_PROTOCOL."""


class AuditError(MeshError):
    """An audit line could be written nowhere. The text ends with the remedy."""


@dataclass(frozen=True, slots=True, eq=False)
class AuditLine:
    """One line of the audit trail."""

    text: str
    """The text after `audit: `, with what clients wrote in quotes."""
    code: Code | None = None
    """The code of a warning; None for a line of level INFO."""

    @property
    def whole(self) -> str:
        """The line without time and level."""
        return f"audit: {self.text}" + ("" if self.code is None else f" [{self.code}]")


class AuditTrail:
    """Writes audit lines, and knows whether they were written."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` gets every line, None for none."""
        self._file = file
        # A stuck disk blocks this one thread and no other work.
        self._thread = ThreadPoolExecutor(1, "audit")
        self._owed: deque[AuditLine] = deque()
        self._writing = asyncio.Lock()
        """Held while lines of `_owed` are written, so that `close` waits for them."""
        self._in_log: dict[AuditLine, Future[bool]] = {}
        """Lines that the log has taken and not written yet."""
        self._retrying: asyncio.Task[None] | None = None

    async def begin(self, line: AuditLine) -> None:
        """Write the line of an action that was requested. Raises `AuditError` if it can be written nowhere."""
        try:
            await self._write(line)
        finally:
            self._in_log.pop(line, None)

    async def end(self, line: AuditLine) -> None:
        """Write the line of an action that has ended, now or as soon as it can be written."""
        self._owed.append(line)
        try:
            await self._write_owed()
        except AuditError as error:
            log.error("admin API: an action has ended: %s", error, extra=error.code.extra)
            if self._retrying is None or self._retrying.done():
                self._retrying = asyncio.get_running_loop().create_task(
                    bulkhead.keep_running("audit lines", self._retry), name="audit lines"
                )

    async def close(self) -> None:
        """Try the lines that were not written once more, and give up what cannot be written."""
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.gather(self._retrying, return_exceptions=True)
        await asyncio.sleep(0)  # a request that was cancelled just now leaves its line first
        try:
            await self._write_owed()
        except AuditError as error:
            log.error("admin API: the daemon ends: %s", error, extra=error.code.extra)
        self._thread.shutdown(wait=False)

    async def _retry(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_INTERVAL)
            try:
                await self._write_owed()
            except AuditError:
                continue

    async def _write_owed(self) -> None:
        async with self._writing:
            while self._owed:
                await self._write(self._owed[0])
                self._in_log.pop(self._owed.popleft(), None)

    async def _write(self, line: AuditLine) -> None:
        """Write one line to the log and the file, else to the journal. Raises `AuditError`."""
        failures = [
            failure
            for failure in await asyncio.gather(self._to_log(line), self._in_thread("audit_file", self._to_file, line))
            if failure is not None
        ]
        tried = 1 if self._file is None else 2
        if len(failures) < tried:
            if failures:
                log.warning(
                    "admin API: an audit line is not in %s; free the disk or set [admin] audit_file",
                    failures[0],
                    extra=Code.AUDIT_NOT_WRITTEN.extra,
                )
            return
        failure = await self._in_thread("the journal", self._to_journal, line)
        if failure is not None:
            raise AuditError(
                Code.AUDIT_NOT_WRITTEN,
                f"the audit line can be written nowhere: {'; '.join((*failures, failure))}; free the disk, read the "
                "log, or set [admin] audit_file",
            )

    async def _to_log(self, line: AuditLine) -> str | None:
        """Return why the log did not take the line, or None if it did."""
        level = logging.INFO if line.code is None else logging.WARNING
        written = self._in_log.get(line)
        if written is None or written.done():
            written = self._in_log[line] = log_surely(log, level, f"audit: {line.text}", line.code)
        try:
            # A timeout does not cancel it: it is asked again at the next attempt.
            done = await asyncio.to_thread(written.result, WRITE_TIMEOUT)
        except TimeoutError:
            return f"the log: its reader takes nothing for {WRITE_TIMEOUT:g} s"
        return None if done else "the log: it cannot be written"

    async def _in_thread(self, name: str, write: Callable[[AuditLine], None], line: AuditLine) -> str | None:
        """Write in a thread of its own, which a stuck disk may block. Returns the failure, or None if it worked."""
        if name == "audit_file" and self._file is None:
            return None
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await asyncio.get_running_loop().run_in_executor(self._thread, write, line)
        except TimeoutError:
            return f"{name}: it takes longer than {WRITE_TIMEOUT:g} s"
        except OSError as error:
            return f"{name}: {error.strerror or error}"
        return None

    def _to_file(self, line: AuditLine) -> None:
        """Append a line, and cut off what was written of it if it does not fit. Raises `OSError`."""
        if self._file is None:
            return
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        whole = f"{time}Z {line.whole}\n".encode(errors="backslashreplace")
        # Opened for each line, so that the file may be rotated. A FIFO without a reader is refused and does not block.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(self._file, flags, 0o600)
        try:
            if os.write(file, whole) != len(whole):
                os.write(file, b"\n")
                raise OSError(errno.ENOSPC, "only a part of the line fits")
        finally:
            os.close(file)

    def _to_journal(self, line: AuditLine) -> None:
        """Send a line to the journal. Raises `OSError`."""
        priority = 6 if line.code is None else 4
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            text = f"MESSAGE={line.whole}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=vipmesh\n"
            sock.sendto(text.encode(errors="backslashreplace"), str(JOURNAL_SOCKET))
