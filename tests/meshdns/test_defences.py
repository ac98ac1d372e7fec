"""What upstreams of the field send, and what forgers try, each with where it comes from. dnslib writes the packets."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_network
from itertools import pairwise

import pytest
from dnslib import AAAA, CNAME, HTTPS, QTYPE, RCODE, RR, A, DNSRecord
from typing_extensions import override

from meshdns.authoritative import parse_query
from meshdns.forward_fastpath import MAX_FOREIGN
from meshdns.forwarder import Forwarder, ForwardLimits
from meshdns.server import NameServer, ServerRates
from meshdns.service_records import DnsEndpoint, DnsService
from meshdns.upstream_sockets import MAX_UNWANTED, QUERIES_PER_SOCKET
from meshdns.upstreams import Upstreams
from meshdns.zone import Zone, ZoneBuilder
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

POOL = ip_network("10.112.0.0/16")
ZONE = Zone.build({"web.mesh.internal": ["10.112.0.7"], "shop.test": ["10.112.0.8", "fd00::8"]}, ["mesh.internal"])
LIMITS = ForwardLimits(refused=(POOL,))


@asynccontextmanager
async def forwarding(
    server: Upstream, zone: Zone = ZONE, limits: ForwardLimits = LIMITS, domain: str | None = None
) -> AsyncIterator[Forwarder]:
    given = Upstreams([server.address]) if domain is None else Upstreams((), {domain: [server.address]})
    forwarder = Forwarder(given, limits=limits)
    forwarder.use_zone(zone)
    try:
        yield forwarder
    finally:
        await forwarder.close()


def spelled(address: str) -> tuple[int, ...]:
    """An IPv6 address in the form that dnslib takes; it reads no dotted ones."""
    return tuple(IPv6Address(address).packed)


def records(*texts: tuple[str, str, str], rcode: str = "NOERROR", ttl: int = 60) -> Reply:
    """An answer section: owner, type and data of each record."""
    kinds: dict[str, Callable[[str], object]] = {"A": A, "AAAA": lambda text: AAAA(spelled(text)), "CNAME": CNAME}

    def reply(query: DNSRecord) -> bytes:
        said = query.reply()
        said.header.rcode = getattr(RCODE, rcode)
        for owner, kind, data in texts:
            name = query.q.qname if owner == "@" else owner
            said.add_answer(RR(name, getattr(QTYPE, kind), rdata=kinds[kind](data), ttl=ttl))
        return bytes(said.pack())

    return reply


class TestAliases:
    @pytest.mark.parametrize(
        ("reply", "qtype", "rcode", "expected"),
        [
            pytest.param(
                records(("@", "CNAME", "web.mesh.internal")),
                "A",
                "NOERROR",
                ["web.mesh.internal.", "10.112.0.7"],
                id="the CNAME alone, as authoritative servers send it",
            ),
            pytest.param(
                records(("@", "CNAME", "web.mesh.internal"), rcode="NXDOMAIN"),
                "A",
                "NOERROR",
                ["web.mesh.internal.", "10.112.0.7"],
                id="NXDOMAIN behind it, as resolvers send it",
            ),
            pytest.param(
                records(("@", "CNAME", "web.mesh.internal"), rcode="SERVFAIL"),
                "A",
                "NOERROR",
                ["web.mesh.internal.", "10.112.0.7"],
                id="SERVFAIL behind it, as resolvers with a broken forwarder send it",
            ),
            pytest.param(
                records(("@", "CNAME", "WEB.Mesh.Internal")),
                "A",
                "NOERROR",
                ["WEB.Mesh.Internal.", "10.112.0.7"],
                id="in another case, as people write it in zone files",
            ),
            pytest.param(
                records(("@", "CNAME", "a.test"), ("a.test", "CNAME", "b.test"), ("b.test", "CNAME", "shop.test")),
                "AAAA",
                "NOERROR",
                ["a.test.", "b.test.", "shop.test.", "fd00::8"],
                id="through other names, as content networks do",
            ),
            pytest.param(
                records(("b.test", "CNAME", "shop.test"), ("@", "CNAME", "b.test")),
                "A",
                "NOERROR",
                ["b.test.", "shop.test.", "10.112.0.8"],
                id="in another order, as load balancers shuffle",
            ),
            pytest.param(
                records(("@", "CNAME", "web.mesh.internal"), ("web.mesh.internal", "A", "10.112.9.9")),
                "A",
                "NOERROR",
                ["web.mesh.internal.", "10.112.0.7"],
                id="with an old address behind it, from a resolver that asked another worker before",
            ),
            pytest.param(
                records(("@", "CNAME", "web.mesh.internal")),
                "AAAA",
                "NOERROR",
                ["web.mesh.internal."],
                id="no such type: no data",
            ),
            pytest.param(
                records(("@", "CNAME", "gone.mesh.internal")),
                "A",
                "NXDOMAIN",
                ["gone.mesh.internal."],
                id="no such own name",
            ),
            pytest.param(
                records(("@", "CNAME", "b.test"), ("b.test", "CNAME", "www.example.test")),
                "A",
                "NOERROR",
                ["b.test.", "www.example.test."],
                id="a loop of foreign names stays as it is",
            ),
            pytest.param(
                records(("@", "CNAME", "other.test"), ("other.test", "A", "192.0.2.9")),
                "A",
                "NOERROR",
                ["other.test.", "192.0.2.9"],
                id="a foreign name stays as it is",
            ),
            pytest.param(
                records(("@", "CNAME", "web.mesh.internal")),
                "CNAME",
                "NOERROR",
                ["web.mesh.internal."],
                id="asked for the CNAME itself",
            ),
        ],
    )
    async def test_an_alias_is_completed_from_the_zone(
        self, reply: Reply, qtype: str, rcode: str, expected: list[str]
    ) -> None:
        async with upstream(reply) as server, forwarding(server) as forwarder:
            for _ in range(3):  # asked, then from the cache
                said = await resolve(forwarder, question("www.example.test", qtype))
                assert [str(rr.rdata) for rr in said.rr] == expected
                assert said.header.rcode == getattr(RCODE, rcode)
                owners = ["www.example.test.", *expected[:-1]][: len(expected)]
                assert [str(rr.rname) for rr in said.rr] == owners
                assert bool(said.auth) == (len(said.rr) == 1 and qtype != "CNAME"), "SOA where there is nothing"
            forwarder.use_zone(ZONE)
            assert (await resolve(forwarder, question("www.example.test", qtype), tcp=True)).rr

    async def test_the_answer_follows_the_zone_and_the_alias_stays_in_the_cache(self) -> None:
        async with (
            upstream(records(("@", "CNAME", "late.test"), rcode="NXDOMAIN", ttl=60)) as server,
            forwarding(server) as forwarder,
        ):
            said = await resolve(forwarder, question("www.example.test"))
            assert said.header.rcode == RCODE.NXDOMAIN, "nobody has that name yet"
            for vip in ("10.112.0.1", "10.112.0.2"):
                forwarder.use_zone(Zone.build({"late.test": [vip]}))
                said = await resolve(forwarder, question("www.example.test"))
                assert [str(rr.rdata) for rr in said.rr] == ["late.test.", vip]
                assert [rr.ttl for rr in said.rr] == [60, 5]
            assert len(server.asked) == 2, "then the alias is in the cache"

    async def test_an_alias_in_a_reply_over_tcp(self) -> None:
        whole = records(("@", "CNAME", "web.mesh.internal"))
        async with upstream(truncated, whole) as server, forwarding(server) as forwarder:
            said = await resolve(forwarder, question("www.example.test"))
            assert [str(rr.rdata) for rr in said.rr] == ["web.mesh.internal.", "10.112.0.7"]


class TestSizes:
    @pytest.mark.parametrize("count", [60, 300, 1500, 4000])
    async def test_a_datagram_of_any_size_is_read(self, count: int) -> None:
        """Servers that ignore the size we offer, and send fragments: up to 65,507 bytes."""
        async with upstream(many(count), tcp=False) as server, forwarding(server) as forwarder:
            said = await resolve(forwarder, question(), tcp=True)
            assert len(said.rr) == count
            assert len(server.asked) == 1


def drops_edns(query: DNSRecord) -> bytes | None:
    """As firewalls do that know DNS of 1987."""
    return None if query.ar else good(query)


def rejects_edns(rcode: str) -> Reply:
    """As name servers do that know DNS of 1987."""
    return lambda query: says(rcode)(query) if query.ar else good(query)


class TestEdns:
    @pytest.mark.parametrize(
        "reply", [drops_edns, rejects_edns("FORMERR"), rejects_edns("NOTIMP")], ids=["drops", "FORMERR", "NOTIMP"]
    )
    async def test_an_upstream_without_edns_is_asked_without_and_remembered(self, reply: Reply) -> None:
        async with upstream(reply) as server, forwarding(server) as forwarder:
            assert (await resolve(forwarder, question("a.test"))).rr
            server.asked.clear()
            for name in ("b.test", "c.test"):
                assert (await resolve(forwarder, question(name))).rr
            assert [len(query.ar) for query in server.asked] == [0, 0]

    async def test_a_lost_packet_does_not_count_against_an_upstream_that_knows_edns(self) -> None:
        async with upstream(good) as server, forwarding(server) as forwarder:
            await resolve(forwarder, question("a.test"))
            server.reply = silent
            waiting = asyncio.ensure_future(resolve(forwarder, question("b.test")))
            server.first.clear()
            await server.first.wait()
            server.reply = good
            assert (await waiting).rr
            assert all(query.ar for query in server.asked)


def lower_case(query: DNSRecord) -> bytes:
    """Repeats the question in lower case, as some load balancers do."""
    said = DNSRecord.parse(query.reply().pack())  # a copy: a reply shares its question with the query
    said.q.qname = str(query.q.qname).lower()
    said.add_answer(RR(said.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
    return bytes(said.pack())


NAME = "some-name-with-many-letters.example.test"


class TestCase:
    async def test_questions_go_out_in_random_case(self) -> None:
        async with upstream(address("192.0.2.1", 0)) as server, forwarding(server) as forwarder:
            for _ in range(6):
                said = await resolve(forwarder, question(NAME))
                assert str(said.q.qname) == NAME + "."
            names = {str(query.q.qname) for query in server.asked}
            assert len(names) == 6
            assert {name.lower() for name in names} == {NAME + "."}

    @pytest.mark.parametrize("tcp", [True, False])
    async def test_an_upstream_that_does_not_keep_the_case_still_answers(self, tcp: bool) -> None:
        async with upstream(lower_case, tcp=tcp) as server, forwarding(server) as forwarder:
            for number in range(5):
                assert (await resolve(forwarder, question(f"n{number}.{NAME}"))).rr
            assert str(server.asked[-1].q.qname) == f"n4.{NAME}.", "it is asked in lower case by now"
            assert len(server.asked_tcp) == (1 if tcp else 0)

    async def test_a_reply_in_another_case_does_not_win_over_the_right_one(self) -> None:
        def forge(query: DNSRecord) -> bytes:
            forged = DNSRecord.parse(lower_case(query))
            forged.rr[0].rdata = A("203.0.113.9")
            server.transport.sendto(bytes(forged.pack()), server.peers[-1])
            return good(query)

        async with upstream(forge, tcp=False) as server, forwarding(server) as forwarder:
            assert str((await resolve(forwarder, question(NAME))).rr[0].rdata) == "192.0.2.1"
            assert forwarder.counters.unwanted == 1


class TestPorts:
    async def test_ports_come_from_the_whole_range(self) -> None:
        async with upstream(address("192.0.2.1", 0)) as server, forwarding(server) as forwarder:
            for number in range(200):
                await resolve(forwarder, question(f"n{number}.test"))
            ports = [port for _, port in server.peers]
            assert len(set(ports)) > 190
            assert min(ports) < 10_000, "1 in 10^13 that none of 200 is"
            assert max(ports) > 61_000
            assert len({second - first for first, second in pairwise(ports)}) > 180


class TestForgery:
    async def test_many_unwanted_replies_move_the_question_to_tcp(self) -> None:
        def guess(query: DNSRecord) -> None:
            forged = DNSRecord.parse(address("203.0.113.9", 60)(query))
            for step in range(1, MAX_UNWANTED + 10):
                forged.header.id = query.header.id ^ step
                server.transport.sendto(bytes(forged.pack()), server.peers[-1])

        async with upstream(guess, good) as server, forwarding(server) as forwarder:
            assert str((await resolve(forwarder, question())).rr[0].rdata) == "192.0.2.1"
            assert len(server.asked_tcp) == 1
            assert forwarder.counters.unwanted >= MAX_UNWANTED

    async def test_a_few_unwanted_replies_change_nothing(self) -> None:
        def guess(query: DNSRecord) -> bytes:
            forged = DNSRecord.parse(address("203.0.113.9", 60)(query))
            for step in range(1, QUERIES_PER_SOCKET // 2):
                forged.header.id = query.header.id ^ step
                server.transport.sendto(bytes(forged.pack()), server.peers[-1])
            return good(query)

        async with upstream(guess) as server, forwarding(server) as forwarder:
            assert str((await resolve(forwarder, question())).rr[0].rdata) == "192.0.2.1"
            assert (len(server.asked_tcp), forwarder.counters.unwanted) == (0, QUERIES_PER_SOCKET // 2 - 1)


def service_binding(hints: str) -> Reply:
    def reply(query: DNSRecord) -> bytes:
        said = query.reply()
        said.add_answer(*RR.fromZone(f"{query.q.qname} 60 HTTPS 1 . {hints}"))
        assert isinstance(said.rr[0].rdata, HTTPS)
        return bytes(said.pack())

    return reply


ALWAYS = [
    pytest.param(records(("@", "A", "127.0.0.1")), "A", id="loopback: a rebinding page"),
    pytest.param(records(("@", "A", "127.200.3.4")), "A", id="all of 127.0.0.0/8 is loopback"),
    pytest.param(records(("@", "A", "0.0.0.0")), "A", id="any address leads to loopback"),
    pytest.param(records(("@", "A", "10.112.200.1")), "A", id="the VIP pool"),
    pytest.param(records(("@", "A", "192.0.2.1"), ("@", "A", "10.112.0.7")), "A", id="one of two"),
    pytest.param(records(("@", "CNAME", "b.test"), ("b.test", "A", "127.0.0.1")), "A", id="behind an alias"),
    pytest.param(records(("@", "AAAA", "::1")), "AAAA", id="IPv6 loopback"),
    pytest.param(records(("@", "AAAA", "::")), "AAAA", id="IPv6 any address"),
    pytest.param(records(("@", "AAAA", "::ffff:127.0.0.1")), "AAAA", id="mapped loopback"),
    pytest.param(records(("@", "AAAA", "::ffff:10.112.0.7")), "AAAA", id="mapped VIP"),
    pytest.param(records(("@", "AAAA", "::127.0.0.1")), "AAAA", id="compatible loopback"),
    pytest.param(service_binding("ipv4hint=192.0.2.1,127.0.0.1"), "HTTPS", id="a hint that browsers follow"),
    pytest.param(service_binding("alpn=h2 ipv6hint=::1"), "HTTPS", id="an IPv6 hint"),
]
PRIVATE = [
    pytest.param(records(("@", "A", "10.0.0.1")), "A", id="10/8"),
    pytest.param(records(("@", "A", "172.31.0.1")), "A", id="172.16/12"),
    pytest.param(records(("@", "A", "192.168.1.1")), "A", id="192.168/16"),
    pytest.param(records(("@", "A", "169.254.169.254")), "A", id="link-local: metadata of clouds"),
    pytest.param(records(("@", "A", "100.64.0.1")), "A", id="shared addresses of providers"),
    pytest.param(records(("@", "AAAA", "fd00::1")), "AAAA", id="private IPv6"),
    pytest.param(records(("@", "AAAA", "fe80::1")), "AAAA", id="link-local IPv6"),
    pytest.param(records(("@", "AAAA", "::ffff:192.168.1.1")), "AAAA", id="mapped private"),
    pytest.param(service_binding("ipv4hint=192.168.1.1"), "HTTPS", id="private hint"),
]
PUBLIC = [
    pytest.param(records(("@", "A", "192.0.2.1")), "A", id="public"),
    pytest.param(records(("@", "A", "172.32.0.1")), "A", id="beside 172.16/12"),
    pytest.param(records(("@", "A", "100.128.0.1")), "A", id="beside 100.64/10"),
    pytest.param(records(("@", "AAAA", "2001:db8::1")), "AAAA", id="public IPv6"),
    pytest.param(service_binding("ipv4hint=192.0.2.1"), "HTTPS", id="public hint"),
]
STRICT = ForwardLimits(refused=(POOL,), refuse_private=True)


class TestRebinding:
    async def refused(self, reply: Reply, qtype: str, limits: ForwardLimits, domain: str | None = None) -> bool:
        async with upstream(reply) as server, forwarding(server, limits=limits, domain=domain) as forwarder:
            for tcp in (False, True):
                said = await resolve(forwarder, question("www.corp.test", qtype), tcp=tcp)
                assert (said.header.rcode == RCODE.REFUSED) is not bool(said.rr)
            said = await resolve(forwarder, question("www.corp.test", qtype))
            assert len(server.asked) == 1, "the refusal is remembered"
            assert forwarder.counters.blocked == (said.header.rcode == RCODE.REFUSED)
            return not said.rr

    @pytest.mark.parametrize(("reply", "qtype"), ALWAYS)
    @pytest.mark.parametrize("domain", [None, "corp.test"])
    async def test_addresses_that_are_always_refused(self, reply: Reply, qtype: str, domain: str | None) -> None:
        assert await self.refused(reply, qtype, LIMITS, domain)
        assert await self.refused(reply, qtype, STRICT, domain)

    @pytest.mark.parametrize(("reply", "qtype"), PRIVATE)
    async def test_private_addresses_are_refused_if_the_operator_says_so(self, reply: Reply, qtype: str) -> None:
        assert not await self.refused(reply, qtype, LIMITS)
        assert await self.refused(reply, qtype, STRICT)
        assert not await self.refused(reply, qtype, STRICT, "corp.test"), "the operator's own servers may"

    @pytest.mark.parametrize(("reply", "qtype"), PUBLIC)
    async def test_public_addresses_are_not_refused(self, reply: Reply, qtype: str) -> None:
        assert not await self.refused(reply, qtype, STRICT)

    async def test_a_refusal_says_blocked_and_a_negative_answer_stays(self) -> None:
        edns = question("x.test")
        edns = edns[:11] + b"\1" + edns[12:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
        async with upstream(address("127.0.0.1", 60)) as server, forwarding(server) as forwarder:
            said = await resolve(forwarder, edns)
            assert [(option.code, option.data) for option in said.ar[0].rdata] == [(15, b"\0\x0f")]
            server.reply = negative("NXDOMAIN", 60, 60)
            assert (await resolve(forwarder, question("y.test"))).header.rcode == RCODE.NXDOMAIN


class TestRates:
    async def test_a_client_gets_its_rate_and_others_theirs(self) -> None:
        limits = ForwardLimits(rate=5)
        async with upstream(address("192.0.2.1", 0)) as server, forwarding(server, limits=limits) as forwarder:
            loop = asyncio.get_running_loop()
            began = int(loop.time())
            codes = [(await resolve(forwarder, question(f"n{n}.test"), "10.0.0.1")).header.rcode for n in range(20)]
            other = (await resolve(forwarder, question("other.test"), "10.0.0.2")).header.rcode
            seconds = int(loop.time()) - began + 1
            assert 5 <= codes.count(RCODE.NOERROR) <= 5 * seconds
            assert set(codes) <= {RCODE.NOERROR, RCODE.SERVFAIL}
            assert other == RCODE.NOERROR
            assert forwarder.counters.limited == codes.count(RCODE.SERVFAIL)

    async def test_answers_from_the_cache_are_not_limited(self) -> None:
        async with upstream(good) as server, forwarding(server, limits=ForwardLimits(rate=1)) as forwarder:
            for _ in range(20):
                assert (await resolve(forwarder, question())).rr

    @pytest.mark.parametrize("over", ["refusals", "queries"])
    async def test_what_one_address_gets_over_udp_is_limited(self, over: str) -> None:
        rates = ServerRates(refusals=3) if over == "refusals" else ServerRates(queries=3)
        server = NameServer([("127.0.0.1", 0)], ZONE, rates=rates)
        await server.start()
        loop = asyncio.get_running_loop()
        replies: list[bytes] = []

        class Client(asyncio.DatagramProtocol):
            @override
            def datagram_received(self, data: bytes, addr: object) -> None:
                replies.append(data)

        transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=server.addresses[0])
        began = int(loop.time())
        for _ in range(50):
            transport.sendto(question("foreign.test" if over == "refusals" else "web.mesh.internal"))
        counters = server.counters
        async with asyncio.timeout(10):
            while counters.dropped + counters.limited + len(replies) < 50 or (over == "queries" and len(replies) < 50):
                await asyncio.sleep(0.01)
        seconds = int(loop.time()) - began + 1
        whole = [packet for packet in replies if not packet[2] & 2]
        assert 3 <= len(whole) <= 3 * seconds
        assert len(replies) == (len(whole) if over == "refusals" else 50)
        transport.close()
        await server.stop()


class TestDescriptions:
    async def test_only_clients_on_this_host_learn_the_worker(self) -> None:
        about = ("worker=w1", "health=healthy")
        service = DnsService(("10.112.0.7",), (DnsEndpoint("a", "10.2.0.1", True, about),))
        zone = ZoneBuilder(["mesh.internal"]).update({"web.mesh.internal": service})[0]
        server = NameServer([], zone)
        for qtype in ("TXT", "ANY"):
            packet = question("a.web.mesh.internal", qtype)
            for host, told in (("127.0.0.1", True), ("192.0.2.77", False), ("::1", True), ("127.9.9.9", True)) * 2:
                for said in (server.answer_udp(packet, host), server.answer_tcp(packet, host)):
                    assert isinstance(said, bytes) or host == "192.0.2.77"
                    if qtype == "TXT" and isinstance(said, bytes) and said[3] & 15 == 0:
                        assert (b"worker=w1" in said) is told
                        assert b"health=healthy" in said

    async def test_a_client_of_another_host_that_is_served(self) -> None:
        service = DnsService(("10.112.0.7",), (DnsEndpoint("a", "10.2.0.1", True, ("worker=w1",)),))
        zone = ZoneBuilder(["mesh.internal"]).update({"web.mesh.internal": service})[0]
        server = NameServer([], zone, allowed=[ip_network("0.0.0.0/0")])
        said = server.answer_udp(question("a.web.mesh.internal", "TXT"), "192.0.2.77")
        assert isinstance(said, bytes)
        assert b"w1" not in said
        assert [rr.rdata.data for rr in DNSRecord.parse(said).rr] == [[b""]]
        assert struct.unpack("!H", said[6:8]) == (1,)


class TestKnownQuestions:
    """Over UDP in batches: a question that was forwarded once is not parsed again."""

    async def test_repeated_questions_are_answered_as_new_ones_are(self) -> None:
        async with upstream(address("192.0.2.1", 0)) as server:
            names = NameServer([("127.0.0.1", 0)], ZONE, Forwarder([server.address], limits=LIMITS))
            await names.start()
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(names.addresses[0])

                async def ask(packet: bytes) -> DNSRecord:
                    client.send(packet)
                    async with asyncio.timeout(10):
                        said = await loop.sock_recv(client, 4096)
                    assert said[:2] == packet[:2], "the client's own ID"
                    return DNSRecord.parse(said)

                for ident in (b"\1\1", b"\2\2", b"\3\3"):
                    said = await ask(ident + question("www.test")[2:])
                    assert [str(rr.rdata) for rr in said.rr] == ["192.0.2.1"]
                assert (len(server.asked), names.counters.forwarded) == (3, 3)
                server.reply = address("192.0.2.2", 60)
                for ident in (b"\4\4", b"\5\5", b"\6\6"):
                    said = await ask(ident + question("www.test")[2:])
                    assert [str(rr.rdata) for rr in said.rr] == ["192.0.2.2"]
                assert len(server.asked) == 4, "now it is in the cache"
                names.replace(Zone.build({"www.test": ["10.112.0.9"]}))
                said = await ask(b"\7\7" + question("www.test")[2:])
                assert [str(rr.rdata) for rr in said.rr] == ["10.112.0.9"], "and now the name is own"
            await names.stop()

    async def test_many_questions_do_not_grow_memory_without_end(self) -> None:
        async with upstream(good) as server, forwarding(server) as forwarder:
            query = parse_query(question("a.test"))
            assert query is not None
            for number in range(MAX_FOREIGN + 10):
                packet = struct.pack("!H", number) + struct.pack("!H", number) + question("a.test")[4:]
                forwarder.ready.learn(packet, query, b"")
            assert len(forwarder.ready.foreign) == 10
