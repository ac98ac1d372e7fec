"""Connections to the admin API that keep places without a request: they are shared, and they end."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mesh.api.http import connections
from mesh.api.http.connections import ConnectionGuard, read_body_in_time, while_handled

DATA = Path(__file__).resolve().parents[2] / "data"
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def server_tls() -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(DATA / "endpoint-cert.pem", DATA / "endpoint-key.pem")
    return tls


def client_tls() -> ssl.SSLContext:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


class Served:
    """A guarded server with one path, whose handler may take its time."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.release.set()
        self.bodies: list[bytes] = []
        self.guard: ConnectionGuard
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        await self.release.wait()
        self.bodies.append(await request.read())
        return web.Response(text="fine")

    async def free(self, number: int) -> None:
        """Wait until this many places are free."""
        async with asyncio.timeout(10):
            while self.guard.shares.free != number:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    most: int = 10, *, head: float = 60.0, idle: float = 60.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    served, guards = Served(), list[ConnectionGuard]()
    app = web.Application(middlewares=[while_handled(guards), read_body_in_time])
    app.router.add_route("*", "/", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    served.guard = ConnectionGuard(runner.server, most, tls, head=head, idle=idle)
    guards.append(served.guard)
    server = await asyncio.get_running_loop().create_server(served.guard, "0.0.0.0", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        await runner.cleanup()
    await served.free(most)


@asynccontextmanager
async def connected(
    served: Served, client: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, local_addr=(client, 0), ssl=tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def is_answered(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        try:
            return b"200 OK" in await reader.readuntil(b"fine")
        except (ConnectionResetError, asyncio.IncompleteReadError):
            return False


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: lo"], ids=["silent", "unfinished head"])
async def test_unfinished_requests_leave_places_to_others_and_end(secure: bool, sent: bytes) -> None:
    async with serving(head=1.0, tls=server_tls() if secure else None) as served, AsyncExitStack() as stack:
        flood = [await stack.enter_async_context(connected(served, "127.0.0.2")) for _ in range(40)]
        for _, writer in flood:
            writer.write(sent)
        reader, writer = await stack.enter_async_context(
            connected(served, "127.0.0.3", client_tls() if secure else None)
        )
        writer.write(REQUEST)
        assert await is_answered(reader)
        await served.free(9)  # the flood has been ended; the connection with a finished request stays
        writer.write(REQUEST)
        assert await is_answered(reader)


async def test_a_handler_may_take_longer_than_any_request_may() -> None:
    async with serving(head=0.2, idle=0.2) as served, connected(served) as (reader, writer):
        served.release.clear()
        writer.write(REQUEST)
        await asyncio.sleep(0.6)
        served.release.set()
        assert await is_answered(reader)
        async with asyncio.timeout(10):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)  # it was idle for too long


async def test_a_body_must_arrive_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.2)
    async with serving() as served, connected(served) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        assert not await is_answered(reader)
        await served.free(10)
        assert served.bodies == []


async def test_a_body_is_read_as_it_was_sent() -> None:
    async with serving() as served, connected(served) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody")
        assert await is_answered(reader)
        assert served.bodies == [b"body"]


async def test_a_client_that_speaks_no_tls_is_dropped() -> None:
    async with serving(tls=server_tls()) as served, connected(served) as (reader, writer):
        writer.write(REQUEST)
        assert not await is_answered(reader)
        await served.free(10)


async def test_many_requests_over_one_tls_connection() -> None:
    async with serving(tls=server_tls()) as served, connected(served, tls=client_tls()) as (reader, writer):
        for _ in range(5):
            writer.write(REQUEST)
            assert await is_answered(reader)
