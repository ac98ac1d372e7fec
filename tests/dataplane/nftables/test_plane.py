"""The nftables data plane on this kernel: the contract with real traffic between namespaces, and its own features."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import NftablesDataPlane, remove_tables, unavailable_reason
from mesh.dataplane.operations import AddRealServer, AddVirtualServer, Operation
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Address, Forwarding, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.builders import POOL, WEB_KEY
from tests.dataplane.contract import Connection, TrafficContract
from tests.netns import private_network, run_command
from tests.system.e2e.programs import CI
from tests.system.ipvs.lab import BACKENDS, BACKENDS_6, PORT, Client, Lab, Servers, ask_tcp, ask_udp

NAMES = VirtualKey("10.112.0.7", 53, Transport.UDP)
A, B = BACKENDS["a"], BACKENDS["b"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The test is on the director, between a client and two backends."""
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        lab = Lab(ipvs=False)
        yield lab
        lab.close()


@pytest.fixture
async def servers(lab: Lab) -> AsyncIterator[Servers]:
    async with Servers(lab) as servers:
        yield servers


@pytest.fixture
async def interface(lab: Lab) -> AsyncIterator[MeshInterface]:
    interface = MeshInterface()
    yield interface
    await interface.close()


@pytest.fixture
async def plane(interface: MeshInterface) -> AsyncIterator[NftablesDataPlane]:
    plane = NftablesDataPlane(POOL, interface)
    yield plane
    await plane.close()


class TestContract(TrafficContract):
    lab: Lab
    servers: Servers

    @pytest.fixture(autouse=True)
    def parts(self, lab: Lab, servers: Servers) -> None:
        self.lab, self.servers = lab, servers

    @override
    def vip(self, number: int) -> Address:
        return f"10.112.0.{number}"

    @override
    async def real_server(self, name: str) -> RealKey:
        return await self.servers.start(name)

    @override
    async def ask_tcp(self, key: VirtualKey) -> str | None:
        try:
            return await ask_tcp(self.lab, key)
        except ConnectionRefusedError:
            return None

    @override
    async def open_tcp(self, key: VirtualKey) -> Connection:
        client = Client(self.lab)
        await client.connect(key)
        return client

    @override
    async def ask_udp(self, key: VirtualKey) -> str | None:
        return await ask_udp(self.lab, key)


async def want(plane: DataPlane, table: Table) -> None:
    assert await plane.apply(diff_tables(await plane.read(), table)) == []
    assert await plane.read() == table


def behind(key: VirtualKey, *reals: RealKey, **settings: object) -> Table:
    server = VirtualServer(real_servers=dict.fromkeys(reals, RealServer()), **settings)  # type: ignore[arg-type]
    return Table({key: server}, frozenset({key.address}))


async def test_connections_of_a_removed_real_server_are_reset_and_datagrams_move_on(
    lab: Lab, servers: Servers, plane: NftablesDataPlane
) -> None:
    for name in BACKENDS:
        await servers.start(name)
    await want(plane, behind(WEB_KEY, A))
    connection = Client(lab)
    await connection.connect(WEB_KEY)
    assert await connection.echo() == "a"
    await want(plane, behind(WEB_KEY, B))
    with pytest.raises(ConnectionResetError):
        await connection.echo()
    await connection.close()

    await want(plane, behind(NAMES, A))
    sock = lab.client(socket.SOCK_DGRAM)
    sock.connect((NAMES.address, NAMES.port))
    assert await _say(sock) == "a"
    await want(plane, behind(NAMES, B))
    assert await _say(sock) == "b", "from the same port"


async def _say(sock: socket.socket) -> str:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        await loop.sock_sendall(sock, b"hello\n")
        return (await loop.sock_recv(sock, 100)).decode().split()[0]


async def test_a_client_stays_with_its_server_by_hash(lab: Lab, servers: Servers, plane: NftablesDataPlane) -> None:
    for name in BACKENDS:
        await servers.start(name)
    for settings in ({"persistence": 300}, {"scheduler": Scheduler.SH}, {"scheduler": Scheduler.MH}):
        await want(plane, behind(WEB_KEY, A, B, **settings))
        assert len({await ask_tcp(lab, WEB_KEY) for _ in range(6)}) == 1
    await want(plane, behind(WEB_KEY, A, B, scheduler=Scheduler.MH, flags=frozenset({SchedulerFlag.PORT})))
    assert len({await ask_tcp(lab, WEB_KEY) for _ in range(24)}) == 2


async def test_ipv6(lab: Lab, servers: Servers, interface: MeshInterface) -> None:
    plane = NftablesDataPlane(ip_network("fd00:112::/64"), interface)
    for name in BACKENDS:
        await servers.start(name, socket.AF_INET6)
    web = VirtualKey("fd00:112::7", 80, Transport.TCP)
    await want(plane, behind(web, *BACKENDS_6.values()))
    assert {await ask_tcp(lab, web) for _ in range(4)} == {"a", "b"}
    await want(plane, behind(web))
    with pytest.raises(ConnectionRefusedError):
        await ask_tcp(lab, web)
    await plane.close()


async def test_sctp_is_read_back(plane: NftablesDataPlane) -> None:
    await want(plane, behind(VirtualKey("10.112.0.7", 2905, Transport.SCTP), A, B))


async def test_a_published_port_and_the_host_itself(lab: Lab, servers: Servers, plane: NftablesDataPlane) -> None:
    await servers.start("a")
    published = VirtualKey("10.1.0.1", 30080, Transport.TCP)
    servers_of = dict.fromkeys((WEB_KEY, published), VirtualServer(real_servers={A: RealServer()}))
    await want(plane, Table(servers_of, frozenset({WEB_KEY.address})))
    assert await ask_tcp(lab, published) == "a"
    own = socket.socket()  # from the VIP itself; the backend's default route leads here
    own.setblocking(False)
    with own:
        await asyncio.get_running_loop().sock_connect(own, (WEB_KEY.address, WEB_KEY.port))
        assert await _say(own) == "a"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("flush ruleset", id="all"),
        pytest.param("flush chain ip vipmesh_lb prerouting", id="the way in"),
        pytest.param("delete element ip vipmesh_lb services { 10.112.0.7 . tcp . 80 }", id="the way to the chain"),
        pytest.param("flush chain ip vipmesh_lb tcp-10.112.0.7-80", id="the chain"),
        pytest.param(
            "flush chain ip vipmesh_lb tcp-10.112.0.7-80; add rule ip vipmesh_lb tcp-10.112.0.7-80 meta l4proto tcp "
            "dnat to numgen random mod 3 map { 0-1: 10.2.0.1 . 8080, 2: 10.2.0.2 . 8080 }; "
            'add rule ip vipmesh_lb tcp-10.112.0.7-80 return comment "vipmesh 1 wrr unit 1 persistence 0"',
            id="how it chooses",
        ),
        pytest.param(
            "flush chain ip vipmesh_lb prerouting; add rule ip vipmesh_lb prerouting counter", id="another way in"
        ),
        pytest.param("delete chain ip vipmesh_lb output", id="the way of the host itself"),
        pytest.param(
            "delete element ip vipmesh_lb services { 10.112.0.7 . tcp . 80 }; "
            "add element ip vipmesh_lb services { 10.112.0.7 . tcp . 80 : drop }",
            id="dropped instead",
        ),
        pytest.param(
            "flush chain ip vipmesh_lb tcp-10.112.0.7-80; add rule ip vipmesh_lb tcp-10.112.0.7-80 counter drop",
            id="rules that are not ours",
        ),
        pytest.param("insert rule ip vipmesh_lb tcp-10.112.0.7-80 ip saddr 10.1.0.2 drop", id="a rule before ours"),
    ],
)
async def test_outside_damage_is_noticed_and_repaired(
    lab: Lab, servers: Servers, plane: NftablesDataPlane, broken: str
) -> None:
    for name in BACKENDS:
        await servers.start(name)
    wanted = Table(
        {WEB_KEY: VirtualServer(real_servers={A: RealServer(2), B: RealServer(1)})}, frozenset({WEB_KEY.address})
    )
    await want(plane, wanted)
    run_command("nft", broken)
    assert diff_tables(await plane.read(), wanted)
    await want(plane, wanted)
    assert [await ask_tcp(lab, WEB_KEY) for _ in range(3)].count("a") == 2


async def test_foreign_tables_are_not_touched_and_only_ours_is_removed(plane: NftablesDataPlane) -> None:
    run_command("nft", "add table ip theirs")
    await want(plane, behind(WEB_KEY, A))
    assert await remove_tables() == ["ip vipmesh_lb", "ip vipmesh_count"]
    assert await remove_tables() == []
    assert run_command("nft", "list", "ruleset").split() == ["table", "ip", "theirs", "{", "}"]


async def test_unsupported_features_are_refused_or_reported_once(
    plane: NftablesDataPlane, caplog: pytest.LogCaptureFixture
) -> None:
    operations: list[Operation] = [
        AddVirtualServer(WEB_KEY, Scheduler.WLC, 0),
        AddRealServer(WEB_KEY, A, RealServer(1, Forwarding.TUNNEL)),
        AddRealServer(WEB_KEY, RealKey("fd00::1", PORT), RealServer()),
        AddRealServer(WEB_KEY, B, RealServer(1, upper_threshold=9)),
        AddVirtualServer(VirtualKey("fd00::7", 80, Transport.TCP), Scheduler.RR, 0),
    ]
    failures = await plane.apply(operations)
    assert [failure.operation for failure in failures] == [operations[1], operations[2], operations[4]]
    assert all(
        words in f.reason.text for f, words in zip(failures, ["masquerade", "IP version", "IP version"], strict=True)
    )
    await plane.apply(operations)
    assert [message for message in caplog.messages if "wlc" in message] == [
        "data plane nftables: scheduler wlc looks at the load, which nftables cannot: endpoints take turns"
    ]
    assert len([message for message in caplog.messages if "max_connections" in message]) == 1


async def test_one_bad_virtual_server_stops_no_other(plane: NftablesDataPlane) -> None:
    bad = VirtualKey("10.112.0.9", 80, Transport.TCP)
    operations: list[Operation] = [
        AddVirtualServer(bad, Scheduler.RR, 0),
        AddRealServer(bad, RealKey("10.2.0.999", PORT), RealServer()),
        AddVirtualServer(WEB_KEY, Scheduler.RR, 0),
    ]
    failures = await plane.apply(operations)
    assert {failure.operation for failure in failures} == {*operations[:2]}
    assert list((await plane.read()).virtual_servers) == [WEB_KEY]


async def test_errors_without_the_privilege_or_the_program(
    interface: MeshInterface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("mesh.util.nft.ADMIN_PATH", "/nonexistent")
    plane = NftablesDataPlane(POOL, interface)
    with pytest.raises(DataPlaneError, match="apt-get install nftables"):
        await plane.read()
    assert "apt-get install nftables" in (await unavailable_reason() or "")
    await plane.close()
