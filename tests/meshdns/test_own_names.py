"""Own names never leave the server, whatever the query, and slow queries never delay their answers."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from dnslib import RCODE, DNSRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshdns.authoritative import ForwardQuery, answer_query
from meshdns.forwarder import Forwarder
from meshdns.server import NameServer
from meshdns.service_records import reverse_domains
from meshdns.upstream_query import HedgingDelays
from meshdns.upstreams import Upstreams
from meshdns.zone import Zone
from tests.builders import POOL
from tests.meshdns.upstream import Upstream, good, question, silent, upstream
from tests.system.e2e.programs import call

ZONE = Zone.build(
    {"restserver.local": ["10.112.0.7"], "web.mesh.internal": ["10.112.0.8"]},
    ["mesh.internal", *reverse_domains(POOL)],
)
LONG = HedgingDelays(first=300, next=300, budget=600)
"""Longer than any test takes: what is under way stays so."""
OWN = [
    "restserver.local",
    "below.restserver.local",
    "_http._tcp.restserver.local",
    "web.mesh.internal",
    "mesh.internal",
    "nope.mesh.internal",
    "very.deep.nope.mesh.internal",
    "112.10.in-addr.arpa",
    "7.0.112.10.in-addr.arpa",
    "99.99.112.10.in-addr.arpa",
]


@asynccontextmanager
async def serving(*servers: Upstream) -> AsyncIterator[tuple[NameServer, Forwarder]]:
    """With upstreams that are also those of the own domains' parents."""
    addresses = [server.address for server in servers]
    forwarder = Forwarder(
        Upstreams(addresses, {"internal": addresses, "arpa": addresses, "local": addresses}), patience=LONG
    )
    server = NameServer([("127.0.0.1", 0)], ZONE, forwarder)
    await server.start()
    try:
        yield server, forwarder
    finally:
        await server.stop()


async def over_tcp(server: NameServer, packets: list[bytes]) -> list[DNSRecord]:
    """Each in turn on one connection; the answers in the order in which they come."""
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    said = []
    for packet in packets:
        writer.write(struct.pack("!H", len(packet)) + packet)
        async with asyncio.timeout(10):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            said.append(DNSRecord.parse(await reader.readexactly(length)))
    writer.close()
    return said


async def test_every_type_of_every_own_name_is_answered_locally() -> None:
    async with upstream(good) as outside, serving(outside) as (server, forwarder):
        asked = []
        for name in OWN:
            for qtype in (1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 43, 48, 64, 65, 255, 257, 65280):
                packet = bytearray(question(name.upper() if qtype % 2 else name))
                struct.pack_into("!H", packet, len(packet) - 4, qtype)
                asked.append(bytes(packet))
        for said in await over_tcp(server, asked):
            assert said.header.rcode in (RCODE.NOERROR, RCODE.NXDOMAIN), said
            assert said.header.aa
        host, port = server.addresses[0]
        for name in OWN:
            for word in ("A", "AAAA", "MX", "TYPE65", "ANY"):
                code, output = await call("dig", f"@{host}", "-p", str(port), "+time=3", "+tries=1", name, word)
                assert code == 0
                assert "flags: qr aa" in output, output
        assert outside.asked == outside.asked_tcp == [], "not one of them went out"
        assert forwarder.counters.asked == 0
        await over_tcp(server, [question("notmesh.internal"), question("7.0.113.10.in-addr.arpa")])
        assert outside.names() == {"notmesh.internal.", "7.0.113.10.in-addr.arpa."}, "others did"


LABELS = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(LABELS, st.sampled_from(OWN), st.integers(0, 65535), st.sampled_from([1, 255]), st.booleans())
def test_every_name_below_an_own_name_is_own(
    labels: list[bytes], name: str, qtype: int, qclass: int, upper: bool
) -> None:
    own = b"".join(bytes((len(label),)) + label.encode() for label in (name.upper() if upper else name).split("."))
    below = b"".join(bytes((len(label),)) + label for label in labels)
    packet = b"\0\7\1\0\0\1\0\0\0\0\0\0" + below + own + b"\0" + struct.pack("!HH", qtype, qclass)
    assert not isinstance(answer_query(packet, ZONE), ForwardQuery)


async def test_a_name_that_becomes_own_is_not_answered_from_the_forward_cache() -> None:
    async with upstream(good) as outside, serving(outside) as (server, forwarder):
        packet = question("new.test")
        for _ in range(3):
            assert str((await ask_udp(server, packet)).rr[0].rdata) == "192.0.2.1"
        assert packet[2:] in forwarder.ready
        server.replace(Zone.build({"new.test": ["10.112.0.9"]}, ["mesh.internal"]))
        for _ in range(3):
            assert str((await ask_udp(server, packet)).rr[0].rdata) == "10.112.0.9"


async def ask_udp(server: NameServer, packet: bytes) -> DNSRecord:
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(server.addresses[0])
        await loop.sock_sendall(client, packet)
        async with asyncio.timeout(10):
            return DNSRecord.parse(await loop.sock_recv(client, 4096))


BURST = 10_000


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_a_burst_of_slow_queries_does_not_delay_own_names(tcp: bool) -> None:
    """Each own answer comes while all slow ones that have a place are still waiting; those without fail at once."""
    async with upstream(silent) as outside, serving(outside) as (server, forwarder):
        loop = asyncio.get_running_loop()
        slow = [question(f"n{number}.test", id=number) for number in range(BURST)]
        failed = own = 0
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(server.addresses[0])
            for start in range(0, BURST, 50):
                for packet in slow[start : start + 50]:
                    await loop.sock_sendall(client, packet)
                if tcp:
                    (said,) = await over_tcp(server, [question("web.mesh.internal")])
                else:
                    said = await ask_udp(server, question("web.mesh.internal"))
                own += said.header.rcode == RCODE.NOERROR and bool(said.rr)
                while True:
                    try:
                        reply = client.recv(512)
                    except BlockingIOError:
                        break
                    assert reply[3] & 0xF == RCODE.SERVFAIL
                    failed += 1
        assert own == BURST // 50
        waiting = forwarder.counters.asked
        assert waiting == 1024 // 4, "one client's share"
        assert failed >= BURST - waiting - 50, "the others were told at once"
        assert len(outside.names()) <= waiting


async def test_the_quota_of_one_client_does_not_affect_others() -> None:
    async with upstream(silent) as outside, serving(outside) as (server, forwarder):
        said = []
        for number in range(2000):
            packet = question(f"n{number}.test")
            forward = server.answer_udp(packet, "10.0.0.1")
            assert isinstance(forward, ForwardQuery)
            said.append(server.forward(forward, "10.0.0.1", lambda _: None))
        assert said.count(None) == 256
        packet = question("other.test")
        forward = server.answer_udp(packet, "10.0.0.2")
        assert isinstance(forward, ForwardQuery)
        assert server.forward(forward, "10.0.0.2", lambda _: None) is None, "it is under way"
        assert forwarder.counters.asked == 257
