"""The UDP check: does a datagram get the reply that is expected?

UDP has no connection whose making would say anything, so there is no check without something to send and a reply that
its protocol defines. The socket is connected all the same: the kernel then tells of ICMP errors (udp(7)), and lets in
only what comes from the endpoint itself.
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
    """Healthy if `probe.send` is answered within `probe.timeout` by a datagram with `probe.expect_reply` in it.

    It is sent once: a datagram that is lost is a failure, and what thresholds are for. A reply that is not what is
    expected is a failure at once: a late one of an earlier check cannot come, since each check has a port of its own.
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
    """The beginning of it, as text with escapes."""
    return ascii(reply[:_SHOWN].decode("latin-1")) + ("..." if len(reply) > _SHOWN else "")
