"""Source NAT under every data plane of the kernel: all paths of docs/source-nat.md, and the firewall beside it."""

import asyncio
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.dataplane import DataPlane
from mesh.dataplane.diff import diff_tables
from mesh.host.hairpin import HairpinPorts
from mesh.host.masquerade import Masquerade
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from mesh.model.claims import Claims
from mesh.model.service import Address, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.builders import POOL
from tests.netns import run_command
from tests.system.ipvs.endpoints import (
    A6,
    ABROAD,
    ABROAD6,
    ADDRESSES,
    CLIENT,
    CLIENT6,
    HERE,
    LOST,
    PUBLISHED,
    SHUT,
    TO_PUBLISHED,
    TO_PUBLISHED6,
    TO_VIP,
    TO_VIP6,
    A,
    Asking,
    B,
    Places,
    Where,
    ask,
    filter_bridged,
    lost,
)
from tests.system.ipvs.lab import PATIENCE, PORT

POOL_6 = ip_network("fd00:112::/64")
TRANSPORTS = (Transport.TCP, Transport.UDP)
CLAIMS = Claims(ports={(transport, PUBLISHED): ("web.shop.test", 80) for transport in TRANSPORTS})
CHANGED = ["nftables table ip vipmesh was changed"]
DOCS = Path(__file__).parent.parent.parent / "docs" / "source-nat.md"

VIP_AND_PUBLISHED = pytest.mark.parametrize("where", [TO_VIP, TO_PUBLISHED], ids=["vip", "published"])


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where, and what the endpoint sees by the rule that it needs."""

    rule: str
    client: Address
    endpoint: Address
    seen: Address


class Worker:
    """A data plane, source NAT and hairpin flags, as a daemon holds them, with one service of chosen endpoints."""

    def __init__(self, plane: DataPlane, nat: Masquerade) -> None:
        self._plane = plane
        self._nat = nat

    async def lead_to(self, *endpoints: Address, hairpin: bool = True) -> None:
        """VIP and published port, for TCP and UDP. Without `hairpin`, flags are cleared instead of set."""
        places = (TO_VIP6, TO_PUBLISHED6) if ":" in endpoints[0] else (TO_VIP, TO_PUBLISHED)
        keys = [VirtualKey(*where, transport) for where in places for transport in TRANSPORTS]
        server = VirtualServer(real_servers={RealKey(endpoint, PORT): RealServer(1) for endpoint in endpoints})
        table = Table(dict.fromkeys(keys, server), frozenset({places[0][0]}))
        # all of it goes first: what is asked for next shall not meet connections to the last endpoint
        for wanted in (Table({}, table.vips), table):
            assert not await self._plane.apply(diff_tables(await self._plane.read(), wanted))
        await self.repair()
        await set_hairpins(6 if ":" in endpoints[0] else 4, endpoints if hairpin else ())

    async def repair(self) -> list[str]:
        return await self._nat.repair(ADDRESSES, CLAIMS)


def delete_rule(chain: str, text: str, table: str = "ip vipmesh") -> None:
    """Exactly the one rule that has this in it."""
    lines = run_command("nft", "-a", "list", "chain", *table.split(), chain).splitlines()
    (handle,) = [line.rpartition("handle ")[2] for line in lines if text in line]
    run_command("nft", "delete", "rule", *table.split(), chain, "handle", handle)


async def set_hairpins(version: int, endpoints: tuple[Address, ...]) -> None:
    """Set the flags of these endpoints as soon as the kernel has resolved them."""
    ports = HairpinPorts(version)
    async with asyncio.timeout(PATIENCE):
        while not (await ports.repair(frozenset(endpoints))).is_complete:
            await asyncio.sleep(0.05)  # the kernel does not announce when it has resolved an address


class SourceNatContract(ABC):
    """Needs a fixture `places`, in whose worker's namespace the test is."""

    @abstractmethod
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        """The data plane in this namespace; published ports are all its own."""

    @asynccontextmanager
    async def working(self, pool: Network = POOL, answering: tuple[Network, ...] = ()) -> AsyncIterator[Worker]:
        interface = MeshInterface()
        plane, nat = self.plane(pool, interface), Masquerade(pool, answering)
        yield Worker(plane, nat)
        await plane.apply(diff_tables(await plane.read(), Table()))
        await nat.remove()
        await HairpinPorts(pool.version).remove()
        await plane.close()
        await interface.close()

    @pytest.fixture
    async def lab(self, places: Places) -> AsyncIterator[Places]:
        async with places.telling():
            yield places

    @pytest.fixture
    async def worker(self, lab: Places) -> AsyncIterator[Worker]:
        async with self.working() as worker:
            yield worker

    @pytest.fixture
    def unfiltered(self, lab: Places) -> Iterator[None]:
        """Packets on bridges do not pass the firewall, as without Docker: else it translates replies there, too."""
        filter_bridged("0")
        yield
        filter_bridged("1")

    @VIP_AND_PUBLISHED
    @pytest.mark.parametrize(
        "way",
        [
            pytest.param(Way("endpoints elsewhere", CLIENT, ABROAD, "10.3.0.254"), id="elsewhere"),
            pytest.param(Way("endpoints elsewhere", ABROAD, ABROAD, "10.3.0.254"), id="elsewhere-in-one-network"),
            pytest.param(Way("hairpin", A, A, "10.2.0.254"), id="hairpin-itself"),
            pytest.param(Way("hairpin", A, B, "10.2.0.254"), id="hairpin-neighbour"),
            pytest.param(Way("the host itself", HERE, SHUT, "10.2.0.254"), id="host"),
        ],
    )
    async def test_without_its_rule_the_reply_is_lost(
        self, lab: Places, worker: Worker, unfiltered: None, way: Way, where: Where
    ) -> None:
        await worker.lead_to(way.endpoint)
        assert await ask(lab, way.client, where) == way.seen
        assert await ask(lab, way.client, where, socket.SOCK_DGRAM) == way.seen

        delete_rule("translated", f'comment "{way.rule}"')
        assert await lost(lab, way.client, where)

        assert await worker.repair() == CHANGED
        assert await ask(lab, way.client, where) == way.seen

    @VIP_AND_PUBLISHED
    @pytest.mark.parametrize(
        ("client", "endpoint"),
        [
            pytest.param(CLIENT, A, id="a container"),
            pytest.param(CLIENT, HERE, id="the worker itself"),
            pytest.param(A, HERE, id="the worker itself for a container"),
            pytest.param(ABROAD, A, id="a container for another network"),
        ],
    )
    async def test_a_client_keeps_its_address_where_the_reply_comes_back(
        self, lab: Places, worker: Worker, client: Address, endpoint: Address, where: Where
    ) -> None:
        await worker.lead_to(endpoint)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert await ask(lab, client, where, kind) == client

    @VIP_AND_PUBLISHED
    async def test_the_host_reaches_endpoints_anywhere(self, lab: Places, worker: Worker, where: Where) -> None:
        for endpoint, seen in ((A, "10.2.0.254"), (ABROAD, "10.3.0.254"), (HERE, where[0])):
            await worker.lead_to(endpoint)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                assert await ask(lab, HERE, where, kind) == seen

    async def test_an_endpoint_elsewhere_that_the_settings_name_sees_the_client(self, lab: Places) -> None:
        async with self.working(answering=(ip_network("10.3.0.0/24"),)) as worker:
            await worker.lead_to(ABROAD)
            lab.route_back("add")
            assert await ask(lab, CLIENT, TO_VIP) == CLIENT
            lab.route_back("del")

    @pytest.mark.parametrize("where", [TO_VIP6, TO_PUBLISHED6], ids=["vip", "published"])
    async def test_ipv6(self, lab: Places, where: Where) -> None:
        async with self.working(POOL_6) as worker:
            await worker.lead_to(A6)
            assert await ask(lab, CLIENT6, where) == CLIENT6
            assert await ask(lab, A6, where) == "fd00:2::254"
            await worker.lead_to(ABROAD6)
            assert await ask(lab, CLIENT6, where, socket.SOCK_DGRAM) == "fd00:3::254"
            assert await ask(lab, CLIENT6, where) == "fd00:3::254"
            delete_rule("translated", 'comment "endpoints elsewhere"', "ip6 vipmesh")
            assert await lost(lab, CLIENT6, where)

    async def test_connections_outlive_a_flushed_table(self, lab: Places, worker: Worker) -> None:
        for endpoint, seen in ((A, CLIENT), (ABROAD, "10.3.0.254")):
            await worker.lead_to(endpoint)
            established = Asking(lab, CLIENT)
            await established.connect(TO_VIP)
            assert await established.seen_at() == seen
            run_command("nft", "delete", "table", "ip", "vipmesh")
            assert await worker.repair() == ["nftables table ip vipmesh made"]
            assert await established.seen_at() == seen
            established.close()

    @pytest.mark.parametrize("endpoints", [(A,), (A, B)], ids=["one replica", "two replicas"])
    async def test_a_container_reaches_its_own_service_where_bridged_packets_are_filtered(
        self, lab: Places, worker: Worker, endpoints: tuple[Address, ...]
    ) -> None:
        await worker.lead_to(*endpoints, hairpin=False)
        assert await lost(lab, A, TO_VIP) or len(endpoints) > 1, "the flag is not needed"
        await set_hairpins(4, endpoints)
        for where in (TO_VIP, TO_PUBLISHED):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                # each replica is chosen at least once, whatever the scheduler
                for _ in range(2 * len(endpoints)):
                    assert await ask(lab, A, where, kind, LOST) == "10.2.0.254"
        assert await HairpinPorts(4).remove() == [
            f"hairpin off at bridge port e{'ab'[i]}" for i in range(len(endpoints))
        ]
        await worker.lead_to(A, hairpin=False)
        assert await lost(lab, A, TO_VIP)

    async def test_an_ipv6_container_reaches_its_own_service_where_bridged_packets_are_filtered(
        self, lab: Places
    ) -> None:
        async with self.working(POOL_6) as worker:
            await worker.lead_to(A6, hairpin=False)
            assert await lost(lab, A6, TO_VIP6)
            await set_hairpins(6, (A6,))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                assert await ask(lab, A6, TO_VIP6, kind, LOST) == "fd00:2::254"

    async def lets_through(self, lab: Places, worker: Worker, rule: tuple[str, str], needed_for: Where) -> None:
        """The firewall of the docs does, and not without this rule, which is given by its chain and a part of it."""
        (firewall,) = re.findall(r"```nft\n(table inet filter \{.*?)```", DOCS.read_text(), re.DOTALL)
        run_command("nft", "-f", "-", given=firewall)
        try:
            await worker.lead_to(A)
            assert await ask(lab, CLIENT, TO_VIP) == CLIENT
            assert await ask(lab, CLIENT, TO_PUBLISHED) == CLIENT
            await worker.lead_to(ABROAD)
            assert await ask(lab, CLIENT, TO_VIP, socket.SOCK_DGRAM) == "10.3.0.254"
            assert await ask(lab, CLIENT, TO_PUBLISHED) == "10.3.0.254"
            delete_rule(*rule, "inet filter")
            assert await lost(lab, CLIENT, needed_for)
        finally:
            run_command("nft", "delete", "table", "inet", "filter")
