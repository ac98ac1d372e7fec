"""Forwarding loops: an upstream that leads back to us, directly or through others, is detected and not used."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from dnslib import RCODE, DNSRecord

from meshdns import loop_detection as loops
from meshdns.forwarder import Forwarder
from meshdns.loop_detection import own_address_matcher
from meshdns.server import NameServer
from meshdns.upstreams import Upstreams
from meshdns.zone import Zone
from tests.meshdns.servers import dnsmasq
from tests.meshdns.upstream import good, question, resolve, upstream
from tests.system.e2e.programs import eventually, free_port

ZONE = Zone.build({"web.mesh.internal": ["10.112.0.7"]}, ["mesh.internal"])


@pytest.mark.parametrize(
    ("listen", "address", "own"),
    [
        (("127.0.0.1", 53), ("127.0.0.1", 53), True),
        (("127.0.0.1", 53), ("127.0.0.1", 54), False),
        (("127.0.0.1", 53), ("127.0.0.53", 53), False),
        (("127.0.0.1", 53), ("0.0.0.0", 53), True),
        (("0.0.0.0", 53), ("127.0.0.1", 53), True),
        (("0.0.0.0", 53), ("127.9.9.9", 53), True),
        (("0.0.0.0", 53), ("192.0.2.1", 53), False),
        (("0.0.0.0", 53), ("127.0.0.1", 54), False),
        (("0.0.0.0", 53), ("::1", 53), False),
        (("::", 53), ("::1", 53), True),
        (("fe80::1", 53), ("fe80::1%eth0", 53), True),
    ],
)
def test_which_addresses_are_our_own(listen: tuple[str, int], address: tuple[str, int], own: bool) -> None:
    assert own_address_matcher([listen])(address) is own


@asynccontextmanager
async def serving(port: int, *upstreams: tuple[str, int]) -> AsyncIterator[tuple[NameServer, Upstreams, Forwarder]]:
    asked = Upstreams(upstreams)
    forwarder = Forwarder(asked)
    server = NameServer([("127.0.0.1", port)], ZONE, forwarder)
    await server.start()
    try:
        yield server, asked, forwarder
    finally:
        await server.stop()


async def looping(upstreams: Upstreams) -> list[bool]:
    return [each.looping for each in upstreams.all()]


@pytest.mark.parametrize("others", [1, 3])
async def test_a_loop_through_other_servers(others: int, caplog: pytest.LogCaptureFixture) -> None:
    ports = [free_port() for _ in range(others + 1)]
    async with AsyncExitStack() as stack, upstream(good) as true_one:
        for here, there in zip(ports[1:], [*ports[2:], ports[0]], strict=True):
            await stack.enter_async_context(serving(here, ("127.0.0.1", there)))
        _, upstreams, forwarder = await stack.enter_async_context(
            serving(ports[0], ("127.0.0.1", ports[1]), true_one.address)
        )
        first = asyncio.ensure_future(resolve(forwarder, question("first.test")))
        await eventually(lambda: looping(upstreams), lambda found: found == [True, False])
        assert "a loop" in caplog.text
        assert f"127.0.0.1:{ports[1]} asks us what we ask it" in caplog.text
        assert str((await resolve(forwarder, question())).rr[0].rdata) == "192.0.2.1", "the other one is asked"
        assert str((await first).rr[0].rdata) == "192.0.2.1", "by the first question too, if a little later"


async def test_an_upstream_that_answers_itself_is_not_suspected() -> None:
    async with upstream(good) as server, serving(0, server.address) as (_, upstreams, forwarder):
        for number in range(50):
            await resolve(forwarder, question(f"n{number}.test"), "10.0.0.1")
        assert await looping(upstreams) == [False]


async def test_a_loop_that_begins_later_is_detected_by_returning_queries(caplog: pytest.LogCaptureFixture) -> None:
    async with upstream(good) as server, serving(0, server.address) as (name_server, upstreams, forwarder):

        async def forward(query: DNSRecord) -> None:
            host, port = name_server.addresses[0]
            await asyncio.to_thread(query.send, host, port, timeout=1)

        tasks: list[asyncio.Task[None]] = []

        def back(query: DNSRecord) -> None:
            """It forwards to us from now on, from another address than the client's."""
            tasks.append(asyncio.ensure_future(forward(query)))

        server.reply = back
        server.loops = back
        waiting = asyncio.ensure_future(resolve(forwarder, question(), "10.0.0.1"))
        await eventually(lambda: looping(upstreams), lambda found: found == [True])
        assert "a loop" in caplog.text
        for task in tasks:
            task.cancel()
        waiting.cancel()


@pytest.mark.looptime
async def test_an_upstream_is_used_again_when_its_loop_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Way:
        sent: list[bytes] = []  # noqa: RUF012

        def ask(self, _: object, packet: bytes, heard: object) -> object:
            self.sent.append(packet[10:-4])
            return lambda: None

    way = Way()
    upstreams = Upstreams([("192.0.2.1", 53)])
    watch = loops.LoopDetector(way)  # type: ignore[arg-type]
    watch.look(upstreams.all())
    name = way.sent[0][: way.sent[0].index(0) + 1]
    assert not watch.recognise(b"\x04test\0")
    assert watch.recognise(name)
    assert not watch.recognise(name), "only once: whoever saw it pass cannot use it"
    assert await looping(upstreams) == [True]
    await asyncio.sleep(loops.CHECK_INTERVAL + 1)
    assert len(way.sent) == 2, "it is looked at again"
    assert watch.recognise(way.sent[1][: way.sent[1].index(0) + 1])
    assert caplog.text.count("a loop") == 1, "told once"
    await asyncio.sleep(loops.CHECK_INTERVAL + loops.LOOP_TIMEOUT + 1)
    assert await looping(upstreams) == [False]
    watch.close()


async def test_dnsmasq_that_forwards_to_us(tmp_path: Path) -> None:
    ours = free_port()
    async with (
        dnsmasq(tmp_path, f"--server=127.0.0.1#{ours}") as theirs,
        serving(ours, theirs) as (_, upstreams, forwarder),
    ):
        first = asyncio.ensure_future(resolve(forwarder, question("first.test")))
        await eventually(lambda: looping(upstreams), lambda found: found == [True])
        assert (await first).header.rcode == RCODE.SERVFAIL
        assert (await resolve(forwarder, question())).header.rcode == RCODE.REFUSED, "there is nobody else"
