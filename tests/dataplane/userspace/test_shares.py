"""Clients of the user-space proxy share its connections; what is idle ends, and what the worker lacks is no refusal."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from mesh.dataplane.userspace.tcp_proxy import ProxyBackend, RealServerMeter, TcpListener
from mesh.dataplane.userspace.udp_proxy import UdpListener
from mesh.model.service import Address
from mesh.model.table import RealKey
from mesh.util.connection_shares import ConnectionShares
from mesh.util.sockets import LACK_ERRNOS
from tests.system.e2e.programs import free_port


class OneRealServer(ProxyBackend):
    """A virtual server with one real server."""

    def __init__(self, port: int) -> None:
        self.real = RealKey("127.0.0.1", port)
        self.refusals = 0

    @override
    def pick(self, client: Address, without: set[RealKey]) -> RealKey | None:
        return None if self.real in without else self.real

    @override
    def refused(self, real: RealKey, *, answered: bool = True) -> None:
        self.refusals += 1

    @override
    def opened(self, real: RealKey) -> RealServerMeter:
        return RealServerMeter()

    @override
    def closed(self, real: RealKey) -> None:
        pass


@asynccontextmanager
async def proxied(shares: ConnectionShares, idle: float = 60.0) -> AsyncIterator[tuple[int, OneRealServer]]:
    """A proxy before a server that echoes; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoing.add(writer)
        try:
            while data := await reader.read(100):
                writer.write(data)
        except ConnectionResetError:
            return
        finally:
            writer.transport.abort()
            echoing.discard(writer)

    echoing = set[asyncio.StreamWriter]()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    behind = OneRealServer(server.sockets[0].getsockname()[1])
    listener, port = TcpListener(behind, shares, idle), free_port()
    await listener.open("0.0.0.0", port)
    try:
        yield port, behind
    finally:
        await listener.close()
        async with asyncio.timeout(10):
            while echoing:
                await asyncio.sleep(0.01)
        server.close()


async def echoes(port: int, client: str, kept: list[asyncio.StreamWriter]) -> bool:
    """Whether a new connection of the client reaches the real server; it is kept open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client, 0))
    kept.append(writer)
    writer.write(b"x")
    try:
        async with asyncio.timeout(10):
            return await reader.read(1) == b"x"
    except ConnectionResetError:
        return False


async def test_a_client_that_floods_leaves_connections_to_others() -> None:
    shares, kept = ConnectionShares(10), list[asyncio.StreamWriter]()
    async with proxied(shares) as (port, behind):
        assert sum([await echoes(port, "127.0.0.2", kept) for _ in range(30)]) == 8
        assert await echoes(port, "127.0.0.3", kept)
        for writer in kept:
            writer.transport.abort()
        async with asyncio.timeout(10):
            while shares.free < 10:
                await asyncio.sleep(0.01)
        assert not behind.refusals
    assert shares.free == 10


async def test_an_idle_connection_is_reset_and_a_busy_one_stays() -> None:
    async with proxied(ConnectionShares(10), idle=0.8) as (port, _):
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        busy, writer = await asyncio.open_connection("127.0.0.1", port)
        is_reset = asyncio.ensure_future(idle.read(1))
        async with asyncio.timeout(20):
            while not is_reset.done():
                writer.write(b"x")
                assert await busy.read(1) == b"x"
                await asyncio.wait([is_reset], timeout=0.05)
        assert isinstance(is_reset.exception(), ConnectionResetError)
        writer.write(b"x")
        assert await busy.read(1) == b"x"
        writer.transport.abort()
        idle_writer.transport.abort()


@pytest.mark.parametrize("code", [*sorted(LACK_ERRNOS), errno.ECONNREFUSED], ids=errno.errorcode.get)
async def test_what_the_worker_lacks_is_no_refusal_of_the_real_server(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def lacking(protocol: Any, host: str, port: int, **options: Any) -> Any:
        if port == behind.real.port:
            raise OSError(code, os.strerror(code))
        return await connect(protocol, host, port, **options)

    async with proxied(ConnectionShares(10)) as (port, behind):
        monkeypatch.setattr(loop, "create_connection", lacking)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.transport.abort()
    assert behind.refusals == (code not in LACK_ERRNOS)


async def test_sessions_of_a_client_that_floods_leave_some_to_others() -> None:
    shares = ConnectionShares(10)
    listener = UdpListener(OneRealServer(free_port()), shares=shares)
    await listener.open("127.0.0.1", free_port())
    for port in range(1000, 1100):
        listener.datagram_received(b"x", ("10.0.0.1", port))
    assert shares.free == 2
    listener.datagram_received(b"x", ("10.0.0.2", 1))
    assert shares.free == 1
    for number in range(3, 100):
        listener.datagram_received(b"x", (f"10.0.0.{number}", 1))
    assert shares.free == 0, "with many clients the least recently used sessions end"
    await listener.close()
    await asyncio.sleep(0)  # the transports close in the next turn of the loop
    assert shares.free == 10
