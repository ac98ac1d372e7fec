"""Forwarding: the cache, shared queries, stale answers, and limits per client; on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from dnslib import QTYPE, RCODE, A, DNSRecord

from meshdns.cache import ForwardCache
from meshdns.forwarder import Forwarder
from meshdns.message import STALE_TTL
from meshdns.upstream_query import HedgingDelays
from meshdns.upstreams import Upstreams
from tests.meshdns.upstream import (
    Reply,
    Upstream,
    address,
    good,
    many,
    negative,
    question,
    resolve,
    says,
    silent,
    truncated,
    upstream,
)

PACKET = question()
BRIEF = HedgingDelays(first=0.05, next=0.05, budget=0.3)


@asynccontextmanager
async def forwarding(
    *servers: Upstream, patience: HedgingDelays | None = None, **options: int
) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder([server.address for server in servers], patience=patience, **options)  # type: ignore[arg-type]
    try:
        yield forwarder
    finally:
        await forwarder.close()


def name(number: int) -> bytes:
    return question(f"n{number}.test")


class TestAsking:
    async def test_each_question_has_its_own_port_and_id(self) -> None:
        async with upstream(good) as server, forwarding(server) as forwarder:
            for number in range(8):
                assert str((await resolve(forwarder, name(number))).rr[0].rdata) == "192.0.2.1"
            assert len({query.header.id for query in server.asked}) > 6
            assert len(set(server.peers)) > 6, "a question alone has a socket of its own"

    async def test_a_burst_shares_sockets_but_not_ids(self) -> None:
        async with upstream(silent) as server, forwarding(server, patience=BRIEF) as forwarder:
            await asyncio.gather(*(resolve(forwarder, name(number)) for number in range(100)))
            ports = {port for _, port in server.peers}
            assert 4 <= len(ports) < 40
            asked = {(peer, packet[:2]) for peer, packet in zip(server.peers, server.packets, strict=True)}
            assert len(asked) == len(server.packets)

    async def test_queries_to_upstreams_reveal_nothing_about_the_client(self) -> None:
        cookie = question() + b"\0\0\x29\x10\0\0\0\0\0\0\x0c\0\x0a\0\x08client!!"
        cookie = cookie[:11] + b"\1" + cookie[12:]
        async with upstream(good) as server, forwarding(server) as forwarder:
            said = await resolve(forwarder, cookie)
            assert b"client" not in server.packets[0]
            assert [rr.rtype for rr in said.ar] == [QTYPE.OPT]

    async def test_forged_answers_are_ignored(self) -> None:
        def forge(query: DNSRecord) -> bytes:
            wrong_id = bytearray(address("203.0.113.9", 60)(query))
            wrong_id[0] ^= 0xFF
            other_question = DNSRecord.question("evil.test").reply()
            other_question.header.id = query.header.id
            for packet in (bytes(wrong_id), bytes(other_question.pack()), b"", bytes(query.pack())):
                server.transport.sendto(packet, server.peers[-1])
            return good(query)

        async with upstream(forge) as server, forwarding(server) as forwarder:
            assert str((await resolve(forwarder, PACKET)).rr[0].rdata) == "192.0.2.1"

    async def test_an_answer_from_another_address_is_ignored(self) -> None:
        async with (
            upstream(silent) as server,
            upstream(silent) as elsewhere,
            forwarding(server, patience=BRIEF) as forwarder,
        ):
            answer = asyncio.ensure_future(resolve(forwarder, PACKET))
            await server.first.wait()
            elsewhere.transport.sendto(good(server.asked[0]), server.peers[0])
            assert (await answer).header.rcode == RCODE.SERVFAIL

    @pytest.mark.parametrize("tcp", [False, True])
    async def test_an_answer_truncated_over_udp_is_fetched_over_tcp(self, tcp: bool) -> None:
        async with upstream(truncated, many(100)) as server, forwarding(server) as forwarder:
            said = await resolve(forwarder, PACKET, tcp=tcp)
            assert (len(said.rr), said.header.tc) == ((100, 0) if tcp else (30, 1)), (
                "as many as fit, and word of the rest"
            )
            await resolve(forwarder, PACKET, tcp=not tcp)
            assert len(server.asked_tcp) == 1, "the rest comes from the cache"

    async def test_an_upstream_without_tcp(self) -> None:
        async with upstream(truncated, tcp=False) as server, forwarding(server, patience=BRIEF) as forwarder:
            assert (await resolve(forwarder, PACKET)).header.tc == 1
            assert (await resolve(forwarder, PACKET, tcp=True)).header.rcode == RCODE.SERVFAIL

    async def test_any_queries_over_udp_are_answered_with_truncation(self) -> None:
        async with upstream(good) as server, forwarding(server) as forwarder:
            said = await resolve(forwarder, question(qtype="ANY"))
            assert (said.header.tc, said.rr, server.asked) == (1, [], [])
            assert (await resolve(forwarder, question(qtype="ANY"), tcp=True)).rr

    async def test_without_upstreams_queries_are_refused(self) -> None:
        async with forwarding() as forwarder:
            assert (await resolve(forwarder, PACKET)).header.rcode == RCODE.REFUSED

    async def test_the_longest_matching_domain_chooses_the_upstream(self) -> None:
        async with upstream(good) as rest, upstream(good) as corp, upstream(good) as lab:
            upstreams = Upstreams([rest.address], {"corp.test": [corp.address], "lab.corp.test": [lab.address]})
            forwarder = Forwarder(upstreams)
            for asked in ("a.test", "corp.test", "A.CORP.TEST", "b.lab.corp.test", "xcorp.test"):
                await resolve(forwarder, question(asked))
            assert rest.names() == {"a.test.", "xcorp.test."}
            assert corp.names() == {"corp.test.", "a.corp.test."}
            assert lab.names() == {"b.lab.corp.test."}
            await forwarder.close()

    async def test_a_domain_whose_upstreams_are_down_is_not_sent_to_others(self) -> None:
        async with upstream(good) as rest, upstream(silent) as corp:
            forwarder = Forwarder(Upstreams([rest.address], {"corp.test": [corp.address]}), patience=BRIEF)
            assert (await resolve(forwarder, question("secret.corp.test"))).header.rcode == RCODE.SERVFAIL
            assert rest.asked == []
            await forwarder.close()


class TestSharing:
    async def test_identical_queries_in_flight_are_sent_once(self) -> None:
        async with upstream(silent) as server, forwarding(server) as forwarder:
            asking = [
                asyncio.ensure_future(resolve(forwarder, packet, tcp=tcp))
                for packet in (PACKET, b"\x99\x99" + PACKET[2:], question("EXAMPLE.test"))
                for tcp in (False, True)
            ]
            await server.first.wait()
            server.transport.sendto(good(server.asked[0]), server.peers[0])
            for said in await asyncio.gather(*asking):
                assert str(said.rr[0].rdata) == "192.0.2.1"
            assert (len(server.asked), forwarder.counters.shared) == (1, 5)

    async def test_a_client_that_disconnects_does_not_cancel_the_query_of_another(self) -> None:
        async with upstream(silent) as server, forwarding(server) as forwarder:
            impatient = asyncio.ensure_future(resolve(forwarder, PACKET))
            patient = asyncio.ensure_future(resolve(forwarder, b"\x99\x99" + PACKET[2:]))
            await server.first.wait()
            impatient.cancel()
            server.transport.sendto(good(server.asked[0]), server.peers[0])
            assert (await patient).rr

    async def test_queries_above_the_limit_fail_at_once_and_the_limit_recovers(self) -> None:
        async with upstream(silent) as server, forwarding(server, outstanding=3, share=2) as forwarder:
            mine = [asyncio.ensure_future(resolve(forwarder, name(number), "10.0.0.1")) for number in range(2)]
            await asyncio.sleep(0)
            assert (await resolve(forwarder, name(2), "10.0.0.1")).header.rcode == RCODE.SERVFAIL, (
                "its share is used up"
            )
            theirs = asyncio.ensure_future(resolve(forwarder, name(3), "10.0.0.2"))
            await asyncio.sleep(0)
            assert (await resolve(forwarder, name(4), "10.0.0.3")).header.rcode == RCODE.SERVFAIL, "all are"
            assert forwarder.counters.capped == 2
            assert not any(each.done() for each in (*mine, theirs))
            server.reply = good
            for query, peer in zip(server.asked, server.peers, strict=True):
                server.transport.sendto(good(query), peer)
            await asyncio.gather(*mine, theirs)
            assert (await resolve(forwarder, name(2), "10.0.0.1")).rr

    async def test_cached_answers_do_not_count_towards_the_limit(self) -> None:
        async with upstream(good) as server, forwarding(server, outstanding=1) as forwarder:
            await resolve(forwarder, PACKET)
            server.reply = silent
            waiting = asyncio.ensure_future(resolve(forwarder, name(1)))
            await asyncio.sleep(0)
            assert (await resolve(forwarder, PACKET)).rr
            await forwarder.close()
            assert (await waiting).header.rcode == RCODE.SERVFAIL, "the end comes with an answer"


class TestKeeping:
    async def test_an_answer_is_cached_and_its_ttl_decreases(self) -> None:
        async with upstream(address("192.0.2.1", 60)) as server, forwarding(server) as forwarder:
            await resolve(forwarder, PACKET)
            cached = [await resolve(forwarder, packet) for packet in (PACKET, question("EXAMPLE.TEST"))]
            assert len(server.asked) == 1
            assert all(58 <= said.rr[0].ttl <= 60 for said in cached)
            assert [str(said.rr[0].rname) for said in cached] == ["example.test.", "EXAMPLE.TEST."]

    async def test_nxdomain_is_cached_for_the_time_in_its_soa(self) -> None:
        async with upstream(negative("NXDOMAIN", 900, 5)) as server, forwarding(server) as forwarder:
            await resolve(forwarder, PACKET)
            said = await resolve(forwarder, PACKET)
            assert (len(server.asked), said.header.rcode) == (1, RCODE.NXDOMAIN)
            assert 3 <= said.auth[0].ttl <= 5

    async def test_a_failure_is_cached_briefly(self) -> None:
        async with upstream(says("SERVFAIL")) as server, forwarding(server, patience=BRIEF) as forwarder:
            assert (await resolve(forwarder, PACKET)).header.rcode == RCODE.SERVFAIL
            asked = len(server.asked)
            assert (await resolve(forwarder, PACKET)).header.rcode == RCODE.SERVFAIL
            assert len(server.asked) == asked

    async def test_dnssec_and_plain_answers_are_cached_separately(self) -> None:
        async with upstream(good) as server, forwarding(server) as forwarder:
            secure = PACKET[:11] + b"\1" + PACKET[12:] + b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"
            for packet in (PACKET, secure, question(cd=1), question(rd=0)):
                await resolve(forwarder, packet)
                await resolve(forwarder, packet)
            assert len(server.asked) == 4

    async def test_answers_of_this_second_are_ready_for_the_transport(self) -> None:
        async with upstream(good) as server, forwarding(server) as forwarder:
            for _ in range(2):
                await resolve(forwarder, PACKET)
            said = forwarder.ready[PACKET[2:]]
            assert said is not None
            assert said[:2] == b"\0\0"
            assert DNSRecord.parse(said).rr[0].rdata == A("192.0.2.1")
            mixed, cookie = question("eXample.test"), PACKET[:11] + b"\1" + PACKET[12:]
            cookie += b"\0\0\x29\x10\0\0\0\0\0\0\x0c\0\x0a\0\x08client!!"
            for packet in (mixed, cookie):
                await resolve(forwarder, packet)
            assert forwarder.ready[cookie[2:]] is None, "it will never come again"


@pytest.mark.looptime
class TestStale:
    """In virtual time: the upstream is a list of what it says."""

    async def test_stale_answers_are_served_when_no_upstream_answers(self) -> None:
        ways = Scripted(address("192.0.2.1", 5))
        forwarder = Forwarder([("192.0.2.53", 53)], ways=ways)
        await resolve(forwarder, PACKET)
        await asyncio.sleep(10)
        ways.reply = silent
        loop = asyncio.get_running_loop()
        began = loop.time()
        said = await resolve(forwarder, edns(PACKET))
        assert loop.time() - began == pytest.approx(1.8), "RFC 8767, section 5: before the client gives up"
        assert (str(said.rr[0].rdata), said.rr[0].ttl) == ("192.0.2.1", STALE_TTL)
        assert [(option.code, option.data) for option in said.ar[0].rdata] == [(15, b"\0\3")], (
            "and it says so: RFC 8914"
        )
        await resolve(forwarder, PACKET)
        assert loop.time() - began == pytest.approx(1.8), "the next one does not wait: it is known to take long"
        await asyncio.sleep(5)
        asked = ways.asked
        await resolve(forwarder, PACKET)
        assert ways.asked == asked, "it failed a moment ago"
        ways.reply = address("192.0.2.2", 5)
        await asyncio.sleep(30)
        assert str((await resolve(forwarder, PACKET)).rr[0].rdata) == "192.0.2.2", "and is back"
        assert forwarder.counters.stale == 3
        await forwarder.close()

    async def test_a_late_answer_is_cached_for_the_next_query(self) -> None:
        ways = Scripted(address("192.0.2.1", 5))
        forwarder = Forwarder([("192.0.2.53", 53)], ways=ways)
        await resolve(forwarder, PACKET)
        await asyncio.sleep(10)
        ways.reply, ways.delay = address("192.0.2.2", 5), 3.0
        assert str((await resolve(forwarder, PACKET)).rr[0].rdata) == "192.0.2.1"
        await asyncio.sleep(2)
        assert str((await resolve(forwarder, PACKET)).rr[0].rdata) == "192.0.2.2"
        await forwarder.close()

    async def test_stale_answers_are_served_after_servfail_but_not_beyond_their_limit(self) -> None:
        ways = Scripted(address("192.0.2.1", 5))
        forwarder = Forwarder([("192.0.2.53", 53)], ways=ways, cache=ForwardCache(stale=100))
        await resolve(forwarder, PACKET)
        ways.reply = says("SERVFAIL")
        await asyncio.sleep(50)
        assert (await resolve(forwarder, PACKET)).rr
        await asyncio.sleep(100)
        assert (await resolve(forwarder, PACKET)).header.rcode == RCODE.SERVFAIL
        await forwarder.close()

    async def test_nxdomain_replaces_a_stale_answer(self) -> None:
        ways = Scripted(address("192.0.2.1", 5))
        forwarder = Forwarder([("192.0.2.53", 53)], ways=ways)
        await resolve(forwarder, PACKET)
        ways.reply = says("NXDOMAIN")
        await asyncio.sleep(10)
        assert (await resolve(forwarder, PACKET)).header.rcode == RCODE.NXDOMAIN
        await forwarder.close()

    async def test_ttls_decrease_to_one_and_then_the_upstream_is_queried_again(self) -> None:
        ways = Scripted(address("192.0.2.1", 4))
        forwarder = Forwarder([("192.0.2.53", 53)], ways=ways)
        seen, ready = [], []
        for _ in range(8):
            known = forwarder.ready[PACKET[2:]]
            ready.append(None if known is None else DNSRecord.parse(known).rr[0].ttl)
            seen.append((await resolve(forwarder, PACKET)).rr[0].ttl)
            await asyncio.sleep(1)
        assert seen == [4, 3, 2, 1, 4, 3, 2, 1]
        assert ready == [None, None, 2, 1, None, None, 2, 1], "written anew each second, never a second too long"
        assert ways.asked == 2
        await forwarder.close()


class Scripted:
    """As `Lines`, without a network."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.delay = 0.1
        self.asked = 0

    def ask(self, _: object, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        self.asked += 1
        said = self.reply(DNSRecord.parse(b"\0\7" + question))
        if said is None:
            return lambda: None
        return asyncio.get_running_loop().call_later(self.delay, heard, said).cancel

    def ask_tcp(self, _: object, question: bytes, heard: Callable[[bytes | None], None]) -> Callable[[], None]:
        raise AssertionError("nothing is cut off here")

    async def close(self) -> None:
        """Nothing is open."""


def edns(packet: bytes) -> bytes:
    return packet[:11] + b"\1" + packet[12:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
