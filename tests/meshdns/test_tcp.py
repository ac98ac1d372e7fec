"""TCP: pipelined queries, and clients that cannot exhaust the server."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from meshdns.authoritative import DnsQuery, ForwardQuery
from meshdns.response_block import encode_block
from meshdns.tcp import MAX_PIPELINED, DnsTcpServer, ReadyResponses

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """`far...` is for the upstream, which answers once `release` is set; `big` has 60,000 octets."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.under_way = 0
        self.most = 0
        self.asked = 0
        self.ready: dict[bytes, bytes] = {}
        self.counted = 0

    def ready_tcp(self, host: str) -> ReadyResponses:
        assert host.startswith("127.0.0.")
        return self.ready.get

    def count(self, answered: int) -> None:
        self.counted += answered

    def answer_tcp(self, packet: bytes, host: str) -> bytes | ForwardQuery | None:
        self.asked += 1
        assert host.startswith("127.0.0.")
        if packet.startswith(b"far"):
            return ForwardQuery(packet, DnsQuery(0, (0, 0), packet, packet, 1, 1, None))
        if packet == b"nothing":
            return None
        return packet.upper() if packet != b"big" else bytes(60_000)

    def forward_tcp(self, question: ForwardQuery, host: str) -> "asyncio.Task[bytes]":
        async def work() -> bytes:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await self.release.wait()
            self.under_way -= 1
            return question.packet.upper()

        return asyncio.get_running_loop().create_task(work())


@asynccontextmanager
async def serving(served: Served, **options: float) -> AsyncIterator[int]:
    connections = DnsTcpServer(served, **options)  # type: ignore[arg-type]
    server = await asyncio.get_running_loop().create_server(connections.connection, "0.0.0.0", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        connections.stop()


@asynccontextmanager
async def connected(port: int, client: str = "127.0.0.1") -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def framed(*packets: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)


async def answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)


async def gone(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def test_queries_in_one_segment_are_answered_in_one_write_in_order() -> None:
    async with serving(Served()) as port, connected(port) as (reader, writer):
        writer.write(framed(b"a", b"nothing", b"", b"c"))
        async with asyncio.timeout(20):
            assert await reader.readexactly(8) == framed(b"A", b"", b"C")


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 64])
async def test_a_stream_that_is_cut_anywhere_gets_the_same_answers(piece: int) -> None:
    served = Served()
    served.ready[b"known"] = encode_block(b"\0\0ready")
    packets = [b"a", b"..known", b"nothing", b"", b"far", b"x" * 300, b"#4known", b"c"]
    stream = framed(*packets * 5)
    async with serving(served) as port, connected(port) as (reader, writer):
        served.release.set()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(stream), piece):
            writer.write(stream[at : at + piece])
            await asyncio.sleep(0)
        answers = [await answer(reader) for _ in range(5 * 7)]
    assert [each for each in answers if each != b"FAR"] == [b"A", b"..ready", b"", b"X" * 300, b"#4ready", b"C"] * 5
    assert answers.count(b"FAR") == 5
    assert (served.counted, served.asked) == (10, 30)


async def test_ready_answers_behind_queries_that_wait_for_a_place() -> None:
    served = Served()
    served.ready[b"known"] = encode_block(b"\0\0ready")
    async with serving(served) as port, connected(port) as (reader, writer):
        writer.write(framed(*[b"far"] * MAX_PIPELINED, b"..known", b"far", b"!!known"))
        async with asyncio.timeout(30):
            while served.under_way < MAX_PIPELINED:
                await asyncio.sleep(0)
        assert served.counted == 0, "it waits, so that a client has no more under way than the limit"
        served.release.set()
        answers = [await answer(reader) for _ in range(MAX_PIPELINED + 3)]
    assert [each for each in answers if each != b"FAR"] == [b"..ready", b"!!ready"]
    assert served.counted == 2


async def test_a_client_that_does_not_read_ready_answers_is_not_read_from() -> None:
    served = Served()
    served.ready[b"known"] = encode_block(b"\0\0" + bytes(1200))
    questions = 50_000
    async with serving(served, idle=0.5) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(framed(*[b"..known"] * questions))
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionError):
                await ask_on(writer)
        assert served.counted < questions / 2, "1.2 kB each: it stopped when the kernel took no more"
        writer.transport.abort()
        del reader


async def test_a_slow_upstream_delays_no_other_answer() -> None:
    served = Served()
    async with serving(served) as port, connected(port) as (reader, writer):
        writer.write(framed(b"far", b"near"))
        assert await answer(reader) == b"NEAR"
        served.release.set()
        assert await answer(reader) == b"FAR"


async def test_queries_of_a_client_at_upstreams_are_limited() -> None:
    served = Served()
    async with serving(served) as port, connected(port) as (reader, writer):
        writer.write(framed(*[b"far"] * (3 * MAX_PIPELINED)))
        async with asyncio.timeout(20):
            while served.under_way < MAX_PIPELINED:
                await asyncio.sleep(0)
        served.release.set()
        assert [await answer(reader) for _ in range(3 * MAX_PIPELINED)] == [b"FAR"] * (3 * MAX_PIPELINED)
        assert served.most <= MAX_PIPELINED


async def test_a_half_closed_connection_gets_outstanding_answers_before_it_is_closed() -> None:
    served = Served()
    async with serving(served) as port, connected(port) as (reader, writer):
        writer.write(framed(b"far"))
        writer.write_eof()
        async with asyncio.timeout(20):
            while not served.under_way:
                await asyncio.sleep(0)
        served.release.set()
        assert await answer(reader) == b"FAR"
        assert await gone(reader)


async def test_an_idle_connection_is_closed_and_an_active_one_is_not() -> None:
    async with serving(Served(), idle=1) as port, connected(port) as idle, connected(port) as busy:
        end = asyncio.get_running_loop().time() + 1.5
        while asyncio.get_running_loop().time() < end:
            busy[1].write(framed(b"a"))
            assert await answer(busy[0]) == b"A"
            await asyncio.sleep(0.05)
        assert idle[0].at_eof() or await gone(idle[0])


async def test_a_partial_query_counts_as_idle() -> None:
    async with serving(Served(), idle=0.2) as port, connected(port) as (reader, writer):
        writer.write(b"\xff\xffhalf of it")
        assert await gone(reader)


async def ask_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(framed(b"a"))
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_is_not_read_from_and_closed() -> None:
    served = Served()
    async with serving(served, idle=0.5) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        questions = 2000
        writer.write(framed(*[b"big"] * questions))
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                await ask_on(writer)
        assert 0 < served.asked < questions / 4, "60 kB each: it stopped when the kernel took no more"
        writer.transport.abort()
        del reader


async def test_a_client_that_reads_late_gets_everything() -> None:
    async with serving(Served()) as port, connected(port) as (reader, writer):
        writer.write(framed(*[b"big"] * 200))
        await asyncio.sleep(0.2)
        assert [len(await answer(reader)) for _ in range(200)] == [60_000] * 200


async def test_a_connection_above_the_limit_replaces_the_longest_idle_one() -> None:
    async with serving(Served(), connections=2) as port, connected(port) as first, connected(port) as second:
        for reader, writer in (first, second, first):
            writer.write(framed(b"a"))
            await answer(reader)
        async with connected(port) as third:
            third[1].write(framed(b"a"))
            assert await answer(third[0]) == b"A"
            assert await gone(second[0])
            first[1].write(framed(b"a"))
            assert await answer(first[0]) == b"A"


async def test_a_connection_above_the_limit_is_refused_if_none_is_idle() -> None:
    served = Served()
    async with serving(served, connections=1) as port, connected(port) as busy:
        busy[1].write(framed(b"far"))
        async with asyncio.timeout(20):
            while not served.under_way:
                await asyncio.sleep(0)
        async with connected(port) as new:
            assert await gone(new[0])
        served.release.set()
        assert await answer(busy[0]) == b"FAR"


async def test_stopping_closes_open_connections() -> None:
    async with serving(Served()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(framed(b"a"))
        assert await answer(reader) == b"A"
    assert await gone(reader)
    writer.close()


async def flood(port: int, client: str, number: int, stack: AsyncExitStack, query: bytes = b"") -> list[Streams]:
    """Open connections of one client, each of which sends the beginning of a query, or a whole one."""
    streams = []
    for _ in range(number):
        streams.append(await stack.enter_async_context(connected(port, client)))
        streams[-1][1].write(query or b"\0")
    return streams


async def left(streams: list[Streams]) -> int:
    """How many of them are open once the server has done its work."""
    await asyncio.sleep(0.1)
    return sum(not reader.at_eof() and reader.exception() is None for reader, _ in streams)


@pytest.mark.parametrize("query", [b"", framed(b"far")], ids=["unfinished", "busy"])
async def test_clients_that_flood_leave_connections_to_others(query: bytes) -> None:
    async with AsyncExitStack() as stack:
        served = Served()
        port = await stack.enter_async_context(serving(served, connections=20))
        floods = [await flood(port, "127.0.0.2", 40, stack, query)]
        assert await left(floods[0]) >= 14, "a client alone gets most of them"
        floods += [await flood(port, f"127.0.0.{number}", 40, stack, query) for number in range(3, 7)]
        assert sum([await left(each) for each in floods]) <= 20
        for number in (10, 11, 12):
            reader, writer = await stack.enter_async_context(connected(port, f"127.0.0.{number}"))
            writer.write(framed(b"hello"))
            assert await answer(reader) == b"HELLO"
        served.release.set()


async def test_a_client_beyond_its_share_replaces_its_own_idle_connection() -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(Served(), connections=10))
        reader, writer = await stack.enter_async_context(connected(port, "127.0.0.9"))
        writer.write(framed(b"first"))
        assert await answer(reader) == b"FIRST"
        await flood(port, "127.0.0.2", 60, stack)
        (last,) = await flood(port, "127.0.0.2", 1, stack, framed(b"hello"))
        assert await answer(last[0]) == b"HELLO"
        writer.write(framed(b"again"))
        assert await answer(reader) == b"AGAIN", "the connection of the other client is open"
