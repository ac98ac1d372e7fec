"""The UDP check over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from typing_extensions import override

from mesh.health.checks.udp import check_udp
from mesh.model.probe import Probe, ProbeKind

PROBE = Probe(ProbeKind.UDP, None, timeout=5, send=b"PING\0", expect_reply=b"PONG")
HASTY = replace(PROBE, timeout=0.2)


class Replies(asyncio.DatagramProtocol):
    def __init__(self, reply: bytes | None, asked: asyncio.Event | None = None) -> None:
        self.reply = reply
        self.asked = asked or asyncio.Event()
        self.received: list[bytes] = []

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append(data)
        self.asked.set()
        if self.reply is not None:
            self.transport.sendto(self.reply, addr)


@asynccontextmanager
async def replies(
    reply: bytes | None, host: str = "127.0.0.1", *, asked: asyncio.Event | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Yields the port and the datagrams received so far; `asked` is set when there is one."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Replies(reply, asked), local_addr=(host, 0))
    yield transport.get_extra_info("sockname")[1], protocol.received
    transport.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_expected_reply_is_healthy(host: str) -> None:
    async with replies(b"\xff PONG", host) as (port, received):
        verdict = await check_udp(host, port, PROBE)
    assert (verdict.ok, verdict.reason) == (True, "replied")
    assert received == [b"PING\0"]


async def test_any_reply_is_healthy_if_none_is_expected() -> None:
    async with replies(b"\0") as (port, _):
        verdict = await check_udp("127.0.0.1", port, replace(PROBE, expect_reply=b""))
    assert (verdict.ok, verdict.reason) == (True, "replied")


async def test_an_unexpected_reply_is_shown() -> None:
    async with replies(b"ERR\r\n" + b"x" * 20) as (port, _):
        verdict = await check_udp("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "reply is not as expected: 'ERR\\r\\nxxxxxxxxxxxxxxx'...")


async def test_no_reply_in_time() -> None:
    async with replies(None) as (port, received):
        verdict = await check_udp("127.0.0.1", port, HASTY)
    assert (verdict.ok, verdict.reason) == (False, "no answer in 0.2 s")
    assert len(received) == 1


async def test_a_closed_port_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    verdict = await check_udp("127.0.0.1", port, PROBE)
    assert (verdict.ok, verdict.reason) == (False, "refused")


async def test_a_reply_from_another_address_does_not_count() -> None:
    asked = asyncio.Event()
    async with replies(None, asked=asked) as (port, _), asyncio.TaskGroup() as group:
        task = group.create_task(check_udp("127.0.0.1", port, replace(PROBE, timeout=1)))
        await asked.wait()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
                _, local, remote, *_ = line.split()
                if int(remote.rpartition(":")[2], 16) == port:
                    stranger.sendto(b"PONG", ("127.0.0.1", int(local.rpartition(":")[2], 16)))
        assert not (await task).ok
