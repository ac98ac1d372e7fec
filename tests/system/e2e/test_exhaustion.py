"""A daemon without file descriptors: names are answered, the admin socket works, and no endpoint is judged for it."""

import asyncio
import os
import re
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from typing_extensions import override

from tests.system.e2e.programs import Program, eventually, free_port, status, vipmesh

FEW = 256
"""The limit of file descriptors of the daemon."""
COMPOSE = """
name: shop
services:
  web:
    labels:
      mesh.routing.port_80: http://web.shop.test:8000
      mesh.probe.url: http://container:80/
      mesh.probe.interval_seconds: "0.5"
      mesh.probe.timeout_seconds: "0.4"
      mesh.probe.unhealthy_threshold: "2"
    x-endpoints: ["127.0.0.21:{port}", "127.0.0.22:{port}"]
"""


class Answering(asyncio.Protocol):
    """Answers one HTTP request."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()


@asynccontextmanager
async def answering(address: str, port: int) -> AsyncIterator[asyncio.Server]:
    """An endpoint."""

    server = await asyncio.get_running_loop().create_server(Answering, address, port)
    try:
        yield server
    finally:
        server.close()


class Lab:
    """The daemon, two endpoints, and what the tests ask."""

    def __init__(self, directory: Path) -> None:
        self.dns, self.admin_tcp, self.backends = free_port(), free_port(), free_port()
        self.admin = f"unix://{directory}/run/admin.sock"
        (directory / "compose.yaml").write_text(COMPOSE.format(port=self.backends))
        (directory / "token").write_text("secret-token-of-this-test\n")
        (directory / "token").chmod(0o600)
        self.settings = directory / "vipmesh.toml"
        self.settings.write_text(
            f"""
            [node]
            name = "w1"
            [vip]
            pool = "127.113.0.0/16"
            [dataplane]
            driver = "userspace"
            [dns]
            listen = ["127.0.0.1:{self.dns}"]
            upstream = ["127.0.0.1:{free_port()}"]
            [store]
            url = "sqlite:///{directory}/state/store.db"
            [admin]
            listen = "{self.admin}"
            tcp = "127.0.0.1:{self.admin_tcp}"
            token_file = "{directory}/token"
            [source.compose]
            files = ["{directory}/compose.yaml"]
            """
        )

    async def health(self) -> dict[str, str]:
        """The health of each endpoint by its address; empty before the service is known."""
        services = (await status(self.admin))["services"]
        endpoints = (each for service in services for each in service["endpoints"])
        return {each["address"].partition(":")[0]: each["health"] for each in endpoints}

    async def vip(self) -> str:
        (service,) = (await status(self.admin))["services"]
        return str(service["vip"])

    async def resolves(self) -> bool:
        """Whether the name is answered over UDP, within a second."""
        question = b"".join(bytes([len(each)]) + each.encode() for each in ("web", "shop", "test")) + b"\0"
        query = struct.pack("!6H", 77, 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.dns))
            sock.send(query)
            async with asyncio.timeout(5):
                answer = await asyncio.get_running_loop().sock_recv(sock, 512)
        return answer[:2] == query[:2] and struct.unpack("!H", answer[6:8])[0] == 1


@asynccontextmanager
async def running(lab: Lab, limit: int) -> AsyncIterator[Program]:
    """The daemon with this limit of descriptors, once both endpoints are healthy."""
    async with vipmesh("run", "-c", str(lab.settings), prefix=("prlimit", f"--nofile={limit}:{limit}")) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lab.health, lambda found: found == {"127.0.0.21": "healthy", "127.0.0.22": "healthy"})
        await eventually(lab.resolves, bool)  # the name is there with the pass that follows the verdicts
        yield daemon


async def flood(address: str, port: int, client: str, number: int, stack: AsyncExitStack) -> int:
    """Open connections that send nothing, as far as they are accepted; return how many."""
    opened = 0
    for _ in range(number):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.bind((client, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except OSError:
            continue  # reset before it was accepted
        opened += 1
    return opened


async def verdicts(lab: Lab) -> list[dict[str, Any]]:
    (service,) = (await status(lab.admin))["services"]
    return [verdict for each in service["endpoints"] for verdict in each["verdicts"]]


async def test_floods_on_all_doors_use_up_nothing_that_others_need(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(answering("127.0.0.22", lab.backends))
        broken = await stack.enter_async_context(answering("127.0.0.21", lab.backends))
        daemon = await stack.enter_async_context(running(lab, FEW))
        vip = await lab.vip()
        doors = [(vip, 8000), ("127.0.0.1", lab.admin_tcp), ("127.0.0.1", lab.dns)]
        for client in ("127.0.0.2", "127.0.0.3"):
            for address, port in doors:
                assert await flood(address, port, client, FEW, stack) > 0
        assert await lab.resolves()
        assert await lab.health() == {"127.0.0.21": "healthy", "127.0.0.22": "healthy"}
        assert all(verdict["ok"] for verdict in await verdicts(lab))
        with socket.socket() as sock:  # another client is answered over TCP
            sock.setblocking(False)
            sock.bind(("127.0.0.9", 0))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                await loop.sock_connect(sock, ("127.0.0.1", lab.dns))
                await loop.sock_sendall(sock, b"\0\x0c" + struct.pack("!6H", 5, 0, 0, 0, 0, 0))
                assert await loop.sock_recv(sock, 2)
        broken.close()  # what is really broken is found out all the same
        await eventually(lab.health, lambda found: found["127.0.0.21"] == "unhealthy")
        assert (await lab.health())["127.0.0.22"] == "healthy"
        assert await daemon.end() == 0


def take_descriptors(daemon: Program) -> Callable[[], None]:
    """Leave the daemon no descriptor to open; return what gives it all of them back."""
    pid = daemon.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    return lambda: (resource.prlimit(pid, resource.RLIMIT_NOFILE, before), None)[1]


async def always(ask: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Ask again and again for this long; each answer must be True."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        assert await ask()
        await asyncio.sleep(0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes a limit of another process: needs root")
async def test_without_any_descriptor_names_are_answered_and_no_endpoint_is_judged(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    async with AsyncExitStack() as stack:
        for address in ("127.0.0.21", "127.0.0.22"):
            await stack.enter_async_context(answering(address, lab.backends))
        daemon = await stack.enter_async_context(running(lab, 4096))
        give_back = take_descriptors(daemon)
        try:
            await always(lab.resolves, 4.0)  # eight intervals: enough for two failures in a row
        finally:
            give_back()
        await eventually(lambda: status(lab.admin), lambda found: bool(found["services"]))
        assert await lab.health() == {"127.0.0.21": "healthy", "127.0.0.22": "healthy"}
        assert all(verdict["ok"] for verdict in await verdicts(lab))
        assert await daemon.end() == 0
        said = "".join(daemon.output)  # it is over in `status` with the next check
        assert re.search(r"too many open files.*VM771", said), said
