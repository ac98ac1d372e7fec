"""The UDP check: does a datagram get the expected reply?

UDP has no handshake that would show anything, so the check needs a datagram to send and a protocol that defines a
reply. The socket is connected all the same: the kernel then reports ICMP errors (udp(7)) and accepts datagrams only
from the endpoint.
"""

import asyncio
import socket

from mesh.health.checks.tcp import await_verdict
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe
from mesh.model.service import Address

_DATAGRAM = 65535
_SHOWN = 20


async def check_udp(address: Address, port: int, probe: Probe) -> Verdict:
    """Succeed if `probe.send` is answered within `probe.timeout` by a datagram that contains `probe.expect_reply`.

    It is sent once: a lost datagram is a failure, which the thresholds tolerate. An unexpected reply is a failure
    immediately: it cannot be a late reply to an earlier check, since each check has its own port.
    """
    return await await_verdict(_ask(address, port, probe), probe.timeout)


async def _ask(address: Address, port: int, probe: Probe) -> tuple[bool, str]:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((address, port))
        sock.send(probe.send)
        reply = await loop.sock_recv(sock, _DATAGRAM)
    if probe.expect_reply not in reply:
        return False, f"reply is not as expected: {_shown(reply)}"
    return True, "replied"


def _shown(reply: bytes) -> str:
    """Return the beginning of the reply as text with escapes."""
    return ascii(reply[:_SHOWN].decode("latin-1")) + ("..." if len(reply) > _SHOWN else "")
