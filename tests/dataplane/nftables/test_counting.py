"""What the nftables data plane counts on this kernel, and what resets nothing."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping

import pytest

from mesh.dataplane import DataPlane
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import NftablesDataPlane, accounting, counter_table
from mesh.dataplane.nftables.counter_table import CounterTable
from mesh.dataplane.nftables.traffic_counters import CounterFrame, CounterListing
from mesh.host.vip_interface import MeshInterface
from mesh.model.codes import Code
from mesh.model.service import Scheduler, Transport
from mesh.model.table import RealKey, RealServer, Table, TrafficCounters, VirtualKey, VirtualServer
from mesh.util import nft
from tests.builders import POOL, WEB_KEY
from tests.dataplane.nftables.test_plane import A, B, behind, interface, lab, plane, servers
from tests.dataplane.nftables.test_plane import want as program
from tests.netns import run_command
from tests.system.ipvs.lab import Lab, Servers, ask_tcp, ask_udp

__all__ = ["interface", "lab", "plane", "servers"]

VIP = "10.112.0.7"
ELEMENT = f"10.112.0.7 . tcp . 80 . {A.address} . {A.port}"
PUBLISHED = VirtualKey("10.1.0.1", 30080, Transport.TCP)


async def opened(plane: DataPlane, key: VirtualKey = WEB_KEY) -> int:
    return (await counted(plane))[key].connections


async def counted(plane: DataPlane) -> Mapping[VirtualKey, TrafficCounters]:
    """What is counted now, and not a second ago."""
    assert isinstance(plane, NftablesDataPlane)
    await plane.counted()
    return await plane.traffic()


async def want(plane: DataPlane, table: Table) -> None:
    """Program a table, and wait until it is counted."""
    await program(plane, table)
    assert isinstance(plane, NftablesDataPlane)
    await plane.counted()


async def settled(plane: DataPlane) -> Mapping[VirtualKey, TrafficCounters]:
    """The counters once the last packets of closed connections are counted, too."""
    before = await counted(plane)
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.3)  # nothing tells that no packet follows
            now = await counted(plane)
            if now == before:
                return now
            before = now


async def test_no_change_of_a_service_resets_its_counters(lab: Lab, servers: Servers, plane: NftablesDataPlane) -> None:
    for name in ("a", "b"):
        await servers.start(name)
    tables = [
        behind(WEB_KEY, A),
        behind(WEB_KEY, A, B),
        behind(WEB_KEY, A, B, scheduler=Scheduler.SH, persistence=60),
        behind(WEB_KEY, B),
        Table(
            {**behind(WEB_KEY, B).virtual_servers, PUBLISHED: VirtualServer(real_servers={B: RealServer()})},
            frozenset({WEB_KEY.address}),
        ),
    ]
    for expected, table in enumerate(tables, 1):
        await want(plane, table)
        assert await ask_tcp(lab, WEB_KEY)
        assert await opened(plane) == expected
    await ask_tcp(lab, PUBLISHED)
    assert await opened(plane, PUBLISHED) == 1
    assert await opened(plane) == len(tables)


async def test_refused_connections_were_not_opened(lab: Lab, servers: Servers, plane: NftablesDataPlane) -> None:
    await servers.start("a")
    await want(plane, behind(WEB_KEY))
    for table, expected in (
        (behind(WEB_KEY), 0),
        (behind(WEB_KEY, A), 1),
        (behind(WEB_KEY), 1),
        (behind(WEB_KEY, A), 2),
    ):
        await want(plane, table)
        if table.virtual_servers[WEB_KEY].real_servers:
            assert await ask_tcp(lab, WEB_KEY) == "a"
        else:
            with pytest.raises(ConnectionRefusedError):
                await ask_tcp(lab, WEB_KEY)
        assert await opened(plane) == expected


async def test_a_daemon_that_starts_adopts_the_counters(
    lab: Lab, servers: Servers, plane: NftablesDataPlane, interface: MeshInterface
) -> None:
    await servers.start("a")
    await want(plane, behind(WEB_KEY, A))
    assert await ask_tcp(lab, WEB_KEY) == "a"
    before = await settled(plane)
    later = NftablesDataPlane(POOL, interface)
    try:
        assert await counted(later) == before
        assert diff_tables(await later.read(), behind(WEB_KEY, A)) == ()
        await want(later, behind(WEB_KEY, A, B))
        assert await counted(later) == before
    finally:
        await later.close()


async def test_one_that_was_programmed_without_counters_is_counted_once_it_is_looked_at(
    lab: Lab, servers: Servers, plane: NftablesDataPlane, interface: MeshInterface
) -> None:
    """An earlier version made the rules."""
    await servers.start("a")
    await want(plane, behind(WEB_KEY, A))
    run_command("nft", "delete table ip vipmesh_count")
    later = NftablesDataPlane(POOL, interface)
    try:
        assert await counted(later) == {WEB_KEY: TrafficCounters()}
        assert await ask_tcp(lab, WEB_KEY) == "a"
        assert await opened(later) == 1
        run_command("nft", "delete table ip vipmesh_count")
        await want(later, behind(WEB_KEY, B, A))  # an edit does not depend on the table
        other = VirtualKey("10.112.0.8", 80, Transport.TCP)
        await want(later, behind(other, A))  # neither does another service
        assert set(await counted(later)) == {other}
    finally:
        await later.close()


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("flush chain ip vipmesh_count opened_postrouting", id="the rule of connections"),
        pytest.param("flush chain ip vipmesh_count sent_postrouting", id="the rule of bytes"),
        pytest.param("flush chain ip vipmesh_count sent_input; delete chain ip vipmesh_count sent_input", id="a chain"),
        pytest.param(f"delete element ip vipmesh_count sent {{ {ELEMENT} }}", id="an element"),
        pytest.param(
            "add element ip vipmesh_count opened { 10.112.0.9 . tcp . 80 . 10.2.0.1 . 1 }", id="an element more"
        ),
        pytest.param(
            "delete table ip vipmesh_count; add table ip vipmesh_count; add set ip vipmesh_count opened"
            " { type ipv4_addr . inet_proto . inet_service; counter; }",
            id="sets of another version",
        ),
        pytest.param("flush ruleset", id="all"),
    ],
)
async def test_outside_damage_is_repaired_when_it_is_looked_at(
    lab: Lab, servers: Servers, plane: NftablesDataPlane, broken: str
) -> None:
    await servers.start("a")
    await want(plane, behind(WEB_KEY, A))
    run_command("nft", broken)
    await want(plane, behind(WEB_KEY, A))
    before = (await counted(plane))[WEB_KEY]
    assert await ask_tcp(lab, WEB_KEY) == "a"
    now = await counted(plane)
    assert list(now) == [WEB_KEY]
    assert now[WEB_KEY].connections == before.connections + 1
    assert now[WEB_KEY].bytes_in > before.bytes_in
    assert now[WEB_KEY].bytes_out > before.bytes_out


async def test_bytes_are_those_of_the_packets(lab: Lab, servers: Servers, plane: NftablesDataPlane) -> None:
    """A datagram of 2 bytes has headers of 28 bytes; the answer has 2 bytes more (RFC 791, RFC 768)."""
    await servers.start("a")
    names = VirtualKey("10.112.0.7", 53, Transport.UDP)
    await want(plane, behind(names, A))
    sock = lab.client(socket.SOCK_DGRAM)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        for _ in range(3):  # the first packet is counted elsewhere than the others
            await loop.sock_sendto(sock, b"hi", (names.address, names.port))
            assert await loop.sock_recv(sock, 99) == b"a hi"
    assert (await counted(plane))[names] == TrafficCounters(1, 3 * 30, 3 * 32)
    assert await ask_udp(lab, names) == "a"
    assert await opened(plane, names) == 2


async def test_each_endpoint_has_counts_of_its_own(lab: Lab, servers: Servers, plane: NftablesDataPlane) -> None:
    """Weights are slots of one map; an endpoint that comes or goes leaves the counts of the others as they are."""
    for name in ("a", "b"):
        await servers.start(name)
    names = VirtualKey("10.112.0.7", 53, Transport.UDP)
    weighted = VirtualServer(real_servers={A: RealServer(3), B: RealServer(1)})
    await want(plane, Table({names: weighted}, frozenset({VIP})))
    answers = Counter([await ask_udp(lab, names) for _ in range(8)])
    assert answers == {"a": 6, "b": 2}
    size = len(b"hello\n") + 28  # with the headers of IP and UDP
    await plane.counted()
    found = await plane.endpoint_traffic()
    assert {real: (traffic.connections, traffic.bytes_in) for (_, real), traffic in found.items()} == {
        A: (6, 6 * size),
        B: (2, 2 * size),
    }
    total = (await counted(plane))[names]
    assert total == found[names, A] + found[names, B]
    await want(plane, behind(names, A))
    assert await plane.endpoint_traffic() == {(names, A): found[names, A]}
    assert await plane.endpoint_traffic() == {(names, A): found[names, A]}
    assert (await counted(plane))[names] == total, "a former endpoint still counts for its service"
    await want(plane, behind(names, A, B))
    assert await plane.endpoint_traffic() == {(names, A): found[names, A], (names, B): TrafficCounters()}
    assert (await counted(plane))[names] == total


async def test_an_endpoint_that_is_soon_back_goes_on_counting(
    lab: Lab, servers: Servers, plane: NftablesDataPlane
) -> None:
    await servers.start("a")
    await want(plane, behind(WEB_KEY, A))
    assert await ask_tcp(lab, WEB_KEY) == "a"
    await settled(plane)
    await want(plane, behind(WEB_KEY, B))
    await want(plane, behind(WEB_KEY, A))
    assert await ask_tcp(lab, WEB_KEY) == "a"
    assert await opened(plane) == 2
    assert (await plane.endpoint_traffic())[WEB_KEY, A].connections == 2


async def test_rules_that_are_damaged_do_not_end_the_counts_of_endpoints(
    lab: Lab, servers: Servers, plane: NftablesDataPlane
) -> None:
    await servers.start("a")
    await want(plane, behind(WEB_KEY, A))
    assert await ask_tcp(lab, WEB_KEY) == "a"
    before = await settled(plane)
    run_command("nft", "flush chain ip vipmesh_lb tcp-10.112.0.7-80")
    await counted(plane)
    await want(plane, behind(WEB_KEY, A))
    assert (await plane.endpoint_traffic())[WEB_KEY, A] == before[WEB_KEY]


async def test_counters_are_loaded_without_being_asked_for(plane: NftablesDataPlane) -> None:
    await program(plane, behind(WEB_KEY, A))
    async with asyncio.timeout(30):
        while f"{A.address} . {A.port}" not in (await nft.list_table("ip", "vipmesh_count") or ""):
            await asyncio.sleep(0.05)  # it happens beside


async def test_counters_are_loaded_before_the_data_plane_is_closed(lab: Lab, interface: MeshInterface) -> None:
    plane = NftablesDataPlane(POOL, interface)
    await program(plane, behind(WEB_KEY, A))
    await plane.close()
    run_command("nft", "get", "element", "ip", "vipmesh_count", "sent", f"{{ {ELEMENT} }}")


async def test_programming_does_not_wait_for_counters(
    plane: NftablesDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing and the set-up of the table hang: rules change all the same."""
    go_on, hanging, frame = asyncio.Event(), asyncio.Event(), CounterTable.frame

    async def hang(table: CounterTable) -> CounterFrame:
        hanging.set()
        await go_on.wait()
        return await frame(table)

    monkeypatch.setattr(CounterTable, "frame", hang)
    async with asyncio.timeout(60):
        await program(plane, behind(WEB_KEY, A))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(plane.traffic())
            await hanging.wait()
            await program(plane, behind(WEB_KEY, A, B))
            other = VirtualKey("10.112.0.8", 80, Transport.TCP)
            await program(plane, behind(other, A))
            go_on.set()
            await reading
    assert await counted(plane) == {other: TrafficCounters()}


async def test_a_service_that_ends_and_begins_within_a_moment_counts_from_0(
    lab: Lab, servers: Servers, plane: NftablesDataPlane
) -> None:
    await servers.start("a")
    await want(plane, behind(WEB_KEY, A))
    assert await ask_tcp(lab, WEB_KEY) == "a"
    await settled(plane)
    await program(plane, Table())
    await program(plane, behind(WEB_KEY, A))
    assert await counted(plane) == {WEB_KEY: TrafficCounters()}
    assert await ask_tcp(lab, WEB_KEY) == "a"
    assert await opened(plane) == 1


async def test_readers_within_a_second_share_a_reading(
    plane: NftablesDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    await want(plane, behind(WEB_KEY, A))
    readings, listing = [], CounterTable.listing

    async def noted(table: CounterTable) -> CounterListing:
        readings.append(table)
        return await listing(table)

    monkeypatch.setattr(CounterTable, "listing", noted)
    monkeypatch.setattr(accounting, "_FRESH", 3600.0)  # however slow this machine is
    await asyncio.gather(plane.traffic(), plane.endpoint_traffic(), plane.traffic())
    assert len(readings) == 1
    await program(plane, behind(WEB_KEY, A, B))
    assert (WEB_KEY, B) in await plane.endpoint_traffic(), "what was programmed since is seen"
    assert len(readings) == 2


async def test_what_is_counted_leaves_the_known_state_of_the_rules(
    plane: NftablesDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of all rules would make the next change wait."""
    await want(plane, behind(WEB_KEY, A))
    assert await plane.read() == behind(WEB_KEY, A)
    monkeypatch.setattr(nft, "list_table_json", None)  # nothing lists the rules from here on
    other = VirtualKey("10.112.0.8", 80, Transport.TCP)
    both = Table(
        {**behind(WEB_KEY, A, B).virtual_servers, **behind(other, A).virtual_servers}, frozenset({VIP, other.address})
    )
    assert await plane.apply(diff_tables(behind(WEB_KEY, A), both)) == []
    await plane.counted()
    assert (await plane.read([WEB_KEY, other])) == both
    assert await plane.apply(diff_tables(both, behind(WEB_KEY, A))) == []
    assert set(await counted(plane)) == {WEB_KEY}


async def test_a_connection_within_the_host_is_counted_once(plane: NftablesDataPlane) -> None:
    """Its packets pass the loopback interface, which they leave and enter."""
    run_command("ip", "link", "set", "lo", "up")
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        for sock in (server, client):
            sock.setblocking(False)
        server.bind(("10.1.0.1", 5353))
        names = VirtualKey("10.112.0.7", 53, Transport.UDP)
        await want(plane, behind(names, RealKey("10.1.0.1", 5353)))
        async with asyncio.timeout(30):
            for _ in range(2):
                await loop.sock_sendto(client, b"hi", (names.address, names.port))
                _, peer = await loop.sock_recvfrom(server, 99)
                await loop.sock_sendto(server, b"hello", peer)
                assert await loop.sock_recv(client, 99) == b"hello"
    assert (await counted(plane))[names] == TrafficCounters(1, 2 * 30, 2 * 33)


async def test_a_host_that_cannot_count_balances_all_the_same(
    lab: Lab,
    servers: Servers,
    plane: NftablesDataPlane,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await servers.start("a")
    monkeypatch.setattr(counter_table, "counter_script", lambda _: ["add table ip vipmesh_count { nonsense }"])
    with caplog.at_level(logging.WARNING):
        await want(plane, behind(WEB_KEY, A))
        assert await ask_tcp(lab, WEB_KEY) == "a"
        assert await counted(plane) == {}
        assert await counted(plane) == {}
    codes = [getattr(record, "code", None) for record in caplog.records if "not counted" in record.message]
    assert codes == [Code.NFTABLES_TRAFFIC_NOT_COUNTED]
