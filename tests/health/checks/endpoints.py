"""Scripted endpoints on loopback, and the socket states that their connections leave in the kernel."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias, cast

from typing_extensions import override

DATA = Path(__file__).parents[2] / "data"
"""`endpoint-cert.pem` is self-signed for 127.0.0.1 and ::1, valid for a hundred years:

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
    -subj "/CN=vipmesh test endpoint" -addext "subjectAltName=IP:127.0.0.1,IP:::1" \
    -addext "keyUsage=critical,digitalSignature,keyCertSign" -keyout endpoint-key.pem -out endpoint-cert.pem
"""

Script: TypeAlias = Callable[[asyncio.Transport], None]
"""What an endpoint does once it has received something."""


class Endpoint(asyncio.Protocol):
    """One connection to an endpoint; `requests` collects what came over all of them."""

    def __init__(self, script: Script, requests: list[bytes], open_ones: set[asyncio.Transport]) -> None:
        self.script, self.requests, self.open_ones = script, requests, open_ones

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.open_ones.add(self.transport)

    @override
    def data_received(self, data: bytes) -> None:
        self.requests.append(data)
        self.script(self.transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.open_ones.discard(self.transport)


@asynccontextmanager
async def endpoint(
    script: Script, host: str = "127.0.0.1", tls: bool = False
) -> AsyncIterator[tuple[int, list[bytes], set[asyncio.Transport]]]:
    """Yields the port, the requests received so far and the connections that are open."""
    requests: list[bytes] = []
    open_ones: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: Endpoint(script, requests, open_ones), sock=_listener(host), ssl=server_tls() if tls else None
    )
    try:
        yield server.sockets[0].getsockname()[1], requests, open_ones
    finally:
        server.close()
        for transport in tuple(open_ones):
            transport.abort()
        await until(lambda: not open_ones)
        await server.wait_closed()


def _listener(host: str) -> socket.socket:
    """On a port that nobody's TIME_WAIT mentions: what is seen there later has come since."""
    for _ in range(100):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        if TIME_WAIT not in socket_states(listener.getsockname()[1]):
            return listener
        listener.close()
    raise AssertionError("no port without a TIME_WAIT in a hundred")


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "endpoint-cert.pem", DATA / "endpoint-key.pem")
    return context


def says(*parts: bytes) -> Script:
    """Write the parts, one per turn of the loop, so that they may come as separate segments; stay open."""

    def script(transport: asyncio.Transport) -> None:
        for number, part in enumerate(parts):
            asyncio.get_running_loop().call_later(number * 0.01, transport.write, part)

    return script


def hangs(_: asyncio.Transport) -> None:
    """Accept, read, and say nothing."""


def closes(transport: asyncio.Transport) -> None:
    """Close without a word."""
    transport.close()


async def until(true: Callable[[], bool], limit: float = 20.0) -> None:
    """Let the loop run until something is so; fails after `limit` seconds."""
    async with asyncio.timeout(limit):
        while not true():
            await asyncio.sleep(0.005)


TIME_WAIT = "06"


def socket_states(port: int) -> list[str]:
    """The states of all TCP sockets that have `port` at either end, in the two digits of /proc/net/tcp (proc(5))."""
    states = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if port in (int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)):
                states.append(state)
    return states
