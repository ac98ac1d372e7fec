"""A TCP ping between workers, and its listener.

A ping is a connection that is closed at once: whether it is accepted or refused is the answer. A worker sends its name
first, since its address may belong to another host by now.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from mesh.cluster.failure_detector import PingResult
from mesh.model.part import DaemonPart
from mesh.model.table import RealKey
from mesh.util.bulkhead import Bulkhead
from mesh.util.sockets import LOCAL_ERRNOS, open_socket

bulkhead = Bulkhead(DaemonPart.PEERS)

PING_TIMEOUT = 0.3
"""Seconds that an answer may take. Four silent rounds last 1.2 s: an endpoint is lost when it and the kernel of its
host have not responded for that long, with no packet lost.
"""
MAX_TIMER_DELAY = 0.25
"""Seconds. If the timeout fires this much late without an answer, this host was suspended, and the result says nothing
about the target.
"""
BACKLOG = 1024
"""Connections that wait for this process: as long as the kernel accepts them, the others see that the host is up."""

PingFunction: TypeAlias = Callable[[RealKey, str | None], Awaitable[PingResult | None]]
"""Pings an address and, if a worker is named, checks its name. The result is None if this worker could not ping."""


async def ping_worker(real: RealKey, worker: str | None) -> PingResult | None:
    """Ping by TCP: a `PingFunction`."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        with open_socket(real.address) as sock:
            if (error := sock.connect_ex((real.address, real.port))) not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
            answered = await _is_ready(sock, reading=worker is not None)
            answer = _arrived(sock, worker)
    except (ConnectionRefusedError, ConnectionResetError):
        return PingResult.REFUSED
    except OSError as error:
        return None if error.errno in LOCAL_ERRNOS else PingResult.SILENT
    failed = answer in (PingResult.SILENT, PingResult.MUTE)
    return None if failed and not answered and loop.time() - begun >= PING_TIMEOUT + MAX_TIMER_DELAY else answer


async def _is_ready(sock: socket.socket, *, reading: bool) -> bool:
    """Wait until something has arrived (`reading`) or the connection is established; False after the timeout."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    if reading:
        loop.add_reader(sock, ready.set)
    else:
        loop.add_writer(sock, ready.set)
    try:
        async with asyncio.timeout(PING_TIMEOUT):
            return await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)
        loop.remove_writer(sock)


def _arrived(sock: socket.socket, worker: str | None) -> PingResult:
    """The result by what the kernel has received: that this process reads it late is not the target's fault."""
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))
    try:
        sock.getpeername()
    except OSError:
        return PingResult.SILENT  # not connected yet
    if worker is None:
        return PingResult.ANSWERED
    try:
        return _named(worker, sock.recv(1000))
    except BlockingIOError:
        return PingResult.MUTE


def _named(worker: str, said: bytes) -> PingResult:
    return PingResult.ANSWERED if said == _greeting(worker) else PingResult.REFUSED


async def listen_for_pings(real: RealKey, worker: str) -> asyncio.Server:
    """Listen for the pings of other workers, and send this name. Raises `OSError`."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with bulkhead.contain("a ping of another worker"):
            writer.write(_greeting(worker))
            writer.close()

    return await asyncio.start_server(greet, real.address, real.port, backlog=BACKLOG)


def _greeting(worker: str) -> bytes:
    return f"vipmesh {worker}\n".encode()
