"""Ports that programs of this host listen on."""

import socket
from pathlib import Path

from mesh.host.listeners import listening_ports, parse_listeners
from mesh.model.service import Transport

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0201A8C0:1F90 0301A8C0:D431 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
"""


def test_listening_sockets_reachable_by_other_hosts() -> None:
    assert list(parse_listeners(TCP, Transport.TCP)) == [22]


async def test_they_are_read_from_the_kernel(tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("", 0))
        with socket.create_server(("127.0.0.1", 0)) as inside:
            found = await listening_ports()
            assert {(Transport.TCP, tcp.getsockname()[1]), (Transport.UDP, udp.getsockname()[1])} <= found
            assert (Transport.TCP, inside.getsockname()[1]) not in found
    assert await listening_ports(tmp_path) == frozenset(), "a kernel without any of them"
