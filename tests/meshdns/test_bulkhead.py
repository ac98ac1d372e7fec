"""One packet, connection or zone that raises ends alone; the name server goes on answering."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from dnslib import RCODE, DNSRecord
from typing_extensions import override

from meshdns import bulkhead, forwarder, message, mmsg, upstream_query
from meshdns.forwarder import Forwarder
from meshdns.packet_cache import ZoneResponder
from meshdns.rebinding import AnswerFilter
from meshdns.server import NameServer
from meshdns.tcp import DnsTcpConnection
from meshdns.zone import Zone

ZONE = Zone.build({"web.test": ["10.112.0.7"], "api.test": ["10.112.0.8"]}, ["mesh.internal"])
FAR = Zone.build({"far.example": ["192.0.2.1"]})


@pytest.fixture(params=["batches", "plain"], autouse=True)
def transport_of_datagrams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(mmsg, "available", lambda: False)


@pytest.fixture(autouse=True)
def caught() -> Iterator[list[str]]:
    found: list[str] = []
    bulkhead.report_to(lambda subject, error: found.append(f"{subject}: {error!r}"))
    yield found
    bulkhead.report_to(bulkhead.log_failure)


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    upstream = NameServer([("127.0.0.1", 0)], FAR)
    await upstream.start()
    own = NameServer([("127.0.0.1", 0)], ZONE, Forwarder(upstream.addresses))
    await own.start()
    yield own
    await own.stop()
    await upstream.stop()


def query(name: str, ident: int = 1) -> bytes:
    packet = DNSRecord.question(name)
    packet.header.id = ident
    return bytes(packet.pack())


async def ask(names: NameServer, *packets: bytes) -> dict[int, DNSRecord]:
    """The answers to packets that are sent at once, by their ID."""
    loop = asyncio.get_running_loop()
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(names.addresses[0])
        for packet in packets:
            client.send(packet)
        async with asyncio.timeout(10):
            for _ in packets:
                record = DNSRecord.parse(await loop.sock_recv(client, 4096))
                found[record.header.id] = record
    return found


async def ask_tcp(names: NameServer, packet: bytes) -> DNSRecord:
    reader, writer = await asyncio.open_connection(*names.addresses[0])
    writer.write(struct.pack("!H", len(packet)) + packet)
    async with asyncio.timeout(10):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        said = await reader.readexactly(length)
    writer.close()
    return DNSRecord.parse(said)


async def test_a_query_that_raises_gets_servfail_and_the_others_their_answers(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    for method in ("think", "ask"):
        function = getattr(ZoneResponder, method)

        def raise_for_web(self: ZoneResponder, packet: bytes, host: str = "", function: object = function) -> object:
            if b"\3web" in packet:
                raise IndexError("on purpose")
            return function(self, packet, host)  # type: ignore[operator]

        monkeypatch.setattr(ZoneResponder, method, raise_for_web)
    answers = await ask(names, query("api.test", 1), query("web.test", 2), query("api.test", 3), query("x.test", 4))
    assert RCODE[answers[2].header.rcode] == "SERVFAIL"
    assert [str(answers[ident].rr[0].rdata) for ident in (1, 3)] == ["10.112.0.8"] * 2
    assert RCODE[(await ask_tcp(names, query("web.test"))).header.rcode] == "SERVFAIL"
    assert str((await ask_tcp(names, query("api.test"))).rr[0].rdata) == "10.112.0.8"
    assert caught == ["a query: IndexError('on purpose')"] * 2


async def test_a_batch_that_raises_leaves_the_socket_watched(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    function, left = NameServer.answer_udp, [True]

    def raise_once(self: NameServer, packet: bytes, host: str, *, looked: bool = False) -> object:
        if left:
            left.pop()
            raise MemoryError
        return function(self, packet, host, looked=looked)

    monkeypatch.setattr(NameServer, "answer_udp", raise_once)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(names.addresses[0])
        client.send(query("no.test"))
        async with asyncio.timeout(10):
            while not caught:
                await asyncio.sleep(0.01)
    for number in range(3):
        assert RCODE[(await ask(names, query(f"no{number}.mesh.internal")))[1].header.rcode] == "NXDOMAIN"


async def test_a_forwarded_query_that_raises_gets_servfail(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    function, left = Forwarder.ask, [True]

    def raise_once(self: Forwarder, *args: object, **options: object) -> object:
        if left:
            left.pop()
            raise KeyError("on purpose")
        return function(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Forwarder, "ask", raise_once)
    answers = await ask(names, query("far.example", 1))
    assert RCODE[answers[1].header.rcode] == "SERVFAIL"
    assert str((await ask(names, query("far.example", 2)))[2].rr[0].rdata) == "192.0.2.1"
    assert caught == ["a forwarded query: KeyError('on purpose')"]


async def test_a_packet_of_an_upstream_that_raises_costs_its_own_query_alone(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    function, left = message.parse_matching_reply, [True]

    def raise_once(packet: bytes, sent: bytes, refuse: AnswerFilter | None) -> object:
        if left:
            left.pop()
            raise RecursionError("on purpose")
        return function(packet, sent, refuse)

    monkeypatch.setattr(upstream_query, "parse_matching_reply", raise_once)
    answers = await ask(names, query("far.example", 1))
    assert str(answers[1].rr[0].rdata) == "192.0.2.1", "it is asked again"
    assert len(caught) == 1


async def test_a_response_that_cannot_be_written_is_lost_alone(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    function, left = message.write_response, [True]

    def raise_once(*args: object, **options: object) -> object:
        if left:
            left.pop()
            raise ValueError("on purpose")
        return function(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(forwarder, "write_response", raise_once)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(names.addresses[0])
        client.send(query("far.example", 1))
        async with asyncio.timeout(10):
            while not caught:
                await asyncio.sleep(0.01)
    assert str((await ask(names, query("far.example", 2)))[2].rr[0].rdata) == "192.0.2.1"


async def test_a_zone_that_raises_leaves_the_last_one(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, caught: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("on purpose")

    monkeypatch.setattr(ZoneResponder, "replace", fail)
    asyncio.get_running_loop().call_soon(bulkhead.callback(names.replace, "a new zone"), FAR)
    async with asyncio.timeout(10):
        while not caught:
            await asyncio.sleep(0.01)
    assert str((await ask_tcp(names, query("api.test"))).rr[0].rdata) == "10.112.0.8"


async def test_a_connection_that_was_reset_before_it_was_accepted_leaks_nothing(caught: list[str]) -> None:
    """Then nobody knows the address of the client any more."""
    own = NameServer([("127.0.0.1", 0)], ZONE)
    await own.start()
    try:
        (_, connections) = own._tcp[0]  # noqa: SLF001

        class Transport(asyncio.Transport):
            aborted = False

            @override
            def get_extra_info(self, name: str, default: object = None) -> object:
                return None

            @override
            def abort(self) -> None:
                self.aborted = True

            @override
            def is_closing(self) -> bool:
                return self.aborted

        connection, transport = connections.connection(), Transport()
        assert isinstance(connection, DnsTcpConnection)
        connection.connection_made(transport)
        assert transport.aborted
        connection.connection_lost(None)
        assert caught == []
        for _ in range(300):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, own.addresses[0])
        assert str((await ask_tcp(own, query("api.test"))).rr[0].rdata) == "10.112.0.8"
    finally:
        await own.stop()
    assert caught == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_is_no_error_passes(error: type[BaseException], caught: list[str]) -> None:
    with pytest.raises(error), bulkhead.contain("x"):
        raise error
    assert caught == []


def test_without_a_report_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bulkhead.report_to(bulkhead.log_failure)
    with bulkhead.contain("a query"):
        raise ValueError("on purpose")
    (record,) = caplog.records
    assert record.getMessage() == "dns: a query: ValueError('on purpose')"
    assert record.exc_info
