"""The userspace proxy: the contract with traffic on loopback, and errors that only a proxy can have."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, ExitStack
from typing import cast

import pytest
import uvloop
from typing_extensions import override

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.operations import AddRealServer, AddVirtualServer, BindVip
from mesh.dataplane.userspace import UserspaceDataPlane, tcp_proxy
from mesh.dataplane.userspace.tcp_proxy import RealServerMeter
from mesh.dataplane.userspace.udp_proxy import UdpListener
from mesh.host.vip_interface import LoopbackAddresses
from mesh.model.service import Address, Forwarding, Scheduler, Transport
from mesh.model.table import FailedConnections, RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.dataplane.contract import Connection, TrafficContract
from tests.system.e2e.programs import free_port


class RealServers:
    """Servers on loopback that answer with their name."""

    def __init__(self) -> None:
        self._open = AsyncExitStack()
        self.began: dict[str, int] = {}

    async def start(self, name: str) -> RealKey:
        port = free_port()
        server = await asyncio.start_server(lambda r, w: self._serve(name, r, w), "127.0.0.1", port)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Echo(name), local_addr=("127.0.0.1", port)
        )
        self._open.callback(transport.close)
        self._open.callback(server.close)
        return RealKey("127.0.0.1", port)

    async def close(self) -> None:
        await self._open.aclose()

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.began[name] = self.began.get(name, 0) + 1
        try:
            while await reader.readline():
                writer.write(f"{name}\n".encode())
        except ConnectionError:
            pass  # a test that aborts
        finally:
            writer.close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._name.encode(), addr)


class _Open(Connection):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @override
    async def echo(self) -> str:
        self._writer.write(b"who\n")
        return (await self._reader.readline()).decode().strip()

    @override
    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def servers() -> AsyncIterator[RealServers]:
    servers = RealServers()
    yield servers
    await servers.close()


@pytest.fixture
async def plane() -> AsyncIterator[UserspaceDataPlane]:
    plane = UserspaceDataPlane(LoopbackAddresses())
    yield plane
    await plane.close()


KEY = VirtualKey("127.112.0.1", 8000, Transport.TCP)


def behind(*reals: RealKey, key: VirtualKey = KEY, scheduler: Scheduler = Scheduler.WRR) -> Table:
    return Table({key: VirtualServer(scheduler, 0, dict.fromkeys(reals, RealServer(1)))}, frozenset([key.address]))


async def ask(address: str, port: int) -> str | None:
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except ConnectionError:
        return None
    connection = _Open(reader, writer)
    try:
        return await connection.echo() or None
    except ConnectionError:
        return None
    finally:
        writer.transport.abort()


class TestContract(TrafficContract):
    @pytest.fixture(autouse=True)
    def given(self, servers: RealServers) -> None:
        self.servers = servers

    @override
    def vip(self, number: int) -> Address:
        return f"127.112.0.{number}"

    @override
    async def real_server(self, name: str) -> RealKey:
        return await self.servers.start(name)

    @override
    async def ask_tcp(self, key: VirtualKey) -> str | None:
        return await ask(key.address, key.port)

    @override
    async def open_tcp(self, key: VirtualKey) -> Connection:
        return _Open(*await asyncio.open_connection(key.address, key.port))

    @override
    async def ask_udp(self, key: VirtualKey) -> str | None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((key.address, key.port))
            await loop.sock_sendall(client, b"who")
            async with asyncio.timeout(5):
                return (await loop.sock_recv(client, 100)).decode()


async def test_a_dying_real_server_causes_no_error_for_the_client(
    plane: UserspaceDataPlane, servers: RealServers
) -> None:
    a, dead = await servers.start("a"), RealKey("127.0.0.1", free_port())
    await plane.apply(diff_tables(Table(), behind(a, dead)))
    assert [await ask(KEY.address, KEY.port) for _ in range(6)] == ["a"] * 6


async def test_real_servers_that_refuse_connections_are_reported(servers: RealServers) -> None:
    told: list[tuple[Address, int]] = []
    refused = asyncio.Event()

    def on_refused(address: Address, port: int) -> None:
        told.append((address, port))
        refused.set()

    plane = UserspaceDataPlane(LoopbackAddresses(), on_refused=on_refused)
    a, dead = await servers.start("a"), RealKey("127.0.0.1", free_port())
    await plane.apply(diff_tables(Table(), behind(a, dead)))
    assert [await ask(KEY.address, KEY.port) for _ in range(4)] == ["a"] * 4
    assert told
    assert set(told) == {("127.0.0.1", dead.port)}
    told.clear()
    refused.clear()
    key = VirtualKey("127.112.0.1", 8000, Transport.UDP)
    await plane.apply(diff_tables(behind(a, dead), behind(dead, key=key)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((key.address, key.port))
        client.send(b"who")
        async with asyncio.timeout(5):
            await refused.wait()
    assert told[0] == ("127.0.0.1", dead.port)
    await plane.close()


async def test_a_client_never_reaches_a_real_server_that_it_is_barred_from(servers: RealServers) -> None:
    a, b, barred = await servers.start("a"), await servers.start("b"), set[RealKey]()

    def barred_from(client: Address, real_servers: Collection[RealKey]) -> Collection[RealKey]:
        return barred.intersection(real_servers) if client.startswith("127.") else ()

    plane = UserspaceDataPlane(LoopbackAddresses(), barred=barred_from)
    await plane.apply(diff_tables(Table(), behind(a, b)))
    barred.add(a)
    assert [await ask(KEY.address, KEY.port) for _ in range(4)] == ["b"] * 4
    barred.add(b)
    reader, writer = await asyncio.open_connection(KEY.address, KEY.port)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    await plane.close()


async def test_if_all_real_servers_refuse_the_client_is_reset(plane: UserspaceDataPlane) -> None:
    await plane.apply(diff_tables(Table(), behind(RealKey("127.0.0.1", free_port()))))
    reader, writer = await asyncio.open_connection(KEY.address, KEY.port)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


async def test_a_half_closed_client_still_gets_its_answer(plane: UserspaceDataPlane) -> None:
    async def sum_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hashlib.sha256(await reader.read()).digest())  # reads to the end of file
        writer.close()

    async with await asyncio.start_server(sum_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await plane.apply(diff_tables(Table(), behind(RealKey("127.0.0.1", port))))
        reader, writer = await asyncio.open_connection(KEY.address, KEY.port)
        body = os.urandom(8 << 20)
        writer.write(body)
        writer.write_eof()
        assert await reader.read() == hashlib.sha256(body).digest()
        writer.close()


async def test_the_last_bytes_of_a_server_that_closes_first_are_delivered(plane: UserspaceDataPlane) -> None:
    body = os.urandom(8 << 20)

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        writer.close()

    async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await plane.apply(diff_tables(Table(), behind(RealKey("127.0.0.1", port))))
        reader, writer = await asyncio.open_connection(KEY.address, KEY.port)
        assert hashlib.sha256(await reader.read()).digest() == hashlib.sha256(body).digest()
        writer.close()


async def test_a_slow_reader_stops_its_sender_instead_of_filling_memory(plane: UserspaceDataPlane) -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while True:
                writer.write(bytes(1 << 16))
                sent += 1 << 16
                await writer.drain()
        except ConnectionError:
            pass  # the test is over

    async with await asyncio.start_server(pour, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await plane.apply(diff_tables(Table(), behind(RealKey("127.0.0.1", port))))
        _, writer = await asyncio.open_connection(KEY.address, KEY.port, limit=1 << 16)
        before = -1
        async with asyncio.timeout(10):
            while sent != before or sent == 0:  # until the sender stands still
                before = sent
                await asyncio.sleep(0.3)
        assert sent < 64 << 20
        writer.transport.abort()


async def test_deleting_the_virtual_server_ends_its_connections(
    plane: UserspaceDataPlane, servers: RealServers
) -> None:
    await plane.apply(diff_tables(Table(), behind(await servers.start("a"))))
    reader, writer = await asyncio.open_connection(KEY.address, KEY.port)
    assert await _Open(reader, writer).echo() == "a"
    await plane.apply(diff_tables(await plane.read(), Table()))
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    assert await ask(KEY.address, KEY.port) is None
    writer.close()


async def test_low_ports_are_moved_and_read_back_as_they_are(servers: RealServers) -> None:
    plane = UserspaceDataPlane(LoopbackAddresses(), low_port_offset=8000)
    key = VirtualKey("127.112.0.1", 80, Transport.TCP)
    wanted = behind(await servers.start("a"), key=key)
    assert not await plane.apply(diff_tables(Table(), wanted))
    assert await plane.read() == wanted
    assert plane.listening_on(key) == ("127.112.0.1", 8080)
    assert plane.listening_on(KEY) == ("127.112.0.1", 8000)
    assert await ask("127.112.0.1", 8080) == "a"
    await plane.close()


async def test_a_port_in_use_is_reported_and_bound_once_it_is_free(
    plane: UserspaceDataPlane, servers: RealServers
) -> None:
    wanted = behind(await servers.start("a"))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((KEY.address, KEY.port))
        taken.listen()
        failures = await plane.apply(diff_tables(Table(), wanted))
        assert "127.112.0.1:8000 cannot be listened on: the port is taken; `ss -lnp" in failures[0].reason.text
        assert KEY not in (await plane.read()).virtual_servers
    assert not await plane.apply(diff_tables(await plane.read(), wanted))
    assert await ask(KEY.address, KEY.port) == "a"


async def test_unsupported_features_are_refused_with_a_reason(plane: UserspaceDataPlane) -> None:
    sctp = KEY._replace(transport=Transport.SCTP)
    failures = await plane.apply(
        [
            AddVirtualServer(sctp, Scheduler.RR, 0),
            AddVirtualServer(KEY, Scheduler.RR, 0),
            AddRealServer(KEY, RealKey("127.0.0.1", 9), RealServer(1, Forwarding.DIRECT)),
        ]
    )
    assert "cannot do SCTP" in failures[0].reason.text
    assert "write routing.forwarding: masquerade" in failures[1].reason.text
    assert (await plane.read()).virtual_servers == {KEY: VirtualServer(Scheduler.RR)}


async def test_a_virtual_server_may_precede_its_vip_and_a_failed_bind_is_reported(servers: RealServers) -> None:
    class Late(LoopbackAddresses):
        """Its address cannot be listened on until it was bound; 192.0.2.1 is never here."""

        @override
        async def bind(self, address: Address) -> None:
            raise OSError(1, "Operation not permitted")

    plane = UserspaceDataPlane(Late())
    key = VirtualKey("192.0.2.1", 8000, Transport.TCP)
    assert not await plane.apply([AddVirtualServer(key, Scheduler.WRR, 0)])
    (failure,) = await plane.apply([BindVip("192.0.2.1")])
    assert "VIP 192.0.2.1 cannot be bound: Operation not permitted; run as root" in failure.reason.text
    await plane.close()


async def test_a_client_of_udp_keeps_its_real_server_until_it_is_idle(servers: RealServers) -> None:
    picked: list[RealKey] = []
    reals = [await servers.start("a"), await servers.start("b")]

    class Behind:
        def pick(self, client: Address, without: set[RealKey]) -> RealKey:
            picked.append(reals[len(picked) % 2])
            return picked[-1]

        def refused(self, real: RealKey, *, answered: bool = True) -> None:
            pytest.fail(f"{real} listens")

        def opened(self, real: RealKey) -> RealServerMeter:
            return RealServerMeter()

        def closed(self, real: RealKey) -> None:
            closed.set()

    closed = asyncio.Event()
    listener = UdpListener(Behind(), idle=2)  # the first two datagrams come within it, also on a busy machine
    port = free_port()
    await listener.open("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", port))
        for expected in (b"a", b"a", b"b"):
            if expected == b"b":
                await closed.wait()
            await loop.sock_sendall(client, b"who")
            async with asyncio.timeout(5):
                assert await loop.sock_recv(client, 100) == expected
    await listener.close()


async def test_datagrams_never_reach_a_real_server_that_has_left(servers: RealServers) -> None:
    """Its address may be that of another service's container by then."""
    former, present = await servers.start("a"), await servers.start("b")
    plane = UserspaceDataPlane(LoopbackAddresses())
    key = VirtualKey(KEY.address, KEY.port, Transport.UDP)
    other = VirtualKey(KEY.address, free_port(), Transport.UDP)
    loop = asyncio.get_running_loop()

    def table(*reals: RealKey) -> Table:
        server = VirtualServer(real_servers=dict.fromkeys(reals, RealServer()))
        return Table({key: server, other: VirtualServer(real_servers={former: RealServer()})}, frozenset({key.address}))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        for reals, expected in (((former,), b"a"), ((present,), b"b")):
            assert not await plane.apply(diff_tables(await plane.read(), table(*reals)))
            for _ in range(3):
                await loop.sock_sendto(client, b"who", (key.address, key.port))
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(client, 100) == expected
    await plane.close()


async def ask_with_empty_datagrams() -> None:
    """Empty datagrams pass in both directions, before and after a session's socket is open, in order with others."""
    received: list[bytes] = []

    class Mirror(asyncio.DatagramProtocol):
        """Gives back what it gets, as raw sockets do: the transports of event loops send no empty datagrams."""

        @override
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            received.append(data)
            real_socket.sendto(data, addr)

    class Behind:
        def pick(self, client: Address, without: set[RealKey]) -> RealKey:
            return RealKey("127.0.0.1", real_socket.getsockname()[1])

        def refused(self, real: RealKey, *, answered: bool = True) -> None:
            pytest.fail(f"{real} listens")

        def opened(self, real: RealKey) -> RealServerMeter:
            return RealServerMeter()

        def closed(self, real: RealKey) -> None:
            pass

    loop = asyncio.get_running_loop()
    real_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    real_socket.bind(("127.0.0.1", 0))
    real_socket.setblocking(False)
    mirror, _ = await loop.create_datagram_endpoint(Mirror, sock=real_socket)
    listener, port = UdpListener(Behind()), free_port()
    await listener.open("127.0.0.1", port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", port))
        for sent in (b"", b"a", b"", b""):
            client.send(sent)
            async with asyncio.timeout(5):
                assert await loop.sock_recv(client, 100) == sent
    assert received == [b"", b"a", b"", b""]
    assert (listener.inward.octets, listener.outward.octets) == (1, 1)
    await listener.close()
    mirror.close()
    await asyncio.sleep(0)


async def test_empty_datagrams_pass_in_both_directions() -> None:
    await ask_with_empty_datagrams()


def test_empty_datagrams_pass_under_uvloop() -> None:
    uvloop.run(ask_with_empty_datagrams())


async def test_an_empty_datagram_to_a_port_where_nothing_listens_ends_the_session() -> None:
    refused = asyncio.Event()

    class Behind:
        def pick(self, client: Address, without: set[RealKey]) -> RealKey:
            return RealKey("127.0.0.1", closed_port)

        def refused(self, real: RealKey, *, answered: bool = True) -> None:
            refused.set()

        def opened(self, real: RealKey) -> RealServerMeter:
            return RealServerMeter()

        def closed(self, real: RealKey) -> None:
            pass

    closed_port, listener, port = free_port(), UdpListener(Behind()), free_port()
    await listener.open("127.0.0.1", port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        async with asyncio.timeout(10):
            while not refused.is_set():
                client.send(b"")
                await asyncio.sleep(0.01)
    await listener.close()


def test_it_works_under_uvloop() -> None:
    async def work() -> None:
        servers = RealServers()
        plane = UserspaceDataPlane(LoopbackAddresses())
        real = await servers.start("a")
        await plane.apply(diff_tables(Table(), behind(real)))
        assert await ask(KEY.address, KEY.port) == "a"
        reader, writer = await asyncio.open_connection(KEY.address, KEY.port)
        writer.write(b"who\n")
        writer.write_eof()
        assert await reader.read() == b"a\n"
        writer.close()
        await plane.close()
        await servers.close()

    uvloop.run(work())


async def failed_at(plane: UserspaceDataPlane, real: RealKey, wanted: FailedConnections) -> None:
    """Wait until so many connections to a real server have failed, and no more."""
    async with asyncio.timeout(30):
        while (await plane.failed_connections())[KEY, real] != wanted:
            await asyncio.sleep(0.01)


async def test_connections_that_are_refused_are_counted_each(plane: UserspaceDataPlane) -> None:
    dead = RealKey("127.0.0.1", free_port())
    await plane.apply(diff_tables(Table(), behind(dead)))
    assert [await ask(KEY.address, KEY.port) for _ in range(3)] == [None] * 3
    await failed_at(plane, dead, FailedConnections(refused=3))


def full_listener(sockets: ExitStack) -> RealKey:
    """Listen with a queue that is full, so that the kernel drops further connections: listen(2)."""
    listener = sockets.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        waiting = sockets.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return RealKey(*listener.getsockname())


async def test_connections_without_an_answer_are_counted_each(
    plane: UserspaceDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_proxy, "CONNECT_TIMEOUT", 0.3)
    with ExitStack() as sockets:
        full = full_listener(sockets)
        await plane.apply(diff_tables(Table(), behind(full)))
        assert await ask(KEY.address, KEY.port) is None
        await failed_at(plane, full, FailedConnections(unanswered=1))


async def test_a_reset_counts_if_the_real_server_sent_it(plane: UserspaceDataPlane, servers: RealServers) -> None:
    met = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        tcp_proxy.reset_connection(cast(asyncio.Transport, writer.transport))
        met.set()

    real = RealKey("127.0.0.1", free_port())
    server = await asyncio.start_server(serve, real.address, real.port)
    polite = await servers.start("a")
    await plane.apply(diff_tables(Table(), behind(real)))
    assert await ask(KEY.address, KEY.port) is None
    await met.wait()
    await failed_at(plane, real, FailedConnections(reset=1))
    server.close()
    await plane.apply(diff_tables(behind(real), behind(polite)))
    _, writer = await asyncio.open_connection(KEY.address, KEY.port)
    tcp_proxy.reset_connection(cast(asyncio.Transport, writer.transport))  # the client's own
    assert await ask(KEY.address, KEY.port) == "a"
    await failed_at(plane, polite, FailedConnections())
