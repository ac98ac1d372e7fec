"""Non-blocking TCP sockets that close with a reset."""

import asyncio
import errno
import os
import socket
import struct

from mesh.model.service import Address

LINGER_RESET = struct.pack("ii", 1, 0)
"""A `struct linger` with a time of 0: close(2) sends RST and leaves no connection behind (socket(7), SO_LINGER)."""


LACK_ERRNOS = frozenset(
    (
        errno.EMFILE,  # file descriptors of this process: socket(2)
        errno.ENFILE,  # file descriptors of the host: socket(2)
        errno.ENOBUFS,  # memory for sockets: socket(2), send(2)
        errno.ENOMEM,  # memory of the kernel: socket(2), connect(2)
        errno.EADDRNOTAVAIL,  # ports or an address to connect from: connect(2)
        errno.EAGAIN,  # entries of the routing cache, or room in the socket's buffer: connect(2), send(2)
        errno.ENOSPC,  # epoll watches of this user: epoll_ctl(2)
    )
)
"""Errors of a resource that this worker lacks. No ICMP message and no reset results in one of them (icmp_err_convert,
net/ipv4/icmp.c), so no other host can cause them.
"""
LOCAL_ERRNOS = LACK_ERRNOS | {errno.EPERM, errno.EACCES}
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
