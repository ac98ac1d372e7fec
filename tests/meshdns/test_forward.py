"""forward: who is asked, what is believed, and when it gives up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from meshdns.forward import Forwarder, upstreams_from_resolv_conf

PACKET = bytes(DNSRecord.question("example.test").pack())


class Upstream(asyncio.DatagramProtocol):
    """A name server that answers as `reply` says; None: not at all."""

    def __init__(self, reply: Callable[[DNSRecord], bytes | None]) -> None:
        self._reply = reply
        self.asked: list[DNSRecord] = []
        self.peers: set[int] = set()
        self.first = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.address: tuple[str, int] = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = DNSRecord.parse(data)
        self.asked.append(query)
        self.peers.add(addr[1])
        self.first.set()
        said = self._reply(query)
        if said is not None:
            self.transport.sendto(said, addr)


@asynccontextmanager
async def upstream(reply: Callable[[DNSRecord], bytes | None]) -> AsyncIterator[Upstream]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Upstream(reply), local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()


def good(query: DNSRecord) -> bytes:
    reply = query.reply()
    reply.add_answer(RR("example.test", QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
    return bytes(reply.pack())


def says(rcode: str) -> Callable[[DNSRecord], bytes]:
    def reply(query: DNSRecord) -> bytes:
        said = query.reply()
        said.header.rcode = getattr(RCODE, rcode)
        return bytes(said.pack())

    return reply


def silent(_: DNSRecord) -> None:
    return None


async def resolve(*upstreams: Upstream, packet: bytes = PACKET, **options: float) -> DNSRecord:
    forwarder = Forwarder([server.address for server in upstreams], **options)  # type: ignore[arg-type]
    try:
        said = await forwarder.resolve(packet)
    finally:
        await forwarder.close()
    assert said[:2] == packet[:2], "the client's own ID"
    return DNSRecord.parse(said)


async def test_the_answer_comes_back_under_the_clients_id_from_a_fresh_port_and_id() -> None:
    async with upstream(good) as server:
        said = [await resolve(server) for _ in range(8)]
        assert [str(record.rr[0].rdata) for record in said] == ["192.0.2.1"] * 8
        assert len({query.header.id for query in server.asked}) > 6
        assert len(server.peers) > 1


@pytest.mark.parametrize("first", ["SERVFAIL", "REFUSED"])
async def test_a_failing_upstream_is_passed_over(first: str) -> None:
    async with upstream(says(first)) as bad, upstream(good) as other:
        assert str((await resolve(bad, other)).rr[0].rdata) == "192.0.2.1"


async def test_no_such_name_is_an_answer() -> None:
    async with upstream(says("NXDOMAIN")) as first, upstream(good) as other:
        assert (await resolve(first, other)).header.rcode == RCODE.NXDOMAIN
        assert not other.asked


async def test_a_silent_upstream_costs_its_time_and_no_more() -> None:
    async with upstream(silent) as first, upstream(good) as other:
        assert str((await resolve(first, other, timeout=0.05)).rr[0].rdata) == "192.0.2.1"


async def test_when_nobody_answers_it_is_servfail_within_the_budget() -> None:
    async with upstream(silent) as server:
        began = asyncio.get_running_loop().time()
        said = await resolve(server, timeout=10, budget=0.1)
        assert said.header.rcode == RCODE.SERVFAIL
        assert str(said.q.qname) == "example.test."
        assert asyncio.get_running_loop().time() - began < 5


async def test_an_upstream_that_refuses_the_port_is_not_asked_in_a_loop() -> None:
    async with upstream(silent) as server:
        address = server.address
    forwarder = Forwarder([address])
    async with asyncio.timeout(3):
        said = DNSRecord.parse(await forwarder.resolve(PACKET))
    assert said.header.rcode == RCODE.SERVFAIL
    await forwarder.close()


async def test_forged_answers_are_passed_over() -> None:
    def forge(query: DNSRecord) -> bytes:
        wrong_id = bytearray(good(query))
        wrong_id[0] ^= 0xFF
        other_question = DNSRecord.question("evil.test").reply()
        other_question.header.id = query.header.id
        for packet in (bytes(wrong_id), bytes(other_question.pack()), b"", bytes(query.pack())):
            server.transport.sendto(packet, ("127.0.0.1", next(iter(server.peers))))
        return good(query)

    async with upstream(forge) as server:
        assert str((await resolve(server)).rr[0].rdata) == "192.0.2.1"


async def test_the_same_question_under_way_is_asked_once() -> None:
    async with upstream(silent) as server:
        forwarder = Forwarder([server.address], timeout=0.2, budget=0.2)
        other_id = b"\x99\x99" + PACKET[2:]
        said = await asyncio.gather(forwarder.resolve(PACKET), forwarder.resolve(other_id))
        assert [packet[:2] for packet in said] == [PACKET[:2], b"\x99\x99"]
        assert len(server.asked) == 1
        await forwarder.close()


async def test_a_client_that_goes_away_does_not_take_the_answer_from_another() -> None:
    async with upstream(silent) as server:
        forwarder = Forwarder([server.address], timeout=5)
        impatient = asyncio.ensure_future(forwarder.resolve(PACKET))
        patient = asyncio.ensure_future(forwarder.resolve(b"\x99\x99" + PACKET[2:]))
        await server.first.wait()
        impatient.cancel()
        server.transport.sendto(good(server.asked[0]), ("127.0.0.1", next(iter(server.peers))))
        assert DNSRecord.parse(await patient).rr
        await forwarder.close()


async def test_beyond_the_bound_questions_fail_at_once() -> None:
    async with upstream(silent) as server:
        forwarder = Forwarder([server.address], outstanding=1, timeout=5)
        first = asyncio.ensure_future(forwarder.resolve(PACKET))
        await server.first.wait()
        said = await forwarder.resolve(bytes(DNSRecord.question("other.test").pack()))
        assert DNSRecord.parse(said).header.rcode == RCODE.SERVFAIL
        await forwarder.close()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_with_nobody_to_ask_it_is_refused() -> None:
    assert (await resolve()).header.rcode == RCODE.REFUSED


def test_resolv_conf() -> None:
    text = "# a comment\nsearch lan\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver 127.0.0.1\n"
    text += "nameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver not-an-address\nnameserver\noptions ndots:0\n"
    assert upstreams_from_resolv_conf(text, exclude=[("127.0.0.1", 53)]) == (
        ("192.0.2.1", 53),
        ("2001:db8::1", 53),
        ("fe80::1%eth0", 53),
    )
