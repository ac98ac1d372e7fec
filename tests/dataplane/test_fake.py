"""The fake fulfils the contract and has features that only a fake can have."""

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlaneError
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.operations import AddRealServer, AddVirtualServer, Operation
from mesh.model.service import Address, Scheduler, Transport
from mesh.model.table import RealServer, Table, VirtualKey, VirtualServer
from mesh.testing.dataplane import FakeDataPlane
from tests.dataplane.contract import ONE, TWO, DataPlaneContract

KEY = VirtualKey("10.112.0.1", 80, Transport.TCP)


class TestContract(DataPlaneContract):
    @pytest.fixture
    def plane(self) -> FakeDataPlane:
        return FakeDataPlane()

    @override
    def vip(self, number: int) -> Address:
        return f"10.112.0.{number}"


async def test_it_prints_in_the_format_of_ipvsadm() -> None:
    plane = FakeDataPlane()
    udp = VirtualKey("fd00::1", 53, Transport.UDP)
    servers = {
        KEY: VirtualServer(Scheduler.WRR, 60, {TWO: RealServer(0), ONE: RealServer(3)}),
        udp: VirtualServer(Scheduler.RR),
    }
    await plane.apply(diff_tables(Table(), Table(servers)))
    assert plane.dump() == (
        "-A -t 10.112.0.1:80 -s wrr -p 60\n"
        "-a -t 10.112.0.1:80 -r 10.2.0.1:8080 -m -w 3\n"
        "-a -t 10.112.0.1:80 -r 10.2.0.2:8080 -m -w 0\n"
        "-A -u [fd00::1]:53 -s rr\n"
    )


async def test_it_fails_once_on_request() -> None:
    plane = FakeDataPlane()
    plane.fail_next(lambda operation: isinstance(operation, AddRealServer), "table full")
    operations: list[Operation] = [AddVirtualServer(KEY, Scheduler.WRR, 0), AddRealServer(KEY, ONE, RealServer(1))]
    (failure,) = await plane.apply(operations)
    assert (failure.operation, failure.reason.text) == (operations[1], "table full")
    assert not await plane.apply(operations)


async def test_an_unavailable_data_plane_is_an_error_and_never_an_empty_table() -> None:
    plane = FakeDataPlane()
    plane.gone = "unloaded"
    with pytest.raises(DataPlaneError, match="unloaded"):
        await plane.read()
    with pytest.raises(DataPlaneError, match="unloaded"):
        await plane.apply([])
