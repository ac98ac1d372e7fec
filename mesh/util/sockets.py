"""Non-blocking TCP sockets that close with a reset."""

import asyncio
import errno
import os
import socket
import struct

from mesh.model.service import Address

LINGER_RESET = struct.pack("ii", 1, 0)
"""`struct linger`: on, no time: close sends RST and forgets the connection."""


LOCAL_ERRNOS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES)
)
"""What the worker lacks or forbids: the endpoint was not even asked."""


async def connect_socket(address: Address, port: int) -> socket.socket:
    """A connected non-blocking socket that resets when it is closed. Raises `OSError`.

    Not by `loop.sock_connect`: uvloop's resolves the address first, in threads that names may keep waiting for seconds.
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
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


def open_socket(address: Address) -> socket.socket:
    """The same, before it is connected to this address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    return sock
