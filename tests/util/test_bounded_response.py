"""A response without end is refused before it fills the memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mesh.sources.docker.client import list_containers, open_client
from mesh.sources.docker.source import DockerSource
from mesh.store import StoreError
from mesh.store.etcd import EtcdClient
from mesh.store.etcd.errors import EtcdResponseTooLargeError, EtcdUnreachableError
from mesh.store.etcd.messages import RangeResponse, WatchResponse, encode_request
from mesh.store.etcd.watch import WatchStream
from mesh.util.bounded_response import MAX_RESPONSE_BYTES, BoundedResponse, ResponseTooLargeError
from tests.system.docker.test_source import RULES, trouble, watching


class Endless:
    """Answers every request without end, and counts the bytes that it could send."""

    def __init__(self, before: bytes = b"") -> None:
        self.before = before
        self.sent = 0
        self.requests = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if request.path.endswith("version"):
            return web.json_response({"ApiVersion": "1.41"})
        if request.path.endswith("events"):
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(self.before)
        try:
            while True:
                await response.write(b" " * 65_536)
                self.sent += 65_536
        except (ConnectionError, aiohttp.ClientConnectionResetError):
            return response


@pytest.fixture
async def endless() -> AsyncIterator[tuple[Endless, str]]:
    server = Endless()
    async with serve(server) as url:
        yield server, url


@asynccontextmanager
async def serve(server: Endless, path: Path | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0) if path is None else web.UnixSite(runner, path)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}" if path is None else f"unix://{path}"
    finally:
        await runner.cleanup()


async def test_a_response_without_end_is_refused(endless: tuple[Endless, str]) -> None:
    server, url = endless
    async with aiohttp.ClientSession(response_class=BoundedResponse) as session, session.get(url) as response:
        with pytest.raises(ResponseTooLargeError, match="more than 8 MiB"):
            await response.json()
    assert server.sent < MAX_RESPONSE_BYTES + (24 << 20), "the rest is what sockets buffer"


async def test_a_response_of_ordinary_length_is_read_as_ever() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"a": "b" * 100_000})

    server = Endless()
    server.answer = answer  # type: ignore[method-assign, assignment]
    async with serve(server) as url, aiohttp.ClientSession(response_class=BoundedResponse) as session:
        for _ in range(3):
            async with session.get(url) as response:
                assert (await response.json())["a"] == "b" * 100_000
                assert await response.read() == await response.read()
        assert session.connector is not None
        assert len(list(session.connector._conns.values())) == 1, "the connection is used again"  # noqa: SLF001


async def test_an_engine_that_answers_without_end_is_reported(tmp_path: Path) -> None:
    server = Endless(b"[")
    async with serve(server, tmp_path / "docker.sock") as url, open_client(url) as docker:
        with pytest.raises(ResponseTooLargeError):
            await list_containers(docker)


async def test_etcd_that_answers_without_end_is_reported(endless: tuple[Endless, str]) -> None:
    _, url = endless
    client = EtcdClient((url,))
    try:
        with pytest.raises(StoreError, match="more than 8 MiB") as caught:
            await client.call("kv/range", {"key": b"x"}, RangeResponse)
        assert isinstance(caught.value, EtcdResponseTooLargeError)
    finally:
        await client.close()


class Pieces:
    """The content of a response that arrives in pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self.pieces = [data[at : at + size] for at in range(0, len(data), size)][::-1]
        self.content = self

    async def readany(self) -> bytes:
        return self.pieces.pop() if self.pieces else b""


LINES = b"".join(
    encode_request({"result": {"header": {"revision": str(n)}, "events": [{"kv": {"key": b"k%d" % n}}]}}) + b"\n"
    for n in range(1, 40)
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
async def test_a_watch_is_read_in_pieces_of_any_size(size: int) -> None:
    stream = WatchStream(Pieces(LINES, size), None)  # type: ignore[arg-type]
    found: list[WatchResponse] = []
    while len(found) < 39:
        found += await anext(stream)
    with pytest.raises(EtcdUnreachableError, match="ended the watch"):
        await anext(stream)
    assert [answer.header.revision for answer in found] == list(range(1, 40))


async def test_a_line_of_a_watch_without_end_is_refused_in_linear_time() -> None:
    stream = WatchStream(Pieces(b"x" * (MAX_RESPONSE_BYTES + 100_000), 1000), None)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        with pytest.raises(EtcdUnreachableError, match="a line of more than 8 MiB"):
            await anext(stream)


async def test_a_source_says_that_its_engine_answers_without_end(tmp_path: Path) -> None:
    server = Endless(b"[")
    async with serve(server, tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, answer=10.0)
        async with watching(source):
            await trouble(source, "check that it is a container engine")
