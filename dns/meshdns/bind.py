"""Binds the sockets of the name server: one for UDP and one for TCP at each address.

An address that the host does not have yet, such as that of a container bridge that the engine creates later, is bound
all the same (IP_FREEBIND, ip(7)). A warning is logged, since it may also be a typing error. Port 0 selects a port that
is free for both protocols.
"""

import errno
import logging
import socket
import sys

from meshdns.log_codes import LogCode

log = logging.getLogger("vipmesh")

RECEIVE_BUFFER = 4 << 20
"""Bytes of queries that may wait while others are answered; the kernel accounts about 800 bytes for each query. Values
above net.core.rmem_max require CAP_NET_ADMIN.
"""
_FREEBIND, _FREEBIND6 = 15, 78  # linux/in.h, linux/in6.h
_FORCED = {socket.SO_SNDBUF: 32, socket.SO_RCVBUF: 33}  # asm-generic/socket.h SO_SNDBUFFORCE, SO_RCVBUFFORCE
_TRIES = 16
"""How often port 0 is tried until a port is free for both UDP and TCP."""


class NameServerError(Exception):
    """The server cannot listen on a configured address. The text ends with the remedy."""

    code = LogCode.CANNOT_LISTEN


def bind_sockets(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket, both bound and non-blocking; the TCP socket listens.

    `host` is an IP address. Raises `NameServerError`, and then no socket is left open.
    """
    for left in reversed(range(_TRIES)):
        try:
            tcp = _bound(socket.SOCK_STREAM, host, port)
            try:
                return _bound(socket.SOCK_DGRAM, host, tcp.getsockname()[1]), tcp
            except OSError as error:
                tcp.close()
                # Port 0: the port that the kernel chose for TCP is taken for UDP; try another one.
                if port or not left or error.errno != errno.EADDRINUSE:
                    raise
        except OSError as error:
            raise NameServerError(f"dns: cannot listen on {host}:{port}: {_words(error)}") from error
    raise AssertionError


def _bound(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            # `::` must not listen on IPv4 as well: each configured address has a socket of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _give_room(sock)
        _bind_soon(sock, address)
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def _give_room(sock: socket.socket) -> None:
    """Enlarge the socket's buffers, beyond the system's limit if permitted."""
    for option, forced in _FORCED.items():
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced if sys.platform == "linux" else option, RECEIVE_BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)


def _bind_soon(sock: socket.socket, address: tuple[str | int, ...] | tuple[int, bytes]) -> None:
    """Bind a socket, if need be to an address that the host does not have yet. Raises OSError."""
    try:
        sock.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL or sys.platform != "linux":
            raise
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _FREEBIND6, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        sock.bind(address)
        if sock.type == socket.SOCK_STREAM:
            log.warning(
                "dns: this host does not have the address %s yet; it is served once it does",
                address[0],
                extra=LogCode.CANNOT_LISTEN.extra,
            )


def _words(error: OSError) -> str:
    """Describe an error and its remedy."""
    if error.errno == errno.EADDRINUSE:
        return (
            "the port is taken, often by systemd-resolved, dnsmasq or avahi-daemon; "
            "stop that (`ss -lnp` shows it) or set [dns] listen to another address"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted; give CAP_NET_BIND_SERVICE or set [dns] listen to a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address; set [dns] listen to one that `ip address` shows"
    return f"{error.strerror}; set [dns] listen to another address"
