"""The name server on real sockets, queried by dig and by raw sockets."""

import asyncio
import ipaddress
import re
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from dnslib import DNSRecord

from meshdns import mmsg
from meshdns.forwarder import Forwarder
from meshdns.server import LOCAL_NETWORKS, NameServer, NameServerError
from meshdns.zone import Zone
from tests.system.e2e.programs import call

ZONE = Zone.build(
    {"restserver.local": ["10.112.0.7"], "many.test": [f"10.112.1.{n}" for n in range(1, 251)]}, ["mesh.internal"]
)


@pytest.fixture(params=["batches", "plain"], autouse=True)
def transport_of_datagrams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no batches the same holds."""
    if request.param == "plain":
        monkeypatch.setattr(mmsg, "available", lambda: False)


@pytest.fixture
async def upstream() -> AsyncIterator[NameServer]:
    """Another name server, which knows example.test."""
    server = NameServer([("127.0.0.1", 0)], Zone.build({"example.test": ["192.0.2.1"]}))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def server(upstream: NameServer) -> AsyncIterator[NameServer]:
    server = NameServer([("127.0.0.1", 0)], ZONE, Forwarder(upstream.addresses))
    await server.start()
    yield server
    await server.stop()


async def dig(server: NameServer, *words: str) -> str:
    host, port = server.addresses[0]
    code, output = await call("dig", f"@{host}", "-p", str(port), "+time=3", "+tries=1", *words)
    assert code == 0, output
    return output


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
class TestDig:
    async def test_a_name(self, server: NameServer, transport: str) -> None:
        output = await dig(server, "restserver.local", transport)
        assert re.search(r"^restserver\.local\.\s+5\s+IN\s+A\s+10\.112\.0\.7$", output, re.MULTILINE), output
        assert "flags: qr aa rd ra;" in output
        assert "recursion requested but not available" not in output

    async def test_no_such_data_and_no_such_name(self, server: NameServer, transport: str) -> None:
        output = await dig(server, "restserver.local", "AAAA", transport)
        assert "status: NOERROR" in output
        assert re.search(r"^restserver\.local\.\s+5\s+IN\s+SOA\s", output, re.MULTILINE), output
        output = await dig(server, "nope.mesh.internal", transport)
        assert "status: NXDOMAIN" in output
        assert re.search(r"^mesh\.internal\.\s+5\s+IN\s+SOA\s", output, re.MULTILINE), output

    async def test_other_names_come_from_upstream(self, server: NameServer, transport: str) -> None:
        assert (await dig(server, "example.test", "+short", transport)).strip() == "192.0.2.1"
        assert "status: NXDOMAIN" in await dig(server, "nope.example.test", transport)
        assert server.counters.forwarded == 2

    async def test_unusual_queries(self, server: NameServer, transport: str) -> None:
        for words, expected in (
            (["restserver.local", "+edns=1", "+noednsnegotiation"], "status: BADVERS"),
            (["restserver.local", "+noedns"], "10.112.0.7"),
            (["restserver.local", "+opcode=notify"], "status: NOTIMP"),
            (["version.bind", "CH", "TXT"], "status: REFUSED"),
            (["restserver.local", "ANY"], "10.112.0.7"),
            (["rEsTsErVeR.lOcAl"], "rEsTsErVeR.lOcAl."),
        ):
            assert expected in await dig(server, *words, transport), words
        output = await dig(server, "mesh.internal", "AXFR", "+tcp")
        assert "Transfer failed" in output or "REFUSED" in output


async def test_a_large_answer_is_fetched_by_tcp_after_truncation(server: NameServer) -> None:
    output = await dig(server, "many.test")
    assert "Truncated, retrying in TCP mode" in output
    assert output.count("10.112.1.") == 250


async def test_a_swapped_zone_is_in_the_next_answer(server: NameServer) -> None:
    server.replace(Zone.build({"restserver.local": ["10.112.0.99"]}, ["mesh.internal"], serial=2))
    assert (await dig(server, "restserver.local", "+short")).strip() == "10.112.0.99"


async def test_pipelined_questions_on_one_connection_are_all_answered(server: NameServer) -> None:
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    names = ["example.test", "restserver.local", "nope.mesh.internal", "many.test"] * 5
    for number, name in enumerate(names):
        question = DNSRecord.question(name)
        question.header.id = number
        packet = bytes(question.pack())
        writer.write(struct.pack("!H", len(packet)) + packet)
    answers = {}
    for _ in names:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        said = DNSRecord.parse(await reader.readexactly(length))
        answers[said.header.id] = str(said.q.qname)
    assert answers == {number: name + "." for number, name in enumerate(names)}
    writer.close()
    await writer.wait_closed()


async def test_a_fragmented_query_and_a_client_that_disconnects(server: NameServer) -> None:
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    packet = bytes(DNSRecord.question("restserver.local").pack())
    for octet in struct.pack("!H", len(packet)) + packet:
        writer.write(bytes((octet,)))
        await writer.drain()
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    assert DNSRecord.parse(await reader.readexactly(length)).rr
    writer.write(b"\xff\xffhalf of it")
    writer.transport.abort()
    assert (await dig(server, "restserver.local", "+short")).strip() == "10.112.0.7"


async def test_stopping_ends_open_connections_and_frees_the_port(upstream: NameServer) -> None:
    server = NameServer([("127.0.0.1", 0)], ZONE, Forwarder(upstream.addresses))
    await server.start()
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    await server.stop()
    assert await reader.read() == b""
    writer.close()
    again = NameServer(server.addresses, ZONE)
    await again.start()
    await again.stop()


async def test_clients_outside_the_acl_are_refused() -> None:
    elsewhere = [ipaddress.ip_network("192.0.2.0/24")]
    server = NameServer([("127.0.0.1", 0)], ZONE, allowed=elsewhere)
    await server.start()
    output = await dig(server, "restserver.local")
    assert "status: REFUSED" in output
    assert "10.112.0.7" not in output
    assert server.counters.refused == 1
    await server.stop()
    for address in ("8.8.8.8", "2001:db8::1"):
        assert not any(ipaddress.ip_address(address) in network for network in LOCAL_NETWORKS)


async def test_an_answer_that_is_ready_over_tcp_is_for_served_clients_alone() -> None:
    server = NameServer([("127.0.0.1", 0)], ZONE, allowed=[ipaddress.ip_network("127.0.0.1/32")])
    await server.start()
    try:
        question = DNSRecord.question("restserver.local").pack()
        for client, rcode in (("127.0.0.1", 0), ("127.0.0.1", 0), ("127.0.0.9", 5), ("127.0.0.1", 0)):
            reader, writer = await asyncio.open_connection(*server.addresses[0], local_addr=(client, 0))
            writer.write((struct.pack("!H", len(question)) + question) * 2)
            async with asyncio.timeout(30):
                for _ in range(2):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    said = DNSRecord.parse(await reader.readexactly(length))
                    assert (said.header.rcode, len(said.rr)) == (rcode, not rcode)
                    assert said.header.id == DNSRecord.parse(question).header.id
            writer.close()
        assert (server.counters.answered, server.counters.refused) == (6, 2)
    finally:
        await server.stop()


async def test_a_zone_that_changes_is_in_the_next_answer_of_an_open_connection() -> None:
    server = NameServer([("127.0.0.1", 0)], ZONE)
    await server.start()
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    try:
        question = DNSRecord.question("restserver.local").pack()
        for address in ("10.112.0.7", "10.112.0.7", "10.112.0.8", "10.112.0.8", "10.112.0.9"):
            server.replace(Zone.build({"restserver.local": [address]}))
            writer.write(struct.pack("!H", len(question)) + question)
            async with asyncio.timeout(30):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                said = DNSRecord.parse(await reader.readexactly(length))
            assert [str(record.rdata) for record in said.rr] == [address]
    finally:
        writer.close()
        await server.stop()


async def test_a_port_in_use_is_reported_with_a_remedy_and_nothing_stays_bound() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(NameServerError, match=rf"127\.0\.0\.1:{port}: the port is taken.*set \[dns\] listen"):
            await NameServer([("127.0.0.1", port)], ZONE).start()
        server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", port)
        server.close()
