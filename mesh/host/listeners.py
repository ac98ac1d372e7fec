"""Finds the ports that programs of this host listen on. Publishing one of them would take it from its program.

`parse_listeners` reads the kernel's socket tables (proc_net(5)); `listening_ports` opens them.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from mesh.model.service import Transport

_TABLES = {
    Transport.TCP: ("tcp", "tcp6"),
    Transport.UDP: ("udp", "udp6"),
}
_WAITING = {Transport.TCP: "0A", Transport.UDP: "07"}  # TCP_LISTEN; TCP_CLOSE, a datagram socket without a peer
_LOOPBACK = ("0100007F", "00000000000000000000000001000000")  # 127.0.0.1 and ::1, as a little-endian host prints them


async def listening_ports(root: Path = Path("/proc/net")) -> frozenset[tuple[Transport, int]]:
    """Return the ports in use in this network namespace, except those used on loopback only. Raises `OSError`."""
    return await asyncio.to_thread(lambda: frozenset(_all(root)))


def parse_listeners(table: str, transport: Transport) -> Iterator[int]:
    """Yield the ports in use from the text of /proc/net/tcp, tcp6, udp or udp6, except those used on loopback only."""
    for line in table.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        address, _, port = local.partition(":")
        if state == _WAITING[transport] and address not in _LOOPBACK:
            yield int(port, 16)


def _all(root: Path) -> Iterator[tuple[Transport, int]]:
    for transport, names in _TABLES.items():
        for name in names:
            path = root / name
            if path.exists():  # there is no tcp6 without IPv6
                for port in parse_listeners(path.read_text(), transport):
                    yield transport, port
