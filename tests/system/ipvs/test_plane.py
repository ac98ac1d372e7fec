"""The IPVS data plane against real tables, checked by ipvsadm(8) and ip(8)."""

import logging
import os
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import cast

import pytest
import uvloop

from mesh.dataplane import DataPlaneError
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.plane import IpvsDataPlane, unavailable_reason
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
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Scheduler, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.builders import POOL, WEB_KEY
from tests.netns import run_command, run_ip

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]

NAMES = VirtualKey("10.112.0.8", 53, Transport.UDP)
GONE = VirtualKey("10.112.0.9", 80, Transport.TCP)
PUBLISHED = VirtualKey("10.1.0.1", 30080, Transport.TCP)
B1, B2 = RealKey("10.2.0.1", 8080), RealKey("10.2.0.2", 8080)


def saved() -> list[str]:
    """The whole table as `ipvsadm -Sn` prints it."""
    return sorted(line.strip() for line in run_command("ipvsadm", "-Sn").splitlines())


@pytest.fixture
async def interface(network: None) -> AsyncIterator[MeshInterface]:
    interface = MeshInterface()
    yield interface
    await interface.close()


@pytest.fixture
async def plane(interface: MeshInterface) -> AsyncIterator[IpvsDataPlane]:
    plane = IpvsDataPlane(POOL, interface, published=lambda key: key == PUBLISHED)
    yield plane
    await plane.close()


async def test_ipvsadm_lists_the_programmed_table(plane: IpvsDataPlane) -> None:
    wanted = Table(
        {
            WEB_KEY: VirtualServer(Scheduler.WRR, 0, {B1: RealServer(3), B2: RealServer(0)}),
            NAMES: VirtualServer(Scheduler.SH, 300, {RealKey("10.2.0.1", 53): RealServer(1000)}),
            PUBLISHED: VirtualServer(Scheduler.WLC, 0, {B1: RealServer(1)}),
        },
        frozenset({WEB_KEY.address, NAMES.address}),
    )

    assert await plane.apply(diff_tables(await plane.read(), wanted)) == []

    assert await plane.read() == wanted
    assert saved() == [
        "-A -t 10.1.0.1:30080 -s wlc",
        "-A -t 10.112.0.7:80 -s wrr",
        "-A -u 10.112.0.8:53 -s sh -p 300",
        "-a -t 10.1.0.1:30080 -r 10.2.0.1:8080 -m -w 1",
        "-a -t 10.112.0.7:80 -r 10.2.0.1:8080 -m -w 3",
        "-a -t 10.112.0.7:80 -r 10.2.0.2:8080 -m -w 0",
        "-a -u 10.112.0.8:53 -r 10.2.0.1:53 -m -w 1000",
    ]

    assert await plane.apply(diff_tables(await plane.read(), Table())) == []
    assert saved() == []


async def test_ipv6_is_programmed_alike(interface: MeshInterface) -> None:
    plane = IpvsDataPlane(ip_network("fd00:1::/64"), interface)
    key = VirtualKey("fd00:1::7", 80, Transport.TCP)
    wanted = Table(
        {key: VirtualServer(Scheduler.RR, 60, {RealKey("fd00:2::1", 8080): RealServer(2)})}, frozenset({key.address})
    )

    assert await plane.apply(diff_tables(await plane.read(), wanted)) == []

    assert await plane.read() == wanted
    assert saved() == [
        "-A -t [fd00:1::7]:80 -s rr -p 60",
        "-a -t [fd00:1::7]:80 -r [fd00:2::1]:8080 -m -w 2",
    ]
    await plane.close()


async def test_foreign_virtual_servers_are_neither_read_nor_changed(plane: IpvsDataPlane) -> None:
    run_command("ipvsadm", "-A", "-t", "192.0.2.1:80", "-s", "lc")
    run_command("ipvsadm", "-a", "-t", "192.0.2.1:80", "-r", "10.2.0.9:80", "-g")
    run_command("ipvsadm", "-A", "-f", "77", "-s", "rr")
    foreign = saved()

    assert await plane.read() == Table()
    refused: list[Operation] = [DeleteVirtualServer(VirtualKey("192.0.2.1", 80, Transport.TCP)), BindVip("192.0.2.1")]
    failures = await plane.apply([*refused, AddVirtualServer(WEB_KEY, Scheduler.RR, 0), DeleteVirtualServer(WEB_KEY)])

    assert [failure.operation for failure in failures] == refused
    assert all("outside the VIP pool 10.112.0.0/16" in failure.reason.text for failure in failures)
    assert saved() == foreign


async def test_vips_are_bound_and_unbound_in_order_with_other_operations(plane: IpvsDataPlane) -> None:
    run_ip("link add other type bridge", "address add 10.112.200.1/32 dev other")

    assert await plane.apply([AddVirtualServer(WEB_KEY, Scheduler.RR, 0), BindVip(WEB_KEY.address)]) == []
    assert (await plane.read()).vips == {WEB_KEY.address}
    assert f"{WEB_KEY.address}/32" in run_command("ip", "address", "show", "mesh0")

    assert await plane.apply([UnbindVip(WEB_KEY.address), DeleteVirtualServer(WEB_KEY)]) == []
    assert await plane.read() == Table()
    assert WEB_KEY.address not in run_command("ip", "address")


async def test_each_failure_belongs_to_its_operation_and_the_others_succeed(plane: IpvsDataPlane) -> None:
    unknown = cast(Scheduler, "nosuch")
    broadcast = RealKey("255.255.255.255", 80)
    operations: list[Operation] = [
        AddVirtualServer(GONE, unknown, 0),
        AddRealServer(GONE, B1, RealServer(1)),
        AddVirtualServer(WEB_KEY, Scheduler.RR, 0),
        AddRealServer(WEB_KEY, broadcast, RealServer(1)),
        AddRealServer(WEB_KEY, B1, RealServer(1)),
        EditRealServer(WEB_KEY, B2, RealServer(1)),
        EditVirtualServer(NAMES, Scheduler.RR, 0),
        BindVip(WEB_KEY.address),
    ]

    failures = await plane.apply(operations)

    assert [operations.index(failure.operation) for failure in failures] == [0, 1, 3, 5, 6]
    for failure, words in zip(
        failures,
        (
            "lacks the IPVS scheduler nosuch: `modprobe ip_vs_nosuch`",
            "no virtual server tcp://10.112.0.9:80",
            "cannot send to 255.255.255.255:80: give a unicast address",
            "10.2.0.2:8080 is not behind tcp://10.112.0.7:80",
            "no virtual server udp://10.112.0.8:53",
        ),
        strict=True,
    ):
        assert words in failure.reason.text
    assert await plane.read() == Table(
        {WEB_KEY: VirtualServer(Scheduler.RR, 0, {B1: RealServer(1)})}, frozenset({WEB_KEY.address})
    )


async def test_adding_existing_and_deleting_missing_entries_succeeds(plane: IpvsDataPlane) -> None:
    add: list[Operation] = [
        AddVirtualServer(WEB_KEY, Scheduler.RR, 0),
        AddRealServer(WEB_KEY, B1, RealServer(1)),
        BindVip(WEB_KEY.address),
    ]
    remove: list[Operation] = [UnbindVip(WEB_KEY.address), DeleteRealServer(WEB_KEY, B1), DeleteVirtualServer(WEB_KEY)]

    assert await plane.apply(add + add) == []
    assert saved() == ["-A -t 10.112.0.7:80 -s rr", "-a -t 10.112.0.7:80 -r 10.2.0.1:8080 -m -w 1"]

    other: list[Operation] = [AddVirtualServer(WEB_KEY, Scheduler.WLC, 60), AddRealServer(WEB_KEY, B1, RealServer(5))]
    assert await plane.apply(other) == []
    assert saved() == ["-A -t 10.112.0.7:80 -s wlc -p 60", "-a -t 10.112.0.7:80 -r 10.2.0.1:8080 -m -w 5"]

    assert await plane.apply(remove + remove + [DeleteRealServer(GONE, B1)]) == []
    assert saved() == []


async def test_settings_changed_outside_are_corrected(plane: IpvsDataPlane) -> None:
    same_port = RealKey("10.2.0.1", 80)  # all that ipvsadm lets one tunnel to
    wanted = Table({WEB_KEY: VirtualServer(Scheduler.WRR, 0, {same_port: RealServer(1)})})
    await plane.apply(diff_tables(Table(), wanted))
    run_command("ipvsadm", "-E", "-t", "10.112.0.7:80", "-s", "lblc")
    run_command("ipvsadm", "-e", "-t", "10.112.0.7:80", "-r", "10.2.0.1:80", "-i", "-w", "1")

    operations = diff_tables(await plane.read(), wanted)
    assert operations == (
        EditVirtualServer(WEB_KEY, Scheduler.WRR, 0),
        EditRealServer(WEB_KEY, same_port, RealServer(1)),
    )
    assert await plane.apply(operations) == []

    assert await plane.read() == wanted
    assert saved() == ["-A -t 10.112.0.7:80 -s wrr", "-a -t 10.112.0.7:80 -r 10.2.0.1:80 -m -w 1"]


async def test_idle_connections_are_kept_for_hours(plane: IpvsDataPlane, caplog: pytest.LogCaptureFixture) -> None:
    run_command("ipvsadm", "--set", "900", "111", "222")

    with caplog.at_level(logging.INFO, "vipmesh"):
        await plane.read()

    assert run_command("ipvsadm", "-L", "--timeout").split(":")[1].split() == ["7200", "111", "222"]
    assert caplog.messages == ["IPVS TCP timeout: 7200 s, was 900 s"]


def test_thousands_of_real_servers_under_uvloop(network: None) -> None:
    servers = {
        VirtualKey(f"10.112.{number // 250}.{number % 250 + 1}", 80, Transport.TCP): VirtualServer(
            Scheduler.WRR,
            0,
            {RealKey(f"10.2.{number // 250}.{host + 1}", 8080): RealServer(host + 1) for host in range(10)},
        )
        for number in range(300)
    }
    wanted = Table(servers)

    async def main() -> tuple[Table, Table]:
        interface = MeshInterface()
        plane = IpvsDataPlane(POOL, interface)
        assert await plane.apply(diff_tables(Table(), wanted)) == []
        full = await plane.read()
        assert await plane.apply(diff_tables(full, Table())) == []
        empty = await plane.read()
        await plane.close()
        await interface.close()
        return full, empty

    assert uvloop.run(main()) == (wanted, Table())


async def test_it_is_available_only_to_root(plane: IpvsDataPlane) -> None:
    assert await unavailable_reason() is None

    os.seteuid(65534)
    try:
        reason = await unavailable_reason()
        with pytest.raises(DataPlaneError, match="CAP_NET_ADMIN"):
            await plane.apply([AddVirtualServer(WEB_KEY, Scheduler.RR, 0)])
    finally:
        os.seteuid(0)

    assert reason is not None
    assert "CAP_NET_ADMIN" in reason
    assert await plane.read() == Table()


async def test_a_vip_that_the_kernel_refuses_is_a_failure(plane: IpvsDataPlane) -> None:
    os.seteuid(65534)
    try:
        (failure,) = await plane.apply([BindVip(WEB_KEY.address)])
    finally:
        os.seteuid(0)

    assert failure.operation == BindVip(WEB_KEY.address)
    assert "CAP_NET_ADMIN" in failure.reason.text
