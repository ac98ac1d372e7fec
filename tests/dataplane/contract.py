"""What every data plane must do; each real one and the fake are a subclass.

`DataPlaneContract` needs a fixture `plane` (fresh and empty) and `vip(n)`, the n-th address of its pool.
`TrafficContract` adds real connections: a subclass says how to start a real server and how to reach a virtual one, on
loopback or across network namespaces.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from mesh.control.shares import ShareMember, weigh
from mesh.dataplane import DataPlane
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import (
    AddRealServer,
    AddVirtualServer,
    BindVip,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
    Operation,
    UnbindVip,
)
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Address, Scheduler, SchedulerFlag, Transport
from mesh.model.table import FailedConnections, RealKey, RealServer, Table, TrafficCounters, VirtualKey, VirtualServer

CYCLES = 10
"""The cycles of connections in which shares are exact."""

ONE, TWO, THREE = (RealKey(f"10.2.0.{n}", 8080) for n in (1, 2, 3))


class DataPlaneContract(ABC):
    """Programming and reading back."""

    @abstractmethod
    def vip(self, number: int) -> Address:
        """The n-th address of the pool, from 1."""

    def key(self, number: int = 1, port: int = 8000, transport: Transport = Transport.TCP) -> VirtualKey:
        return VirtualKey(self.vip(number), port, transport)

    def table(self, *servers: tuple[VirtualKey, VirtualServer]) -> Table:
        return Table(dict(servers), frozenset(key.address for key, _ in servers))

    async def reach(self, plane: DataPlane, table: Table) -> None:
        """Bring the plane there and see that it is."""
        operations = diff_tables(await plane.read(), table)
        assert await plane.apply(operations) in ([], ())
        assert await plane.read() == table
        assert diff_tables(await plane.read(), table) == ()

    async def test_each_real_server_has_counters_while_it_is_there(self, plane: DataPlane) -> None:
        assert await plane.endpoint_traffic() == {}
        two = self.table((self.key(), VirtualServer(real_servers={ONE: RealServer(), TWO: RealServer(0)})))
        await self.reach(plane, two)
        idle = {(self.key(), ONE): TrafficCounters(), (self.key(), TWO): TrafficCounters()}
        assert await plane.endpoint_traffic() == idle
        await self.reach(plane, self.table((self.key(), VirtualServer(real_servers={TWO: RealServer(3)}))))
        assert set(await plane.endpoint_traffic()) == {(self.key(), TWO)}
        await self.reach(plane, Table())
        assert await plane.endpoint_traffic() == {}

    async def test_failed_connections_are_counted_of_each_real_server_or_of_none(self, plane: DataPlane) -> None:
        assert await plane.failed_connections() == {}
        await self.reach(plane, self.table((self.key(), VirtualServer(real_servers={ONE: RealServer()}))))
        assert await plane.failed_connections() in ({}, {(self.key(), ONE): FailedConnections()})
        await self.reach(plane, Table())
        assert await plane.failed_connections() == {}

    async def test_a_fresh_data_plane_is_empty(self, plane: DataPlane) -> None:
        assert await plane.read() == Table()

    async def test_added_servers_are_read_back(self, plane: DataPlane) -> None:
        servers = VirtualServer(Scheduler.WRR, 0, {ONE: RealServer(1), TWO: RealServer(3), THREE: RealServer(0)})
        await self.reach(plane, self.table((self.key(), servers), (self.key(2), VirtualServer())))

    async def test_udp_and_persistence_are_read_back(self, plane: DataPlane) -> None:
        udp = self.key(transport=Transport.UDP)
        table = self.table((udp, VirtualServer(Scheduler.RR, 300, {ONE: RealServer(1)})), (self.key(), VirtualServer()))
        await self.reach(plane, table)

    async def test_scheduler_flags_and_thresholds_are_read_back_and_edited(self, plane: DataPlane) -> None:
        for flags, upper, lower in (({SchedulerFlag.PORT}, 100, 80), (set(SchedulerFlag), 0, 0), (set(), 5, 0)):
            reals = {ONE: RealServer(1, upper_threshold=upper, lower_threshold=lower), TWO: RealServer(1)}
            server = VirtualServer(Scheduler.SH, 0, reals, frozenset(flags))
            await self.reach(plane, self.table((self.key(), server)))

    async def test_an_edited_weight_and_scheduler_leave_the_rest(self, plane: DataPlane) -> None:
        await self.reach(
            plane, self.table((self.key(), VirtualServer(Scheduler.WRR, 0, {ONE: RealServer(1), TWO: RealServer(1)})))
        )
        edits: list[Operation] = [
            EditRealServer(self.key(), ONE, RealServer(7)),
            EditVirtualServer(self.key(), Scheduler.RR, 60),
        ]
        assert not await plane.apply(edits)
        expected = VirtualServer(Scheduler.RR, 60, {ONE: RealServer(7), TWO: RealServer(1)})
        assert (await plane.read()).virtual_servers == {self.key(): expected}

    async def test_deleting_a_server_removes_nothing_else(self, plane: DataPlane) -> None:
        await self.reach(
            plane,
            self.table(
                (self.key(), VirtualServer(real_servers={ONE: RealServer(1), TWO: RealServer(1)})),
                (self.key(2), VirtualServer()),
            ),
        )
        assert not await plane.apply([DeleteRealServer(self.key(), ONE)])
        assert (await plane.read()).virtual_servers[self.key()].real_servers == {TWO: RealServer(1)}
        assert not await plane.apply([UnbindVip(self.vip(1)), DeleteVirtualServer(self.key())])
        assert await plane.read() == self.table((self.key(2), VirtualServer()))

    async def test_adding_existing_and_deleting_missing_entries_succeeds(self, plane: DataPlane) -> None:
        twice: Sequence[Operation] = [
            AddVirtualServer(self.key(), Scheduler.WRR, 0),
            AddRealServer(self.key(), ONE, RealServer(2)),
            BindVip(self.vip(1)),
        ]
        assert not await plane.apply([*twice, *twice])
        assert await plane.read() == self.table((self.key(), VirtualServer(real_servers={ONE: RealServer(2)})))
        gone: Sequence[Operation] = [
            DeleteRealServer(self.key(), ONE),
            UnbindVip(self.vip(1)),
            DeleteVirtualServer(self.key()),
        ]
        assert not await plane.apply([*gone, *gone])
        assert await plane.read() == Table()

    async def test_adding_an_existing_entry_updates_its_settings(self, plane: DataPlane) -> None:
        await self.reach(plane, self.table((self.key(), VirtualServer(real_servers={ONE: RealServer(2)}))))
        again: Sequence[Operation] = [
            AddVirtualServer(self.key(), Scheduler.RR, 0),
            AddRealServer(self.key(), ONE, RealServer(5)),
        ]
        assert not await plane.apply(again)
        assert (await plane.read()).virtual_servers == {
            self.key(): VirtualServer(Scheduler.RR, 0, {ONE: RealServer(5)})
        }

    async def test_reading_selected_keys_equals_that_part_of_the_whole(self, plane: DataPlane) -> None:
        server = VirtualServer(Scheduler.RR, 0, {ONE: RealServer(2)})
        await self.reach(plane, self.table((self.key(), server), (self.key(2), VirtualServer())))
        assert await plane.read([self.key(), self.key(3)]) == Table(
            {self.key(): server}, frozenset({self.vip(1), self.vip(2)})
        )
        assert await plane.read([]) == Table({}, frozenset({self.vip(1), self.vip(2)}))
        assert await plane.connections([self.key(2), self.key(3)]) == {}
        many = [self.key(1, port) for port in range(9000, 9200)]
        assert (await plane.read([*many, self.key()])).virtual_servers == {self.key(): server}

    async def test_an_empty_list_of_operations_does_nothing(self, plane: DataPlane) -> None:
        assert not await plane.apply([])
        assert await plane.read() == Table()

    async def test_a_failure_belongs_to_its_operation_and_stops_no_other(self, plane: DataPlane) -> None:
        orphan = AddRealServer(self.key(9), ONE, RealServer(1))
        failures = await plane.apply(
            [
                AddVirtualServer(self.key(), Scheduler.WRR, 0),
                orphan,
                AddRealServer(self.key(), TWO, RealServer(1)),
                BindVip(self.vip(1)),
            ]
        )
        assert [failure.operation for failure in failures] == [orphan]
        assert failures[0].reason
        assert await plane.read() == self.table((self.key(), VirtualServer(real_servers={TWO: RealServer(1)})))

    @pytest.mark.parametrize("backwards", [False, True])
    async def test_any_sequence_of_tables_converges(self, plane: DataPlane, backwards: bool) -> None:
        tables = [
            self.table((self.key(), VirtualServer(real_servers={ONE: RealServer(1)}))),
            self.table((self.key(), VirtualServer(real_servers={ONE: RealServer(1), TWO: RealServer(5)}))),
            self.table(
                (self.key(), VirtualServer(Scheduler.RR, 0, {TWO: RealServer(1), THREE: RealServer(2)})),
                (self.key(2), VirtualServer()),
            ),
            self.table((self.key(port=8001), VirtualServer(real_servers={ONE: RealServer(1)}))),
            Table(),
            self.table((self.key(3, 8002, Transport.UDP), VirtualServer(real_servers={ONE: RealServer(1)}))),
        ]
        for table in reversed(tables) if backwards else tables:
            await self.reach(plane, table)


class TrafficContract(DataPlaneContract):
    """Real connections through real virtual servers. The real servers answer with their name."""

    @abstractmethod
    async def real_server(self, name: str) -> RealKey:
        """Start a real server for TCP and UDP; it ends with the test."""

    @abstractmethod
    async def ask_tcp(self, key: VirtualKey) -> str | None:
        """Who answered a new connection; None: it was refused."""

    @abstractmethod
    async def open_tcp(self, key: VirtualKey) -> "Connection":
        """A connection that stays open."""

    @abstractmethod
    async def ask_udp(self, key: VirtualKey) -> str | None:
        """Who answered a datagram of a new client; None: nobody did."""

    async def behind(self, plane: DataPlane, key: VirtualKey, weights: dict[RealKey, int]) -> None:
        reals = {real: RealServer(weight) for real, weight in weights.items()}
        await self.reach(plane, self.table((key, VirtualServer(real_servers=reals))))
        await plane.endpoint_traffic()  # nftables begins to count a moment after it programs, or when it is asked

    async def test_connections_are_distributed_by_weight(self, plane: DataPlane) -> None:
        a, b = await self.real_server("a"), await self.real_server("b")
        await self.behind(plane, self.key(), {a: 3, b: 1})
        assert Counter([await self.ask_tcp(self.key()) for _ in range(16)]) == {"a": 12, "b": 4}

    async def test_each_release_gets_its_share_exactly(self, plane: DataPlane) -> None:
        reals = {name: await self.real_server(name) for name in ("a", "b")}
        members = [ShareMember(("w1", "a"), "v1", 3, True), ShareMember(("w1", "b"), "v2", 1, True)]
        weights = weigh(ReleaseShares("demo/web", {"v2": 500}, ("v1", "v2")), members).weights
        await self.behind(plane, self.key(), {real: weights["w1", name] for name, real in reals.items()})
        answers = Counter([await self.ask_tcp(self.key()) for _ in range(CYCLES * 20)])
        assert answers == {"a": 19 * CYCLES, "b": CYCLES}

    async def test_weight_0_takes_no_new_connection_and_keeps_open_ones(self, plane: DataPlane) -> None:
        a, b = await self.real_server("a"), await self.real_server("b")
        await self.behind(plane, self.key(), {a: 1})
        connection = await self.open_tcp(self.key())
        assert await connection.echo() == "a"
        await self.behind(plane, self.key(), {a: 0, b: 1})
        assert [await self.ask_tcp(self.key()) for _ in range(4)] == ["b"] * 4
        assert await connection.echo() == "a"
        await connection.close()

    async def test_a_removed_real_server_takes_no_new_connection(self, plane: DataPlane) -> None:
        a, b = await self.real_server("a"), await self.real_server("b")
        await self.behind(plane, self.key(), {a: 1, b: 1})
        assert {await self.ask_tcp(self.key()) for _ in range(4)} == {"a", "b"}
        await self.behind(plane, self.key(), {b: 1})
        assert [await self.ask_tcp(self.key()) for _ in range(4)] == ["b"] * 4

    async def test_without_real_servers_a_client_is_refused_at_once(self, plane: DataPlane) -> None:
        await self.behind(plane, self.key(), {})
        assert await self.ask_tcp(self.key()) is None

    async def test_established_connections_are_counted_until_they_end(self, plane: DataPlane) -> None:
        a, b = await self.real_server("a"), await self.real_server("b")
        await self.behind(plane, self.key(), {a: 1, b: 0})
        connection = await self.open_tcp(self.key())
        assert await connection.echo() == "a"
        counts = await plane.connections()
        assert (counts[self.key(), a], counts[self.key(), b]) == (1, 0)
        await connection.close()
        async with asyncio.timeout(20):
            while (await plane.connections())[self.key(), a]:
                await asyncio.sleep(0.05)  # the end is on the wire; nothing tells when it has been counted

    async def test_traffic_is_counted(self, plane: DataPlane) -> None:
        a = await self.real_server("a")
        await self.behind(plane, self.key(), {a: 1})
        before = (await plane.traffic()).get(self.key(), TrafficCounters())
        for _ in range(3):
            assert await self.ask_tcp(self.key()) == "a"
        async with asyncio.timeout(20):
            while (now := (await plane.traffic())[self.key()]).connections < before.connections + 3:
                await asyncio.sleep(0.05)  # the kernel sums up every two seconds
        assert now.connections == before.connections + 3
        assert now.bytes_out - before.bytes_out >= 3
        other = self.key(2)
        await self.reach(plane, self.table((self.key(), VirtualServer()), (other, VirtualServer())))
        counted = await plane.traffic()
        assert (set(counted), counted[other]) == ({self.key(), other}, TrafficCounters())
        assert counted[self.key()].connections == now.connections, "what is edited goes on counting"

    async def test_traffic_is_counted_for_each_real_server(self, plane: DataPlane) -> None:
        a, b = await self.real_server("a"), await self.real_server("b")
        key = self.key()
        await self.behind(plane, key, {a: 3, b: 1})
        answers = Counter([await self.ask_tcp(key) for _ in range(8)])
        assert answers == {"a": 6, "b": 2}
        expected = {(key, a): 6, (key, b): 2}
        counted = await self.counted_connections(plane, expected)
        assert all(traffic.bytes_in >= 0 and traffic.bytes_out > 0 for traffic in counted.values())
        await self.behind(plane, key, {a: 1, b: 0})
        assert [await self.ask_tcp(key) for _ in range(2)] == ["a", "a"]
        expected[key, a] = 8
        later = await self.counted_connections(plane, expected)
        assert not any(later[backend].began_again(traffic) for backend, traffic in counted.items())
        await self.behind(plane, key, {a: 1})
        assert set(await plane.endpoint_traffic()) == {(key, a)}
        assert (await self.counted_connections(plane, {(key, a): 8}))[key, a].bytes_out >= later[key, a].bytes_out
        assert (await plane.traffic())[key].connections == 10, "of those that have left, too"

    async def counted_connections(
        self, plane: DataPlane, expected: Mapping[BackendKey, int]
    ) -> Mapping[BackendKey, TrafficCounters]:
        """Wait until so many connections are counted; returns everything that is."""
        async with asyncio.timeout(30):
            while True:
                counted = await plane.endpoint_traffic()
                if {backend: traffic.connections for backend, traffic in counted.items()} == expected:
                    return counted
                await asyncio.sleep(0.05)  # the kernel sums up every two seconds

    async def test_datagrams_are_answered(self, plane: DataPlane) -> None:
        a, b = await self.real_server("a"), await self.real_server("b")
        key = self.key(transport=Transport.UDP)
        await self.behind(plane, key, {a: 1, b: 1})
        assert {await self.ask_udp(key) for _ in range(4)} == {"a", "b"}
        await self.behind(plane, key, {b: 1})
        assert [await self.ask_udp(key) for _ in range(4)] == ["b"] * 4


class Connection(ABC):
    """An open connection through a virtual server."""

    @abstractmethod
    async def echo(self) -> str:
        """Say something; the name of who answers."""

    @abstractmethod
    async def close(self) -> None:
        """End it."""
