"""Connections that began before the state that the worker has now, under every data plane of the kernel.

A packet to a VIP without a service vanishes: the worker has a default route to a router that drops everything, as a
host has whose router does not know the pool.
"""

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from mesh.control.source_nat import SourceNatUpkeep
from mesh.dataplane import DataPlane
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.dataplane.conntrack.stale import OwnKeys
from mesh.dataplane.diff import diff_tables
from mesh.host.masquerade import Masquerade
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Address, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.builders import POOL
from tests.dataplane.masquerade_contract import CLAIMS, POOL_6, Way, delete_rule
from tests.netns import run_command, run_ip
from tests.system.ipvs.endpoints import (
    A6,
    ABROAD,
    ABROAD6,
    ADDRESSES,
    CLIENT,
    CLIENT6,
    HERE,
    TO_PUBLISHED,
    TO_VIP,
    TO_VIP6,
    A,
    B,
    Places,
    Where,
)
from tests.system.ipvs.lab import PATIENCE, PORT, Servers

IN_TIME = 5.0
"""Seconds in which an earlier connection comes about; twice as much on an emulated processor."""
OTHER_VIP = ("10.112.0.8", 80)
DATAGRAM, STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM


def table_of(*routes: tuple[Where, tuple[Address, ...]]) -> Table:
    """A table in which each place leads to its endpoints, over TCP and UDP."""
    servers = {
        VirtualKey(*where, transport): VirtualServer(
            real_servers={RealKey(endpoint, PORT): RealServer(1) for endpoint in endpoints}
        )
        for where, endpoints in routes
        for transport in (Transport.TCP, Transport.UDP)
    }
    return Table(servers, frozenset({key.address for key in servers if key.address not in ADDRESSES}))


class EarlierWorker:
    """A data plane and source NAT, as a daemon holds them."""

    def __init__(self, plane: DataPlane, pool: Network) -> None:
        self.plane = plane
        self.tracked = TrackedConnections(pool.version)
        self.masquerade = Masquerade(pool)
        ours = OwnKeys(pool, lambda key: key.address in ADDRESSES)
        self._upkeep = SourceNatUpkeep(self.masquerade, plane, self.tracked, ours)

    async def want(self, table: Table) -> None:
        """One pass of the control loop."""
        await self._upkeep.repair(ADDRESSES, CLAIMS)
        assert not await self.plane.apply(diff_tables(await self.plane.read(), table))


class Flow:
    """Datagrams of one client from one port, or its attempt to open a connection."""

    def __init__(self, lab: Places, client: Address, where: Where, kind: socket.SocketKind) -> None:
        self._socket = lab.socket_at(client, kind)
        self._where = where
        self._kind = kind

    async def begin(self) -> None:
        """Send the first packets, for long enough that each of them has gone wherever it goes."""
        if self._kind is STREAM:
            assert self._socket.connect_ex(self._where) == errno.EINPROGRESS
        for _ in range(3):
            if self._kind is DATAGRAM:
                self._socket.sendto(b"?\n", self._where)
            await asyncio.sleep(0.1)

    async def answer(self, patience: float) -> str:
        """What is answered to the same port. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            if self._kind is STREAM:
                await loop.sock_sendall(self._socket, b"?\n")  # once it is connected
                return (await loop.sock_recv(self._socket, 100)).decode()
            self._discard_earlier_answers()
            while True:
                self._socket.sendto(b"?\n", self._where)
                try:
                    async with asyncio.timeout(0.2):
                        return (await loop.sock_recvfrom(self._socket, 100))[0].decode()
                except TimeoutError:
                    continue

    def _discard_earlier_answers(self) -> None:
        with suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                self._socket.recv(100)

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def begun(lab: Places, client: Address, where: Where, kind: socket.SocketKind) -> AsyncIterator[Flow]:
    flow = Flow(lab, client, where, kind)
    try:
        await flow.begin()
        yield flow
    finally:
        flow.close()


class EarlierFlowsContract(ABC):
    """Needs a fixture `places`, in whose worker's namespace the test is."""

    in_time = IN_TIME
    attempts = 1
    """How often a flow may begin. A packet that TCP repeats between the moment in which its virtual server appears and
    the one in which its tracked connection is deleted ends in a reset: the client knows at once, and begins again.
    """

    @abstractmethod
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        """The data plane in this namespace; published ports are all its own."""

    @asynccontextmanager
    async def working(self, pool: Network = POOL) -> AsyncIterator[EarlierWorker]:
        interface = MeshInterface()
        plane = self.plane(pool, interface)
        worker = EarlierWorker(plane, pool)
        await worker.want(Table())
        yield worker
        await plane.apply(diff_tables(await plane.read(), Table()))
        await worker.masquerade.remove()
        await worker.tracked.close()
        await plane.close()
        await interface.close()

    @pytest.fixture
    def nowhere(self, places: Places) -> Iterator[None]:
        """A default route to a router that drops everything."""
        routes = ("default via 10.3.0.9 dev u1", "default via fd00:3::9 dev u1")
        run_ip(
            "neighbour replace 10.3.0.9 lladdr 02:00:00:00:00:09 dev u1 nud permanent",
            "neighbour replace fd00:3::9 lladdr 02:00:00:00:00:09 dev u1 nud permanent",
            *(f"route replace {route}" for route in routes),
        )
        yield
        run_ip(*(f"route delete {route}" for route in routes))

    @pytest.fixture
    async def lab(self, places: Places, nowhere: None) -> AsyncIterator[Places]:
        async with places.telling():
            yield places

    @pytest.fixture
    async def worker(self, lab: Places) -> AsyncIterator[EarlierWorker]:
        async with self.working() as worker:
            yield worker

    @pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])
    @pytest.mark.parametrize(
        "way",
        [
            pytest.param(Way("", CLIENT, A, CLIENT), id="a container"),
            pytest.param(Way("", CLIENT, ABROAD, "10.3.0.254"), id="elsewhere"),
            pytest.param(Way("", B, A, "10.2.0.254"), id="a neighbour"),
            pytest.param(Way("", HERE, ABROAD, "10.3.0.254"), id="from the host"),
        ],
    )
    async def test_a_flow_that_began_before_its_service(
        self, lab: Places, worker: EarlierWorker, way: Way, kind: socket.SocketKind
    ) -> None:
        for left in reversed(range(self.attempts)):
            await worker.want(Table())
            try:
                async with begun(lab, way.client, TO_VIP, kind) as flow:
                    await worker.want(table_of((TO_VIP, (way.endpoint,))))
                    assert await flow.answer(self.in_time) == way.seen
                    return
            except ConnectionResetError:
                if not left:
                    raise

    async def test_a_flow_to_a_published_port_that_began_before_its_service(
        self, lab: Places, worker: EarlierWorker
    ) -> None:
        for endpoint, seen in ((A, CLIENT), (ABROAD, "10.3.0.254")):
            await worker.want(Table())
            async with begun(lab, CLIENT, TO_PUBLISHED, DATAGRAM) as flow:
                await worker.want(table_of((TO_PUBLISHED, (endpoint,))))
                assert await flow.answer(self.in_time) == seen

    @pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])
    async def test_an_ipv6_flow_that_began_before_its_service(self, lab: Places, kind: socket.SocketKind) -> None:
        async with self.working(POOL_6) as worker:
            for endpoint, seen in ((A6, CLIENT6), (ABROAD6, "fd00:3::254")):
                await worker.want(Table())
                async with begun(lab, CLIENT6, TO_VIP6, kind) as flow:
                    await worker.want(table_of((TO_VIP6, (endpoint,))))
                    assert await flow.answer(self.in_time) == seen

    @pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])
    @pytest.mark.parametrize("where", [TO_VIP, TO_PUBLISHED], ids=["vip", "published"])
    @pytest.mark.parametrize("loss", ["the rule", "the table"])
    async def test_a_flow_that_began_while_source_nat_was_broken(
        self, lab: Places, worker: EarlierWorker, where: Where, kind: socket.SocketKind, loss: str
    ) -> None:
        table = table_of((where, (ABROAD,)))
        await worker.want(table)
        if loss == "the rule":
            delete_rule("translated", 'comment "endpoints elsewhere"')
        else:
            run_command("nft", "delete", "table", "ip", "vipmesh")
        async with begun(lab, CLIENT, where, kind) as flow:
            if kind is DATAGRAM:
                with pytest.raises(TimeoutError):
                    await flow.answer(1.0)
            await worker.want(table)
            assert await flow.answer(self.in_time) == "10.3.0.254"

    @pytest.mark.parametrize("replica", [False, True], ids=["the last replica", "one of two"])
    async def test_datagrams_never_reach_the_next_owner_of_an_address(
        self, places: Places, nowhere: None, replica: bool
    ) -> None:
        others = (B,) if replica else ()
        async with self.working() as worker, Servers(places) as servers:
            await servers.start("a")
            await worker.want(table_of((TO_VIP, (A,)), (TO_PUBLISHED, (A,))))
            flows = [Flow(places, CLIENT, where, DATAGRAM) for where in (TO_VIP, TO_PUBLISHED)]
            for flow in flows:
                assert (await flow.answer(PATIENCE)).split()[0] == "a"
            # The endpoint leaves, and the next container gets its address, for another service.
            await worker.want(table_of((TO_VIP, others), (TO_PUBLISHED, others), (OTHER_VIP, (A,))))
            await servers.start("b")
            for flow in flows:
                if replica:
                    assert {(await flow.answer(self.in_time)).split()[0] for _ in range(4)} == {"b"}
                else:
                    with pytest.raises((TimeoutError, ConnectionRefusedError)):
                        await flow.answer(1.0)
            # As if the service had been deleted, and is there again.
            await worker.want(table_of((OTHER_VIP, (A,))))
            for flow in flows:
                with pytest.raises((TimeoutError, ConnectionRefusedError)):
                    await flow.answer(1.0)
            await worker.want(table_of((TO_VIP, (B,)), (TO_PUBLISHED, (B,)), (OTHER_VIP, (A,))))
            for flow in flows:
                assert {(await flow.answer(self.in_time)).split()[0] for _ in range(4)} == {"b"}
                flow.close()
