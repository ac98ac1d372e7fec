"""What the daemon notices of requests that do not arrive, without sending any, with rules as firewalls have them.

The cases are numbered as in docs/arrival.md.
"""

import asyncio
import itertools
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import ClassVar

import pytest

from mesh.control.arrival import ArrivalPair, ArrivalState, ArrivalTracker
from mesh.control.arrival_watcher import ArrivalWatcher, PassiveSources
from mesh.control.passive_arrival import STALE_AFTER
from mesh.control.planner import Plan, make_plan
from mesh.dataplane import DataPlane
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.flow_reader import FlowReader
from mesh.host.masquerade import Masquerade
from mesh.host.overlap import Network
from mesh.host.request_counts import RequestCounter
from mesh.host.vip_interface import MeshInterface
from mesh.model.claims import Claims
from mesh.model.problem import Problem
from mesh.model.service import Address, Health, PortPublication, Route, Service, Transport
from mesh.model.table import Table
from mesh.model.view import ClusterView
from tests.builders import POOL, TCP_PROBE, endpoint
from tests.netns import run_command
from tests.system.ipvs.endpoints import (
    ABROAD,
    ADDRESSES,
    CLIENT,
    PUBLISHED,
    TO_PUBLISHED,
    TO_VIP,
    VIP,
    A,
    Places,
    Where,
    filter_bridged,
)
from tests.system.ipvs.lab import PORT

ENDPOINTS, CLIENTS = ip_network("10.2.0.0/24"), ip_network("10.1.0.0/24")
TRANSPORTS = (Transport.TCP, Transport.UDP)
WEB = Service(
    "shop/web",
    "web.test",
    tuple(Route("web.test", 80, transport, PORT) for transport in TRANSPORTS),
    probe=TCP_PROBE,
    publishes=tuple(PortPublication(PORT, transport, PUBLISHED) for transport in TRANSPORTS),
)
CLAIMS = Claims(
    {"web.test": VIP},
    {"web.test": "shop/web"},
    {(transport, PUBLISHED): ("web.test", PORT) for transport in TRANSPORTS},
)
CONNECTIONS, LOOKS = 4, 4
"""Connections that a client begins before each look; and looks. By the watcher's clock, seconds lie between two."""
SETTLED = 0.3
"""Seconds in which an answer comes, if one comes."""


@dataclass(frozen=True, slots=True)
class FaultyHost:
    """A host on which requests do not arrive."""

    drops: str
    """A rule of a chain of the hook `forward`, in nft(8)'s words; empty for none."""
    client: Address
    where: Where
    to: Address = A
    """Where the endpoint is."""
    network: str = "elsewhere"
    """The network of the client, as it is reported."""
    containers: tuple[Network, ...] = (ENDPOINTS,)
    bridged: bool = False
    """Whether bridged packets are filtered."""


ISOLATED_REQUEST = "ip saddr 10.1.0.0/24 ip daddr 10.2.0.0/24 ct state new drop"
ISOLATED_REPLY = "ip saddr 10.2.0.0/24 ip daddr 10.1.0.0/24 drop"
POLICY = "ct state established accept; drop"
HOSTS = {
    1: FaultyHost(ISOLATED_REQUEST, CLIENT, TO_VIP, network=str(CLIENTS), containers=(ENDPOINTS, CLIENTS)),
    2: FaultyHost(ISOLATED_REPLY, CLIENT, TO_VIP, network=str(CLIENTS), containers=(ENDPOINTS, CLIENTS)),
    3: FaultyHost(POLICY, CLIENT, TO_VIP),
    4: FaultyHost(POLICY, CLIENT, TO_PUBLISHED),
    5: FaultyHost("", A, TO_VIP, network=str(ENDPOINTS), bridged=True),
    6: FaultyHost("", A, TO_VIP, network=str(ENDPOINTS), bridged=True),
}
"""The cases in which packets are lost on the host, by number."""


class PassiveArrivalContract(ABC):
    """Needs a fixture `places`, in whose worker's namespace the test is."""

    cases: ClassVar[tuple[int, ...]]
    """The cases that happen on this data plane and are noticed."""

    @abstractmethod
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        """The data plane in this namespace."""

    @abstractmethod
    def sources(self, containers: tuple[Network, ...]) -> PassiveSources:
        """Where the daemon reads from on this data plane."""

    @asynccontextmanager
    async def serving(self, host: FaultyHost) -> AsyncIterator[tuple[ArrivalWatcher, ArrivalTracker]]:
        """A worker with one service that has one healthy endpoint, and the daemon's check beside it."""
        interface = MeshInterface()
        plane, nat = self.plane(POOL, interface), Masquerade(POOL)
        view = ClusterView((WEB,), (endpoint(owner="shop/web", address=host.to),), CLAIMS)
        planned: Plan = make_plan(view, {view.endpoints[0].key: Health.HEALTHY}, [TO_PUBLISHED[0]])
        assert not await plane.apply(diff_tables(await plane.read(), planned.table))
        await nat.repair(ADDRESSES, CLAIMS)
        problems: list[Problem] = []
        tracker = ArrivalTracker(problems.extend)
        looks = itertools.count(step=2 * STALE_AFTER)
        sources = self.sources(host.containers)
        yield ArrivalWatcher(sources, tracker, lambda: planned, lambda: ADDRESSES, lambda: next(looks)), tracker
        await plane.apply(diff_tables(await plane.read(), Table()))
        await nat.remove()
        await RequestCounter(POOL).remove()
        await plane.close()
        await interface.close()

    @pytest.fixture
    async def lab(self, places: Places) -> AsyncIterator[Places]:
        async with places.telling():
            yield places

    @pytest.mark.timeout(240)
    async def test_requests_that_do_not_arrive_are_noticed(self, lab: Places) -> None:
        found = {}
        for case in self.cases:
            host = HOSTS[case]
            if host.bridged and not filter_bridged("1"):
                pytest.skip("needs the module br_netfilter: modprobe br_netfilter")
            try:
                async with self.serving(host) as (watcher, tracker):
                    pair = ArrivalPair("shop/web", host.network)
                    with firewall(host.drops):
                        await look_while(watcher, lab, host)
                        found[case] = tracker.arrivals.state(pair)
                        assert tracker.arrivals.pairs == (pair,), "no other network is reported"
                    if host.drops:
                        filter_bridged("0")
                        await look_while(watcher, lab, host)
                        assert tracker.arrivals.state(pair) is ArrivalState.ARRIVES
            finally:
                filter_bridged("0")
        assert found == dict.fromkeys(self.cases, ArrivalState.NOT_ARRIVING)

    @pytest.mark.timeout(240)
    async def test_where_requests_arrive_nothing_is_reported(self, lab: Places) -> None:
        """Connections that are answered and closed at once, a scan of ports, a datagram without an answer."""
        for host in (
            FaultyHost("", CLIENT, TO_VIP),
            FaultyHost("", CLIENT, TO_PUBLISHED),
            FaultyHost("", A, TO_VIP),
            FaultyHost("", CLIENT, TO_VIP, to=ABROAD),
        ):
            async with self.serving(host) as (watcher, tracker):
                ports = range(1, 40)
                scan = [opened(lab, host.client, (VIP, port)) for port in ports]
                silent = lab.socket_at(host.client, socket.SOCK_DGRAM)
                silent.connect(TO_VIP)
                silent.send(b"")
                await look_while(watcher, lab, host)
                states = {tracker.arrivals.state(pair) for pair in tracker.arrivals.pairs}
                assert ArrivalState.NOT_ARRIVING not in states
                for sock in (*scan, silent):
                    sock.close()


async def look_while(watcher: ArrivalWatcher, places: Places, host: FaultyHost) -> None:
    """Let the client try, and look as often as it takes to be sure."""
    await watcher.look()
    sockets = [opened(places, host.client, host.where) for _ in range(CONNECTIONS)]
    for _ in range(LOOKS):
        await asyncio.sleep(SETTLED)
        await watcher.look()
        sockets += [opened(places, host.client, host.where) for _ in range(CONNECTIONS)]
    await asyncio.sleep(SETTLED)
    await watcher.look()
    for sock in sockets:
        sock.close()


def opened(places: Places, client: Address, where: Where) -> socket.socket:
    """A connection that a client begins."""
    sock = places.socket_at(client, socket.SOCK_STREAM)
    sock.connect_ex(where)
    return sock


@contextmanager
def firewall(rule: str) -> Iterator[None]:
    """A chain of the hook `forward` with this rule."""
    if not rule:
        yield
        return
    lines = "\n".join(f"\t\t{each}" for each in rule.split("; "))
    chain = f"chain forward {{\n\t\ttype filter hook forward priority filter; policy accept;\n{lines}\n\t}}"
    run_command("nft", "-f", "-", given=f"table ip isolation {{\n\t{chain}\n}}\n")
    try:
        yield
    finally:
        run_command("nft", "delete", "table", "ip", "isolation")


def read_from(containers: tuple[Network, ...], *, ipvs: bool) -> PassiveSources:
    """What the daemon reads from, with these networks of containers."""

    async def networks() -> tuple[Network, ...]:
        return containers

    return PassiveSources(FlowReader(4, ipvs=ipvs), networks, None if ipvs else RequestCounter(POOL).read)
