"""Source NAT on real IPVS: each rule is needed for what it is there for, and costs no client its address elsewhere.

    client 10.1.0.2 -- 10.1.0.1 worker 10.2.0.254 -- bridge -- a 10.2.0.1, b 10.2.0.2: default route by the worker
                                |                          `-- shut 10.2.0.3: no default route
                                `- 10.3.0.254 -- abroad 10.3.0.3: no route by the worker

One lab for all: every test asks the same service, whose one endpoint it chooses. Endpoints answer with the address they
see their client at.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from typing import cast

import pytest

from mesh.host.source_nat import SourceNat
from mesh.model import Address, Claims, Transport
from tests.ipvs.lab import PORT, Lab
from tests.netns import Namespace, ip, private_network, run

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]

VIP, PUBLISHED = "10.112.0.7", 30080
CLIENT, A, B, SHUT, ABROAD, HERE = "10.1.0.2", "10.2.0.1", "10.2.0.2", "10.2.0.3", "10.3.0.3", "10.1.0.1"
TO_VIP, TO_PUBLISHED = (VIP, 80), (HERE, PUBLISHED)
POOL = ip_network("10.112.0.0/16")
CLAIMS = Claims(ports={(Transport.TCP, PUBLISHED): ("web.shop.test", 80), (Transport.UDP, PUBLISHED): ("x.test", 80)})
ADDRESSES = frozenset([HERE, "10.2.0.254", "10.3.0.254"])
LOST = 4.0
"""Seconds without an answer that count as never: a second try of TCP comes after one."""
PATIENCE = 20.0


class World(Lab):
    """The lab, an endpoint that is shut in and one abroad; whoever is asked answers with the client's address."""

    def __init__(self) -> None:
        super().__init__()
        self._there = {A: self._backends["a"], B: self._backends["b"], SHUT: Namespace(), ABROAD: Namespace()}
        self._there[CLIENT] = self._client
        ip(
            f"link add es type veth peer name e0 netns {self._there[SHUT].path}",
            "link set es master br0",
            "link set es up",
            f"link add u1 type veth peer name e0 netns {self._there[ABROAD].path}",
            "address add 10.3.0.254/24 dev u1",
            "link set u1 up",
            "link add mesh0 type dummy",
            f"address add {VIP}/32 dev mesh0",
            "link set mesh0 up",
        )
        for address in (SHUT, ABROAD):
            self._there[address].ip(f"address add {address}/24 dev e0", "link set e0 up", "link set lo up")

    def close(self) -> None:
        super().close()
        self._there[SHUT].close()
        self._there[ABROAD].close()

    def socket_at(self, address: Address, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket on one of the hosts; the worker's own too."""
        if address not in self._there:
            return socket.socket(socket.AF_INET, kind)
        with self._there[address].entered():
            return socket.socket(socket.AF_INET, kind)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with private_network():
        world = World()
        yield world
        world.close()


@pytest.fixture
async def servers(world: World) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    started: list[asyncio.Server | asyncio.DatagramTransport] = []
    for address in (A, B, SHUT, ABROAD, HERE):
        stream, datagrams = world.socket_at(address), world.socket_at(address, socket.SOCK_DGRAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (stream, datagrams):
            sock.setblocking(False)
            sock.bind((address, PORT))
        started.append(await asyncio.start_server(tell, sock=stream))
        started.append((await loop.create_datagram_endpoint(Teller, sock=datagrams))[0])
    yield
    for one in started:
        one.close()


@pytest.fixture
async def nat(servers: None) -> AsyncIterator[SourceNat]:
    """Source NAT as the daemon sets it up."""
    nat = SourceNat(POOL)
    await nat.mend(ADDRESSES, CLAIMS)
    yield nat
    await nat.remove()


async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(writer.get_extra_info("peername")[0].encode())
    writer.close()


class Teller(asyncio.DatagramProtocol):
    """Answers every datagram with the address it came from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(addr[0].encode(), addr)


def lead_to(endpoint: Address) -> None:
    """VIP and published port have this one endpoint."""
    table = [f"-{kind} {host}:{port}" for kind in "tu" for host, port in (TO_VIP, TO_PUBLISHED)]
    lines = [line for key in table for line in (f"-A {key} -s rr", f"-a {key} -r {endpoint}:{PORT} -m")]
    run("ipvsadm", "-C")
    run("ipvsadm", "-R", given="\n".join(lines) + "\n")


async def ask(
    world: World,
    source: Address,
    where: tuple[Address, int],
    kind: socket.SocketKind = socket.SOCK_STREAM,
    patience: float = PATIENCE,
) -> Address:
    """At which address the endpoint sees a client on `source`. Raises TimeoutError or OSError."""
    loop = asyncio.get_running_loop()
    with world.socket_at(source, kind) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(patience):
            await loop.sock_connect(sock, where)
            if kind is socket.SOCK_DGRAM:
                await loop.sock_sendall(sock, b"?")
            return (await loop.sock_recv(sock, 100)).decode()


async def lost(world: World, source: Address, where: tuple[Address, int]) -> bool:
    """Whether a client on `source` gets no answer."""
    try:
        await ask(world, source, where, patience=LOST)
    except (TimeoutError, OSError):
        return True
    return False


def delete_rule(comment: str) -> None:
    """Exactly the rule whose comment begins so."""
    lines = run("nft", "-a", "list", "chain", "ip", "vipmesh", "source").splitlines()
    (handle,) = [line.rpartition("handle ")[2] for line in lines if f'comment "{comment}' in line]
    run("nft", "delete", "rule", "ip", "vipmesh", "source", "handle", handle)


@pytest.mark.parametrize("where", [TO_VIP, TO_PUBLISHED], ids=["vip", "published"])
@pytest.mark.parametrize(
    ("rule", "source", "endpoint", "seen"),
    [
        pytest.param("elsewhere", CLIENT, ABROAD, "10.3.0.254", id="elsewhere"),
        pytest.param("hairpin", A, A, "10.2.0.254", id="hairpin-itself"),
        pytest.param("hairpin", A, B, "10.2.0.254", id="hairpin-neighbour"),
    ],
)
async def test_without_its_rule_the_reply_is_lost(
    world: World, nat: SourceNat, rule: str, source: Address, endpoint: Address, where: tuple[Address, int], seen: str
) -> None:
    lead_to(endpoint)
    assert await ask(world, source, where) == seen
    assert await ask(world, source, where, socket.SOCK_DGRAM) == seen

    delete_rule(rule)
    assert await lost(world, source, where)

    assert await nat.mend(ADDRESSES, CLAIMS) == ["nftables chain ip vipmesh source is as it must be, was changed"]
    assert await ask(world, source, where) == seen


async def test_the_host_itself(world: World, nat: SourceNat) -> None:
    lead_to(SHUT)
    assert await ask(world, HERE, TO_VIP) == "10.2.0.254"

    delete_rule("host")
    assert await lost(world, HERE, TO_VIP)

    await nat.mend(ADDRESSES, CLAIMS)
    assert await ask(world, HERE, TO_VIP) == "10.2.0.254"
    for endpoint, seen in ((A, "10.2.0.254"), (ABROAD, "10.3.0.254"), (HERE, None)):
        lead_to(endpoint)
        for where in (TO_VIP, TO_PUBLISHED):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    print("SEEN", endpoint, where, kind, await ask(world, HERE, where, kind, 6))
                except (TimeoutError, OSError) as e:
                    print("LOST", endpoint, where, kind, e)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize("where", [TO_VIP, TO_PUBLISHED], ids=["vip", "published"])
async def test_the_clients_address_is_kept_where_the_reply_comes_back(
    world: World, nat: SourceNat, where: tuple[Address, int], kind: socket.SocketKind
) -> None:
    for endpoint in (A, HERE):
        lead_to(endpoint)
        assert await ask(world, CLIENT, where, kind) == CLIENT
