"""Random source ports of queries to upstreams, from the whole range that is not set aside.

The kernel chooses ports from `ip_local_port_range`, by default 28,000 of them. A forger has to guess the port beside
the ID and the case of the name (RFC 5452, section 4.5), so the others are used as well: from 1024 on, except those that
the host sets aside with `ip_local_reserved_ports`.
"""

import errno
import logging
import secrets
import socket
from pathlib import Path

log = logging.getLogger("vipmesh")

FIRST_PORT, LAST_PORT = 1024, 65535
MAX_BIND_TRIES = 8
"""Random ports that are tried before the kernel may choose."""
RESERVED_PORTS = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
"""Ports that are never chosen, `8080,9148-9150` (Documentation/networking/ip-sysctl.rst)."""

_IN_USE = frozenset((errno.EADDRINUSE, errno.EACCES, errno.EPERM))


class RandomPorts:
    """Binds sockets to random ports."""

    def __init__(self, reserved: Path = RESERVED_PORTS) -> None:
        """Without the file of reserved ports, none is reserved."""
        self._reserved = read_reserved_ports(reserved)

    def bind(self, sock: socket.socket) -> None:
        """Bind an unbound socket to a random free port. If all tries fail, the kernel chooses when it is connected.

        Raises OSError if the socket cannot be bound for another reason than its port.
        """
        anywhere = "::" if sock.family == socket.AF_INET6 else "0.0.0.0"
        for _ in range(MAX_BIND_TRIES):
            port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
            if port in self._reserved:
                continue
            try:
                sock.bind((anywhere, port))
            except OSError as error:
                if error.errno not in _IN_USE:
                    raise
                continue
            return


def read_reserved_ports(path: Path) -> frozenset[int]:
    """Return the reserved ports; empty if the file cannot be read."""
    try:
        text = path.read_text()
    except OSError as error:
        log.debug("dns: %s: %s; no port is reserved", path, error.strerror)
        return frozenset()
    return parse_reserved_ports(text)


def parse_reserved_ports(text: str) -> frozenset[int]:
    """Return the ports of a list such as `8080,9148-9150`. Words that are no ports are left out."""
    ports: set[int] = set()
    for word in text.replace(",", " ").split():
        first, _, last = word.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            ports.update(range(int(first), min(int(last or first), LAST_PORT) + 1))
    return frozenset(ports)
