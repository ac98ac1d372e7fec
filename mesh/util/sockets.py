"""Non-blocking TCP sockets that close with a reset."""

import asyncio
import errno
import os
import socket
import struct

from mesh.model.service import Address

LINGER_RESET = struct.pack("ii", 1, 0)
"""A `struct linger` with a time of 0: close(2) sends RST and leaves no connection behind (socket(7), SO_LINGER)."""


LOCAL_ERRNOS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES)
)
"""Errors that lie with this worker: it lacks a resource or forbids the connection, so the endpoint was not contacted.
"""


async def connect_socket(address: Address, port: int) -> socket.socket:
    """Return a connected non-blocking socket that resets its connection when it is closed. Raises `OSError`.

    `loop.sock_connect` is not used: uvloop's version resolves the address first, in a pool of threads that slow name
    look-ups may occupy for seconds.
    """
    sock = open_socket(address)
    try:
        error = sock.connect_ex((address, port))
        if error == errno.EINPROGRESS:
            await _writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(sock: socket.socket) -> None:
    """Wait until the socket is writable: it has connected, or failed to (connect(2), EINPROGRESS)."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


def open_socket(address: Address) -> socket.socket:
    """Return a non-blocking socket of the address's family that resets its connection when it is closed."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    return sock
