"""The opening of a firewall under every data plane of the kernel, beside the rules of an engine with three networks:

client 10.1.0.2 -- 10.1.0.1 worker 10.2.0.254 -- br0 -- a 10.2.0.1, b 10.2.0.2
                            | 10.4.0.254 -- br1 -- other 10.4.0.1
                            ` 10.5.0.254 -- br2 -- secret 10.5.0.1: an `--internal` network
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_network

import pytest
from typing_extensions import override

from mesh.config.settings import FirewallMode
from mesh.dataplane import DataPlane
from mesh.dataplane.diff import diff_tables
from mesh.host.firewall.advice import OpenedAddresses
from mesh.host.firewall.plan import FirewallDemand, FirewallSettings
from mesh.host.firewall.programs import SystemPrograms
from mesh.host.firewall.upkeep import FirewallReport, FirewallUpkeep, remove_opening
from mesh.host.masquerade import Masquerade
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import Address, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.builders import POOL
from tests.netns import Namespace, run_command, run_ip
from tests.system.ipvs.endpoints import (
    A6,
    CLIENT,
    CLIENT6,
    HERE,
    HERE6,
    PUBLISHED,
    TO_PUBLISHED,
    TO_PUBLISHED6,
    TO_VIP,
    TO_VIP6,
    A,
    Places,
    Where,
    ask,
    filter_bridged,
    lost,
)
from tests.system.ipvs.lab import PORT

OTHER, SECRET = "10.4.0.1", "10.5.0.1"
GATEWAYS = {OTHER: "10.4.0.254", SECRET: "10.5.0.254"}
ADDRESSES = frozenset([HERE, "10.2.0.254", HERE6, "fd00:2::254", *GATEWAYS.values()])
POOL_6 = ip_network("fd00:112::/64")
TRANSPORTS = (Transport.TCP, Transport.UDP)
PORTS = {(transport, PUBLISHED): ("web.shop.test", 80) for transport in TRANSPORTS}
DEMAND = FirewallDemand(ADDRESSES, frozenset(PORTS), needed=True)
RULE = "-A DOCKER-USER -m mark --mark 0x1000/0x1000 -m comment --comment vipmesh -j ACCEPT"

ENGINE_RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -i br2 -o br2 -j ACCEPT
-A FORWARD -o br1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br1 -j DOCKER
-A FORWARD -i br1 ! -o br1 -j ACCEPT
-A FORWARD -i br1 -o br1 -j ACCEPT
-A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o br0 -j DOCKER
-A FORWARD -i br0 ! -o br0 -j ACCEPT
-A FORWARD -i br0 -o br0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 ! -s 10.5.0.0/24 -o br2 -j DROP
-A DOCKER-ISOLATION-STAGE-1 ! -d 10.5.0.0/24 -i br2 -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i br1 ! -o br1 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o br1 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -o br0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.4.0.0/24 ! -o br1 -j MASQUERADE
-A POSTROUTING -s 10.2.0.0/24 ! -o br0 -j MASQUERADE
COMMIT
"""
"""The rules of Docker 20.10 for three networks, as iptables-save prints them on a host with that engine."""


def engine_table(mark: str = "") -> str:
    """The table of Docker 29 with its nftables backend for the same networks; `mark` as in `bridge-accept-fwmark`."""
    accept = f"meta mark and {mark.partition('/')[2]} == {mark.partition('/')[0]} counter accept" if mark else ""
    chains = "".join(
        f"""
    chain filter-forward-in__{bridge} {{
        ct state established,related counter accept
        {accept if not internal else f'iifname != "{bridge}" counter drop comment "INTERNAL NETWORK INGRESS"'}
        iifname "{bridge}" counter accept comment "ICC"
        counter drop comment "UNPUBLISHED PORT DROP"
    }}
    chain filter-forward-out__{bridge} {{
        ct state established,related counter accept
        {'counter accept comment "OUTGOING"' if not internal else f'oifname != "{bridge}" counter drop'}
    }}"""
        for bridge, internal in (("br0", False), ("br1", False), ("br2", True))
    )
    jumps = {way: ", ".join(f'"br{n}" : jump filter-forward-{way}__br{n}' for n in range(3)) for way in ("in", "out")}
    return f"""table ip docker-bridges {{{chains}
    map filter-forward-in-jumps {{ type ifname : verdict; elements = {{ {jumps["in"]} }} }}
    map filter-forward-out-jumps {{ type ifname : verdict; elements = {{ {jumps["out"]} }} }}
    chain filter-FORWARD {{
        type filter hook forward priority filter; policy accept;
        oifname vmap @filter-forward-in-jumps
        iifname vmap @filter-forward-out-jumps
    }}
    chain nat-POSTROUTING {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname != "br1" ip saddr 10.4.0.0/24 counter masquerade
        oifname != "br0" ip saddr 10.2.0.0/24 counter masquerade
    }}
}}
"""


ENGINE_RULES_6 = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -i br0 -j ACCEPT
COMMIT
"""
"""Some of the rules of Docker 28 for a network with IPv6."""


class Networks(Places):
    """Made in the worker's namespace, which the caller has entered."""

    def __init__(self, *, ipvs: bool) -> None:
        super().__init__(ipvs=ipvs)
        filter_bridged("1")
        self._others = {OTHER: Namespace(), SECRET: Namespace()}
        self._places |= self._others
        for number, (address, there) in enumerate(self._others.items(), 1):
            run_ip(
                f"link add br{number} type bridge",
                f"address add {GATEWAYS[address]}/24 dev br{number}",
                f"link set br{number} up",
                f"link add v{number} type veth peer name e0 netns {there.path}",
                f"link set v{number} master br{number}",
                f"link set v{number} up",
            )
            there.ip(f"address add {address}/24 dev e0", "link set e0 up", "link set lo up")
        # A container of an internal network has no default route.
        self._others[OTHER].ip(f"route add default via {GATEWAYS[OTHER]}")

    @override
    def close(self) -> None:
        super().close()
        for there in self._others.values():
            there.close()


class Worker:
    """A data plane, source NAT and the opening of the firewall, with one service at an endpoint of the test."""

    def __init__(self, plane: DataPlane, nat: Masquerade, firewall: FirewallUpkeep) -> None:
        self._plane = plane
        self._nat = nat
        self.firewall = firewall

    async def lead_to(self, endpoint: Address) -> None:
        """Let VIP and published port lead to an endpoint, for TCP and UDP; ports are published on every address."""
        vip = TO_VIP6 if ":" in endpoint else TO_VIP
        own = [address for address in ADDRESSES if (":" in address) == (":" in endpoint)]
        keys = [VirtualKey(*where, t) for where in (vip, *((a, PUBLISHED) for a in own)) for t in TRANSPORTS]
        server = VirtualServer(real_servers={RealKey(endpoint, PORT): RealServer(1)})
        for wanted in (Table({}, frozenset([vip[0]])), Table(dict.fromkeys(keys, server), frozenset([vip[0]]))):
            assert not await self._plane.apply(diff_tables(await self._plane.read(), wanted))
        await self._nat.repair(ADDRESSES, Claims(ports=PORTS))

    async def open(self) -> FirewallReport:
        report = await self.firewall.repair(DEMAND)
        assert report.problems == ()
        return report


def user_chain() -> list[str]:
    return [line for line in run_command("iptables-nft", "-S", "DOCKER-USER").splitlines() if line.startswith("-A")]


@contextmanager
def engine_rules(text: str) -> Iterator[None]:
    run_command("iptables-nft-restore", given=text)
    yield
    for table in ("filter", "nat"):
        run_command("nft", "delete", "table", "ip", table)


class FirewallContract(ABC):
    """Needs a fixture `networks`, in whose worker's namespace the test is."""

    @abstractmethod
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        """The data plane in this namespace; published ports are all its own."""

    takes_input = False

    @asynccontextmanager
    async def working(self, pool: Network = POOL) -> AsyncIterator[Worker]:
        interface = MeshInterface()
        plane, nat = self.plane(pool, interface), Masquerade(pool)
        settings = FirewallSettings(
            OpenedAddresses(pool, range(30000, 32768)), FirewallMode.MANAGE, True, self.takes_input
        )
        yield Worker(plane, nat, FirewallUpkeep(settings, SystemPrograms()))
        await plane.apply(diff_tables(await plane.read(), Table()))
        await nat.remove()
        await plane.close()
        await interface.close()

    @pytest.fixture
    async def lab(self, networks: Networks) -> AsyncIterator[Networks]:
        with engine_rules(ENGINE_RULES):
            async with networks.telling():
                yield networks

    @pytest.fixture
    async def worker(self, lab: Networks) -> AsyncIterator[Worker]:
        async with self.working() as worker:
            yield worker
            await remove_opening(SystemPrograms())

    @pytest.mark.parametrize("where", [TO_VIP, TO_PUBLISHED], ids=["vip", "published"])
    @pytest.mark.parametrize("client", [OTHER, CLIENT], ids=["another network", "another host"])
    async def test_the_opening_lets_translated_connections_through(
        self, lab: Networks, worker: Worker, client: Address, where: Where
    ) -> None:
        await worker.lead_to(A)
        if client == OTHER or not self.takes_input:
            assert await lost(lab, client, where), "without the opening"
        report = await worker.open()
        assert report.repaired == ()
        assert user_chain() == [RULE, "-A DOCKER-USER -j RETURN"]
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            await ask(lab, client, where, kind)

    async def test_internal_networks_stay_internal(self, lab: Networks, worker: Worker) -> None:
        await worker.lead_to(A)
        await worker.open()
        assert await lost(lab, SECRET, (GATEWAYS[SECRET], PUBLISHED)), "its gateway is the only address that it reaches"
        await worker.lead_to(SECRET)
        for client in (OTHER, CLIENT):
            assert await lost(lab, client, TO_VIP)

    async def test_what_stands_before_it_decides(self, lab: Networks, worker: Worker) -> None:
        await worker.lead_to(A)
        run_command("iptables-nft", "-I", "DOCKER-USER", "-s", CLIENT, "-j", "DROP")
        run_command("iptables-nft", "-I", "DOCKER-USER", "-d", CLIENT, "-j", "DROP")
        await worker.open()
        assert await lost(lab, CLIENT, TO_VIP)
        await ask(lab, OTHER, TO_VIP)

    async def test_an_engine_of_nftables_is_opened_by_the_mark_that_it_accepts(self, networks: Networks) -> None:
        async with networks.telling(), self.working() as worker:
            await worker.lead_to(A)
            try:
                run_command("nft", "-f", "-", given=engine_table())
                codes = [problem.code for problem in (await worker.firewall.repair(DEMAND)).problems]
                assert codes == ([] if self.takes_input else [Code.FIREWALL_ENGINE_SETTING])
                if not self.takes_input:
                    assert await lost(networks, OTHER, TO_VIP)
                run_command("nft", "delete", "table", "ip", "docker-bridges")
                run_command("nft", "-f", "-", given=engine_table("2/3"))
                await worker.open()
                for client in (OTHER, CLIENT):
                    await ask(networks, client, TO_VIP)
                    await ask(networks, client, TO_PUBLISHED, socket.SOCK_DGRAM)
                assert await lost(networks, SECRET, (GATEWAYS[SECRET], PUBLISHED))
                await worker.lead_to(SECRET)
                assert await lost(networks, OTHER, TO_VIP)
            finally:
                run_command("nft", "delete", "table", "ip", "docker-bridges")
                await remove_opening(SystemPrograms())

    @pytest.mark.parametrize("where", [TO_VIP6, TO_PUBLISHED6], ids=["vip", "published"])
    async def test_ipv6(self, networks: Networks, where: Where) -> None:
        run_command("ip6tables-nft-restore", given=ENGINE_RULES_6)
        try:
            async with networks.telling(), self.working(POOL_6) as worker:
                await worker.lead_to(A6)
                if not self.takes_input:
                    assert await lost(networks, CLIENT6, where)
                await worker.open()
                assert await ask(networks, CLIENT6, where) == CLIENT6
                assert "--comment vipmesh" in run_command("ip6tables-nft", "-S", "DOCKER-USER")
                removed, failed = await remove_opening(SystemPrograms())
                assert (len(removed), failed) == (2, [])
        finally:
            run_command("nft", "delete", "table", "ip6", "filter")
