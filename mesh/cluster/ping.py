"""Asking somebody whether he is there, and answering it.

A question is a connection that is closed at once: that it is accepted, or refused, is all that is asked. A worker says
its name first, since an address may be another's by now.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from mesh.cluster.failure_detector import PingResult
from mesh.model.table import RealKey
from mesh.util.sockets import LOCAL_ERRNOS, open_socket

PING_TIMEOUT = 0.3
"""Seconds that an answer may take. Four rounds in which somebody is silent last 1.2 s: an endpoint is lost when it and
the kernel of its host have stood still for that long, with nothing lost on the way."""
MAX_TIMER_DELAY = 0.25
"""Seconds. If no answer is there and the timeout comes so late, this host stood still, and that says nothing of who was
asked."""
BACKLOG = 1024
"""Questions that wait for this process: as long as the kernel takes them, the others see that the host is there."""

PingFunction: TypeAlias = Callable[[RealKey, str | None], Awaitable[PingResult | None]]
"""Asks one place, for a worker if one is named; None: this worker could not ask."""


async def ping_worker(real: RealKey, worker: str | None) -> PingResult | None:
    """A `PingFunction`, by TCP."""
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
    """Wait until something has arrived, or until the connection is there, or in vain."""
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
    """What the kernel has of an answer: where this process comes late to look, that is not the other's fault."""
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
    """Be there for the others, under this name. Raises `OSError`."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_greeting(worker))
        writer.close()

    return await asyncio.start_server(greet, real.address, real.port, backlog=BACKLOG)


def _greeting(worker: str) -> bytes:
    return f"vipmesh {worker}\n".encode()
