"""UDP on real sockets: answers leave from the address that was queried, whatever arrives."""

import asyncio
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from dnslib import EDNS0, DNSRecord
from typing_extensions import override

from meshdns import mmsg, udp
from meshdns import udp_batch as batch
from meshdns.bind import bind_sockets
from meshdns.forwarder import Forwarder
from meshdns.response_block import encode_block
from meshdns.server import NameServer
from meshdns.zone import Zone
from tests.netns import private_network, run_ip

ZONE = Zone.build({"web.test": ["10.112.0.7"]}, ["test"])
RUN: list[Any] = [pytest.param(asyncio.run, id="asyncio"), pytest.param(uvloop.run, id="uvloop")]
Run = Callable[[Coroutine[Any, Any, None]], None]


def question(name: str = "web.test", ident: int = 1) -> bytes:
    return struct.pack("!H", ident) + bytes(DNSRecord.question(name).pack())[2:]


@asynccontextmanager
async def running(host: str, forwarder: Forwarder | None = None, zone: Zone = ZONE) -> AsyncIterator[NameServer]:
    server = NameServer([(host, 0)], zone, forwarder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(host: str, port: int, packet: bytes = question()) -> bytes:
    """The answer, if it comes from where it was asked: a connected socket takes no other.

    Asked again a few times, as every resolver does: a new IPv6 address has its route a moment later.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(20):
        with socket.socket(family, socket.SOCK_DGRAM) as client, suppress(OSError):
            client.setblocking(False)
            client.connect((host, port))
            client.send(packet)
            async with asyncio.timeout(0.3):
                return await asyncio.get_running_loop().sock_recv(client, 4096)
    pytest.fail(f"no answer from {host}")


def address_in(said: bytes) -> str:
    return str(DNSRecord.parse(said).rr[0].rdata)


@pytest.mark.parametrize("run", RUN)
@pytest.mark.parametrize(
    ("listen", "addresses"),
    [("0.0.0.0", ["127.0.0.1", "10.9.0.1", "10.9.0.2"]), ("::", ["::1", "fd09::1", "fd09::2"])],
    ids=["IPv4", "IPv6"],
)
def test_bound_to_all_addresses_it_answers_from_the_queried_address_and_from_new_ones(
    run: Run, listen: str, addresses: list[str]
) -> None:
    length = 128 if ":" in listen else 32

    async def work() -> None:
        far = Zone.build({"far.example": ["192.0.2.1"]})
        async with (
            running("127.0.0.1", zone=far) as upstream,
            running(listen, Forwarder(upstream.addresses)) as server,
        ):
            port = server.addresses[0][1]
            for address in addresses:
                if address not in ("127.0.0.1", "::1"):
                    run_ip(f"addr add {address}/{length} dev lo" + (" nodad" if length == 128 else ""))
                for name, expected in (("web.test", "10.112.0.7"), ("far.example", "192.0.2.1")):
                    assert address_in(await ask(address, port, question(name))) == expected

    with private_network():
        run(work())


@pytest.mark.parametrize("address", ["10.9.0.7", "fd09::7"])
def test_an_address_added_later_is_served(address: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with running(address) as server:
            assert f"does not have the address {address} yet" in caplog.text
            run_ip(f"addr add {address}/{128 if ':' in address else 32} dev lo" + (" nodad" if ":" in address else ""))
            assert address_in(await ask(address, server.addresses[0][1])) == "10.112.0.7"
            reader, writer = await asyncio.open_connection(address, server.addresses[0][1])
            writer.write(struct.pack("!H", len(question())) + question())
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            assert address_in(await reader.readexactly(length)) == "10.112.0.7"
            writer.close()
            await writer.wait_closed()

    with private_network():
        asyncio.run(work())


@pytest.mark.parametrize("plain", [False, True], ids=["batches", "plain"])
async def test_each_query_of_a_flood_is_answered_under_its_own_id(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than fit a batch; known ones, unknown ones, such that deserve no answer, and such that break the rules."""
    if plain:
        monkeypatch.setattr(mmsg, "available", lambda: False)
    pick = random.Random(1)
    async with running("127.0.0.1") as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            client.setblocking(False)
            client.connect(server.addresses[0])
            expected = {}
            for ident in range(200):
                kind = pick.randrange(5)
                packet = question(["web.test", "no.test", "WEB.test", "web.test", "x" * 60 + ".test"][kind], ident)
                if kind == 3:
                    packet = pick.choice([packet[:11], packet[:2] + b"\x81" + packet[3:], b"", packet + bytes(3000)])
                if len(packet) > 1000:
                    expected[ident] = 1
                elif kind != 3:
                    expected[ident] = [0, 3, 0, 0, 3][kind]
                client.send(packet)
            said: dict[int, int] = {}
            async with asyncio.timeout(5):
                while len(said) < len(expected):
                    await asyncio.sleep(0)
                    try:
                        packet = client.recv(4096)
                    except BlockingIOError:
                        continue
                    said[struct.unpack("!H", packet[:2])[0]] = packet[3] & 15
        assert said == expected
        counters = server.counters
        assert (counters.answered, counters.dropped) == (len(expected), 200 - len(expected))


async def test_only_the_clients_outside_the_acl_are_refused_in_a_batch() -> None:
    class Half(NameServer):
        @override
        def allows(self, host: str) -> bool:
            return host != "127.0.0.2" and super().allows(host)

        @override
        def answer_udp(self, packet: bytes, host: str, *, looked: bool = False) -> Any:
            return super().answer_udp(packet, host if host != "127.0.0.2" else "8.8.8.8", looked=looked)

    server = Half([("127.0.0.1", 0)], ZONE)
    await server.start()
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for number, client in enumerate(clients, start=1):
        client.bind((f"127.0.0.{number}", 0))
        client.setblocking(False)
    for _ in range(3):
        for client in clients:
            client.sendto(question(), server.addresses[0])
    codes: list[list[int]] = [[], []]
    async with asyncio.timeout(5):
        while sum(map(len, codes)) < 6:
            await asyncio.sleep(0)
            for client, seen in zip(clients, codes, strict=True):
                try:
                    seen.append(client.recv(512)[3] & 15)
                except BlockingIOError:
                    continue
    for client in clients:
        client.close()
    await server.stop()
    assert codes == [[0, 0, 0], [5, 5, 5]]
    assert server.counters.refused == 3


def test_an_unreachable_client_affects_no_answer_to_others() -> None:
    """sendmmsg stops at the first that fails: here the second of three, whose address has gone."""
    with private_network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        part = batch.UdpBatch(sock)
        run_ip("addr add 10.9.0.1/32 dev lo")
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for client, host in zip(clients, ("127.0.0.1", "10.9.0.1", "127.0.0.1"), strict=True):
            client.settimeout(2)
            client.bind((host, 0))
            client.sendto(question(), sock.getsockname())
        while (got := part.receive()) != 3:
            assert got <= 0
        run_ip("addr del 10.9.0.1/32 dev lo")
        part.answer([encode_block(b"--abc")] * 3)
        part.send(0, 3)
        assert [clients[n].recv(9) for n in (0, 2)] == [b"\0\1abc", b"\0\1abc"]
        for client in clients:
            client.close()


@pytest.mark.parametrize("edns", [False, True])
@pytest.mark.parametrize("forwarded", [False, True])
def test_an_answer_above_the_path_mtu_is_truncated_and_never_fragmented(edns: bool, forwarded: bool) -> None:
    """Known in a batch, or from an upstream; whole again over TCP, and over a wider way."""
    many = Zone.build({"web.test": [f"10.112.1.{n}" for n in range(60)]}, ["test"])
    record = DNSRecord.question("web.test")
    if edns:
        record.add_ar(EDNS0(udp_len=1232))
    packet = bytes(record.pack())

    async def work() -> None:
        async with running("127.0.0.1", zone=many) as upstream:
            forwarder = Forwarder(upstream.addresses) if forwarded else None
            async with running("127.0.0.1", forwarder, zone=Zone.build({}) if forwarded else many) as server:
                port = server.addresses[0][1]
                for mtu, whole in ((65536, edns), (552, False), (65536, edns)):
                    run_ip(f"link set lo mtu {mtu}")
                    for _ in range(2):
                        said = DNSRecord.parse(await ask("127.0.0.1", port, packet))
                        assert (len(said.rr) == 60) == whole
                        assert (said.header.tc, said.q.qname, len(said.ar)) == (int(not whole), "web.test", int(edns))
                        assert said.header.id == record.header.id

    with private_network():
        asyncio.run(work())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the host's limit holds")
def test_thousands_of_queries_are_buffered_while_the_server_is_busy() -> None:
    """More than the host's usual limit lets through, some 250."""
    with private_network():
        udp_socket, tcp_socket = bind_sockets("127.0.0.1", 0)
        with udp_socket, tcp_socket, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(4000):
                client.sendto(question(), udp_socket.getsockname())
            for _ in range(4000):
                assert udp_socket.recv(512) == question()  # BlockingIOError if it was lost


def test_clients_beyond_the_size_of_the_client_cache_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "MAX_KNOWN_CLIENTS", 2)

    async def work() -> None:
        async with running("127.0.0.1") as server:
            for number in range(1, 8):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.bind((f"127.0.0.{number}", 0))
                    client.sendto(question(), server.addresses[0])
                    client.settimeout(0)
                    async with asyncio.timeout(3):
                        while True:
                            await asyncio.sleep(0)
                            try:
                                assert address_in(client.recv(512)) == "10.112.0.7"
                                break
                            except BlockingIOError:
                                continue

    asyncio.run(work())
