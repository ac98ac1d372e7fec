"""Clients and connections under the nftables data plane, beyond the common contract."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from itertools import cycle, product
from unittest.mock import patch

import pytest

from mesh.dataplane.conntrack.socket import NetfilterSocket
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import NftablesDataPlane
from mesh.dataplane.nftables.service_chain import FOREIGN_VALUE
from mesh.dataplane.operations import EditRealServer
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from mesh.util import nft
from tests.builders import POOL, WEB_KEY
from tests.dataplane.nftables.test_plane import A, B, lab, want
from tests.netns import run_command
from tests.system.ipvs.lab import BACKENDS, Client, Lab, Servers, ask_tcp

__all__ = ["lab"]


@pytest.fixture
async def plane(lab: Lab) -> AsyncIterator[NftablesDataPlane]:
    interface = MeshInterface()
    plane = NftablesDataPlane(POOL, interface)
    async with Servers(lab) as servers:
        for name in BACKENDS:
            await servers.start(name)
        yield plane
    await plane.close()
    await interface.close()


def web(persistence: int = 0, scheduler: Scheduler = Scheduler.WRR, **weights: int) -> Table:
    reals = {BACKENDS[name]: RealServer(weight) for name, weight in weights.items()}
    return Table({WEB_KEY: VirtualServer(scheduler, persistence, reals)}, frozenset({WEB_KEY.address}))


async def who(lab: Lab) -> set[str]:
    return {await ask_tcp(lab, WEB_KEY) for _ in range(6)}


async def test_a_client_stays_with_its_real_server_until_it_is_removed(lab: Lab, plane: NftablesDataPlane) -> None:
    await want(plane, web(300, a=1))
    assert await who(lab) == {"a"}
    await want(plane, web(300, a=1, b=100))
    assert await who(lab) == {"a"}, "whoever else comes"
    await want(plane, web(300, a=0, b=1))
    assert await who(lab) == {"b"}, "weight 0 lets clients go"
    await want(plane, web(300, a=100, b=1))
    assert await who(lab) == {"b"}
    await want(plane, web(300, a=1))
    assert await who(lab) == {"a"}
    await want(plane, web(0, a=1, b=1))
    assert await who(lab) == {"a", "b"}
    assert "timeout" not in run_command("nft", "list", "table", "ip", "vipmesh_lb"), (
        "sets of clients go with persistence"
    )


async def test_a_client_is_forgotten_after_its_time(lab: Lab, plane: NftablesDataPlane) -> None:
    await want(plane, web(1, a=1))
    assert await who(lab) == {"a"}
    await want(plane, web(1, a=1, b=1000))
    async with asyncio.timeout(20):
        while await ask_tcp(lab, WEB_KEY) == "a":
            await asyncio.sleep(1.2)  # each connection starts the time anew


async def test_connections_are_counted_for_the_requested_virtual_servers(lab: Lab, plane: NftablesDataPlane) -> None:
    await want(plane, web(a=1))
    connection = Client(lab)
    await connection.connect(WEB_KEY)
    assert await connection.echo() == "a"
    assert await plane.connections() == await plane.connections([WEB_KEY]) == {(WEB_KEY, A): 1}
    assert await plane.connections([VirtualKey(WEB_KEY.address, 81, Transport.TCP)]) == {}
    await connection.close()


async def test_only_removed_real_servers_lose_their_connections(lab: Lab, plane: NftablesDataPlane) -> None:
    await want(plane, web(a=1))
    staying, leaving = Client(lab), Client(lab)
    await staying.connect(WEB_KEY)
    await want(plane, web(b=1, a=0))
    await leaving.connect(WEB_KEY)
    assert (await staying.echo(), await leaving.echo()) == ("a", "b")
    await want(plane, web(60, Scheduler.SH, a=5))
    assert await staying.echo() == "a"
    with pytest.raises(ConnectionResetError):
        await leaving.echo()
    for connection in (staying, leaving):
        await connection.close()


async def test_single_and_bulk_queries_return_the_same_entries(lab: Lab, plane: NftablesDataPlane) -> None:
    await want(plane, web(a=1, b=1))
    clients = [Client(lab) for _ in range(4)]
    for client in clients:
        await client.connect(WEB_KEY)
        await client.echo()
    others = [VirtualKey(WEB_KEY.address, port, Transport.TCP) for port in range(9000, 9020)]
    netfilter = NetfilterSocket(4)
    alone, among = await netfilter.entries([WEB_KEY]), await netfilter.entries([WEB_KEY, *others])
    assert len(alone) == 4
    assert {entry.handle for entry in alone} == {entry.handle for entry in among}
    await netfilter.forget([*alone, *alone])
    assert await netfilter.entries([WEB_KEY]) == []
    await netfilter.close()
    for client in clients:
        await client.close()


@pytest.fixture
def loaded() -> Iterator[list[str]]:
    """The scripts that are given to nft from now on."""
    scripts: list[str] = []
    load = nft.load_script

    async def spy(script: str) -> None:
        scripts.append(script)
        await load(script)

    with patch("mesh.util.nft.load_script", spy):
        yield scripts


async def test_a_change_in_a_large_table_is_one_small_transaction(plane: NftablesDataPlane, loaded: list[str]) -> None:
    many = {
        VirtualKey(f"10.112.{number >> 8}.{number & 255}", 80, Transport.TCP): VirtualServer(
            real_servers={A: RealServer(1), B: RealServer(1)}
        )
        for number in range(256, 556)
    }
    await want(plane, Table(many))
    assert len(loaded) == 2, "the table that counts, and everything else"
    del loaded[0]
    key = min(many)
    await want(plane, Table({**many, key: VirtualServer(real_servers={A: RealServer(3), B: RealServer(1)})}))
    one = {key: VirtualServer(real_servers={A: RealServer(3), B: RealServer(2)})}
    assert len(loaded) == 2
    with patch("mesh.util.nft.list_table_json", side_effect=AssertionError("one change lists nothing")):
        assert await plane.apply(diff_tables(await plane.read(one.keys()), Table(one))) == []
        assert await plane.read(one.keys()) == Table(one)
    assert await plane.read() == Table({**many, **one})
    assert len(loaded) == 3
    chosen = "numgen inc mod 4 map { 0-1 : 10.2.0.1 . 8080, 2 : 10.2.0.2 . 8080, 3 : 10.2.0.1 . 8080 }"
    assert loaded[1].splitlines() == [
        f"flush chain ip vipmesh_lb tcp-{key.address}-80",
        f"add rule ip vipmesh_lb tcp-{key.address}-80 meta l4proto 6 dnat ip to {chosen}",
        f'add rule ip vipmesh_lb tcp-{key.address}-80 return comment "vipmesh 1 wrr unit 1 persistence 0"',
    ]


async def test_outside_changes_between_reads_are_noticed(plane: NftablesDataPlane) -> None:
    await want(plane, web(a=1, b=1))
    assert await plane.apply([EditRealServer(WEB_KEY, A, RealServer(2))]) == []
    run_command("nft", "flush chain ip vipmesh_lb tcp-10.112.0.7-80")
    assert (await plane.read([WEB_KEY])).virtual_servers[WEB_KEY].persistence == FOREIGN_VALUE
    await want(plane, web(a=1, b=1))
    load = nft.load_script

    async def meddled(script: str) -> None:
        await load(script)
        run_command("nft", "flush chain ip vipmesh_lb prerouting")

    with patch("mesh.util.nft.load_script", meddled):
        assert await plane.apply([EditRealServer(WEB_KEY, A, RealServer(2))]) == []
    assert (await plane.read([WEB_KEY])).virtual_servers[WEB_KEY].persistence == FOREIGN_VALUE


async def test_the_ruleset_is_listed_only_after_outside_changes(plane: NftablesDataPlane) -> None:
    await want(plane, web(a=1))
    await plane.counted()  # the table that counts is loaded beside: a listing meanwhile may be outdated already
    before = await plane.read()
    with patch("mesh.util.nft.list_table_json", side_effect=AssertionError("nothing has changed")):
        assert await plane.read() == before
        run_command("nft", "add table ip theirs")
        with pytest.raises(AssertionError):
            await plane.read()
    assert diff_tables(await plane.read(), before) == ()


@pytest.mark.parametrize("version", [4, 6])
async def test_every_combination_of_settings_is_read_back(lab: Lab, version: int) -> None:
    vip, real = ("10.112.0.{}", "10.2.0.{}") if version == 4 else ("fd00:112::{:x}", "fd00:2::{:x}")
    weights = [(), (0,), (1,), (1, 0, 3), (100, 100), (1000, 999, 1)]
    flags = [frozenset[SchedulerFlag](), frozenset(SchedulerFlag)]
    servers = [
        VirtualServer(scheduler, persistence, reals, flagged)
        for scheduler, persistence, flagged, shares in product(Scheduler, (0, 90), flags, weights)
        if (
            reals := {RealKey(real.format(number), 8080): RealServer(weight) for number, weight in enumerate(shares, 1)}
        )
        or not flagged
    ]
    transports = cycle(Transport)
    wanted = Table(
        {VirtualKey(vip.format(1), 8000 + number, next(transports)): server for number, server in enumerate(servers)}
    )
    interface, pool = MeshInterface(), ip_network("10.112.0.0/16" if version == 4 else "fd00:112::/64")
    plane, other = NftablesDataPlane(pool, interface), NftablesDataPlane(pool, interface)
    await want(plane, wanted)
    assert await other.read() == wanted, "by one that has written nothing"
    await want(plane, Table())
    for part in (plane, other, interface):
        await part.close()
