"""Runs thousands of plain checks at a time: TCP connects, and HTTP requests of which only the status line matters.

A task, a transport and a timer per check cost more than the check itself. Here each check is one socket and a small
object. An epoll instance (epoll(7), edge-triggered: registered once, never changed) reports which sockets are ready,
and the event loop only watches that instance. Checks with the same timeout expire in the order in which they started,
so the next one to expire is at the head of a queue.

As with every check, the connection is new and is closed by a reset, and any behaviour of the network results in a
verdict.
"""

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from mesh.health.checks.http import judge_status
from mesh.health.checks.http_response import HttpResponse, NotHttpError, is_ordinary_head, parse_status_line
from mesh.health.checks.tcp import ResourceLackError, explain_error, raise_lack
from mesh.health.state_machine import Verdict
from mesh.model.part import DaemonPart
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Address
from mesh.util.bulkhead import Bulkhead
from mesh.util.sockets import LINGER_RESET

bulkhead = Bulkhead(DaemonPart.PROBES)

_NEWS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_FAILED = select.EPOLLERR | select.EPOLLHUP
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_READ_BYTES = 8192
"""Bytes per read; nearly every head fits."""
_MAX_CACHED_LINE = 256
"""Bytes of the longest status line whose outcome is cached."""
_MAX_CACHED_HEAD = 512
"""Bytes of the longest head whose outcome is cached."""


def is_plain(probe: Probe) -> bool:
    """Return whether a batch can run the probe."""
    match probe.kind:
        case ProbeKind.TCP:
            return True
        case ProbeKind.HTTP:
            return not probe.expect_body and not probe.follow_redirects and not probe.withheld_headers
    return False


class PlainCheck:
    """One running check."""

    __slots__ = ("begun", "deadline", "done", "expect", "response", "sock", "timeout", "unsent")

    def __init__(self, probe: Probe, request: bytes, done: Callable[[Verdict | ResourceLackError], None]) -> None:
        """`request` is empty for TCP. `done` is called once with the verdict, or with the resource that this worker
        lacks, unless the check is cancelled before.
        """
        self.expect = probe.expect_status if request else None
        """Expected status ranges; None: a connection is enough."""
        self.timeout = probe.timeout
        self.unsent = request
        self.done = done
        self.sock: socket.SocketType | None = None
        """None before the start and after the end."""
        self.begun = self.deadline = 0.0
        self.response: HttpResponse | None = None
        """The parser, or None as long as the shortcut for ordinary responses may do."""

    def read(self, data: bytes, expect: tuple[tuple[int, int], ...]) -> tuple[bool, str] | None:
        """Take in the next bytes of the response; none are its end. Return (ok, reason), or None if more are needed."""
        if self.response is None and (judged := judge_at_once(data, expect)) is not None:
            return judged
        if not data:
            return False, "closed before an answer"
        response = self.response = self.response or HttpResponse()
        try:
            response.feed(data)
        except NotHttpError as error:
            return False, str(error)
        return None if response.status is None else judge_status(response.status, expect)


class CheckBatch:
    """Runs checks until `close` is called.

    It reads the time itself, to the microsecond, because the event loop's clock does not advance while the loop is
    busy. Both use CLOCK_MONOTONIC, clock_gettime(2).
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._shots: dict[int, PlainCheck] = {}
        """By file descriptor."""
        self._ending: dict[float, deque[PlainCheck]] = {}
        """By timeout, in order of their deadlines. Checks that have ended stay until they are at the head."""

    def fileno(self) -> int:
        """Return a file descriptor that is readable while `look` has something to do."""
        return self._epoll.fileno()

    def __len__(self) -> int:
        return len(self._shots)

    def begin(self, shot: PlainCheck, address: Address, port: int) -> None:
        """Start a check. If it fails immediately, `done` is called before this returns."""
        shot.begun = time.monotonic()
        shot.deadline = shot.begun + shot.timeout
        try:
            # Not `socket.socket`, whose constructor and `close` are Python code around this type.
            sock = shot.sock = socket.SocketType(socket.AF_INET6 if ":" in address else socket.AF_INET, _STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            if shot.unsent:
                # The handshake's last packet waits for the request and carries it: one packet fewer (tcp(7)).
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            code = sock.connect_ex((address, port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            descriptor = sock.fileno()
            self._epoll.register(descriptor, _NEWS)
        except (OSError, MemoryError) as error:
            self._fail(shot, error)
            return
        self._shots[descriptor] = shot
        self._ending.setdefault(shot.timeout, deque()).append(shot)

    def cancel(self, shot: PlainCheck) -> None:
        """End a check without a verdict; nothing happens if it has ended."""
        if shot.sock is not None:
            self._close(shot, shot.sock)

    def look(self) -> None:
        """Process all sockets that are ready."""
        for descriptor, events in self._epoll.poll(0):
            shot = self._shots.get(descriptor)
            if shot is None or shot.sock is None:
                continue  # the callback of another check has ended it
            try:
                self._advance(shot, shot.sock, events)
            except BlockingIOError:
                continue
            except (OSError, MemoryError) as error:
                self._fail(shot, error)
            except Exception as error:  # noqa: BLE001 -- the check ends alone
                bulkhead.caught("a check in a batch", error)
                self._end(shot, False, f"the check failed: {type(error).__name__}")

    def expire(self) -> None:
        """End the checks whose time is over. Call `look` first, so that no answer that has arrived is missed."""
        now = time.monotonic()
        for timeout, shots in list(self._ending.items()):
            while shots and (shots[0].sock is None or shots[0].deadline <= now):
                shot = shots.popleft()
                if shot.sock is not None:
                    self._end(shot, False, f"no answer in {timeout:g} s")
            if not shots:
                del self._ending[timeout]

    def next_deadline(self) -> float | None:
        """Return when `expire` will next have something to do, or earlier; None if no check is running."""
        return min((shots[0].deadline for shots in self._ending.values() if shots), default=None)

    def close(self) -> None:
        """End all checks without verdicts."""
        for shot in list(self._shots.values()):
            self.cancel(shot)
        self._epoll.close()

    def _advance(self, shot: PlainCheck, sock: socket.SocketType, events: int) -> None:
        """Continue a check. Raises `OSError`; `BlockingIOError` means that it must wait for its socket."""
        if shot.expect is None:
            failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events & _FAILED else 0
            if failed not in (0, errno.ECONNRESET):  # a connection that is reset was accepted before
                raise OSError(failed, os.strerror(failed))
            self._end(shot, True, "connected")
            return
        if shot.unsent:
            if events & _FAILED and (failed := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise OSError(failed, os.strerror(failed))
            shot.unsent = shot.unsent[sock.send(shot.unsent) :]
            if not events & select.EPOLLIN:
                return
        while shot.sock is not None:  # until nothing is left: edge-triggered epoll reports data only once
            outcome = shot.read(sock.recv(_READ_BYTES), shot.expect)
            if outcome is not None:
                self._end(shot, *outcome)

    def _fail(self, shot: PlainCheck, error: OSError | MemoryError) -> None:
        """End a check by an error: as a failure, or without a verdict if this worker lacks what it takes."""
        try:
            raise_lack(error)
        except ResourceLackError as lack:
            self.cancel(shot)
            shot.done(lack)
        else:
            assert isinstance(error, OSError), "a lack of memory is always raised"
            self._end(shot, False, explain_error(error))

    def _end(self, shot: PlainCheck, ok: bool, reason: str) -> None:
        if shot.sock is not None:
            self._close(shot, shot.sock)
        shot.done(Verdict(ok, reason, time.monotonic() - shot.begun))

    def _close(self, shot: PlainCheck, sock: socket.SocketType) -> None:
        self._shots.pop(sock.fileno(), None)
        sock.close()
        shot.sock = None


def judge_at_once(data: bytes, expect: tuple[tuple[int, int], ...]) -> tuple[bool, str] | None:
    """Return the outcome if `data`, the first bytes of a response, holds an ordinary head as a whole, or None if it
    needs the parser.

    Where it returns an outcome, `HttpResponse` comes to the same one from the same bytes. The endpoints of a service
    send equal heads within one second, since what differs is their Date: the outcomes of short heads are kept.
    """
    if len(data) <= _MAX_CACHED_HEAD:
        return _judge_short(data, expect)
    return _judge_ordinary(data, expect) if len(data) <= _READ_BYTES else None


def _judge_ordinary(data: bytes, expect: tuple[tuple[int, int], ...]) -> tuple[bool, str] | None:
    line_end = data.find(b"\n") + 1
    if 0 < line_end <= _MAX_CACHED_LINE and is_ordinary_head(data, line_end):
        return _judge_line(data[:line_end], expect)
    return None


_judge_short = lru_cache(256)(_judge_ordinary)


@lru_cache(1024)
def _judge_line(line: bytes, expect: tuple[tuple[int, int], ...]) -> tuple[bool, str] | None:
    """Return the outcome that a status line decides, or None if it is not a final one. Servers send the same few."""
    try:
        status = parse_status_line(line)
    except NotHttpError:
        return None
    return judge_status(status, expect) if status >= 200 else None
