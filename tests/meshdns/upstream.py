"""A scripted name server on loopback, over UDP and TCP, which records the queries it received."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, cast

from dnslib import QTYPE, RCODE, RR, SOA, A, DNSRecord
from typing_extensions import override

from meshdns.authoritative import parse_query
from meshdns.bind import bind_sockets
from meshdns.forwarder import Forwarder

Reply: TypeAlias = Callable[[DNSRecord], bytes | None]


class Upstream(asyncio.DatagramProtocol):
    """`reply` says what to answer; None: nothing. `over_tcp` the same for TCP, where it differs."""

    def __init__(self, reply: Reply, over_tcp: Reply | None = None) -> None:
        self.reply = reply
        self.over_tcp = over_tcp
        self.loops: Reply = says("NXDOMAIN")
        """What it says when it is asked for a name that finds loops."""
        self.packets: list[bytes] = []
        self.asked: list[DNSRecord] = []
        """Without questions about loops."""
        self.asked_tcp: list[DNSRecord] = []
        self.peers: list[tuple[str, int]] = []
        self.first = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.address: tuple[str, int] = transport.get_extra_info("sockname")

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = DNSRecord.parse(data)
        if query.q.qtype == QTYPE.HINFO:
            if (said := self.loops(query)) is not None:
                self.transport.sendto(said, addr)
            return
        self.packets.append(data)
        self.asked.append(query)
        self.peers.append(addr)
        self.first.set()
        said = self.reply(query)
        if said is not None:
            self.transport.sendto(said, addr)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            query = DNSRecord.parse(await reader.readexactly(length))
            self.asked_tcp.append(query)
            said = (self.over_tcp or self.reply)(query)
            if said is not None:
                writer.write(struct.pack("!H", len(said)) + said)
                await reader.read()
        except EOFError:
            pass
        finally:
            writer.close()

    def names(self) -> set[str]:
        """What it was asked about, in lower case."""
        return {str(query.q.qname).lower() for query in (*self.asked, *self.asked_tcp)}


@asynccontextmanager
async def upstream(reply: Reply, over_tcp: Reply | None = None, *, tcp: bool = True) -> AsyncIterator[Upstream]:
    udp_socket, tcp_socket = bind_sockets("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Upstream(reply, over_tcp), sock=udp_socket)
    listening = None
    if tcp:
        listening = await asyncio.start_server(server.converse, sock=tcp_socket)
    else:
        tcp_socket.close()
    try:
        yield server
    finally:
        transport.close()
        if listening is not None:
            listening.close()
        await asyncio.sleep(0)  # the loop's turn in which they really close


def good(query: DNSRecord) -> bytes:
    """An address, for a minute."""
    return address("192.0.2.1", 60)(query)


def address(host: str, ttl: int) -> Callable[[DNSRecord], bytes]:
    def reply(query: DNSRecord) -> bytes:
        said = query.reply()
        said.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(host), ttl=ttl))
        return bytes(said.pack())

    return reply


def many(count: int) -> Callable[[DNSRecord], bytes]:
    """So many addresses: 100 do not fit into a datagram."""

    def reply(query: DNSRecord) -> bytes:
        said = query.reply()
        for number in range(count):
            said.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(f"192.0.2.{number % 256}"), ttl=60))
        return bytes(said.pack())

    return reply


def truncated(query: DNSRecord) -> bytes:
    said = query.reply()
    said.header.tc = 1
    return bytes(said.pack())


def says(rcode: str) -> Callable[[DNSRecord], bytes]:
    def reply(query: DNSRecord) -> bytes:
        said = query.reply()
        said.header.rcode = getattr(RCODE, rcode)
        return bytes(said.pack())

    return reply


def negative(rcode: str, ttl: int, minimum: int) -> Reply:
    """With a SOA record: RFC 2308."""

    def reply(query: DNSRecord) -> bytes:
        said = DNSRecord.parse(says(rcode)(query))
        said.add_auth(
            RR("test", QTYPE.SOA, rdata=SOA("ns.test", "admin.test", (1, 3600, 600, 86400, minimum)), ttl=ttl)
        )
        return bytes(said.pack())

    return reply


def silent(_: DNSRecord) -> None:
    return None


def question(name: str = "example.test", qtype: str = "A", **header: int) -> bytes:
    record = DNSRecord.question(name, qtype)
    for field, value in header.items():
        setattr(record.header, field, value)
    return bytes(record.pack())


async def resolve(forwarder: Forwarder, packet: bytes, host: str = "127.0.0.1", *, tcp: bool = False) -> DNSRecord:
    """What a client gets."""
    query = parse_query(packet)
    assert query is not None
    async with asyncio.timeout(10):
        said = await forwarder.resolve(packet, query, host, tcp=tcp)
    assert said[:2] == packet[:2], "the client's own ID"
    assert said[12 : 12 + len(query.question)] == query.question, "and its question"
    return DNSRecord.parse(said)
