"""Connections that began before the present state, under the nftables data plane on this kernel."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from typing_extensions import override

from mesh.config.settings import parse_settings
from mesh.control.handover import NftablesHandover
from mesh.daemon.cleanup import teardown
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.conntrack.socket import NetfilterSocket
from mesh.dataplane.conntrack.stale import OwnKeys
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import NftablesDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from mesh.model.codes import Code
from mesh.model.table import Table
from tests.builders import POOL
from tests.dataplane.earlier_flows_contract import (
    DATAGRAM,
    STREAM,
    EarlierFlowsContract,
    EarlierWorker,
    begun,
    table_of,
)
from tests.dataplane.masquerade_contract import CLAIMS
from tests.netns import private_network, run_command
from tests.system.e2e.programs import CI
from tests.system.ipvs.endpoints import ADDRESSES, CLIENT, TO_VIP, A, Places


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        places = Places(ipvs=False)
        yield places
        places.close()


class TestNftables(EarlierFlowsContract):
    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return NftablesDataPlane(pool, interface)

    @pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])
    @pytest.mark.parametrize(
        "broken",
        [
            pytest.param("flush ruleset", id="all"),
            pytest.param("flush chain ip vipmesh_lb prerouting", id="the way in"),
            pytest.param("flush map ip vipmesh_lb services", id="the map"),
        ],
    )
    async def test_a_flow_that_began_while_the_rules_were_broken(
        self, lab: Places, worker: EarlierWorker, broken: str, kind: socket.SocketKind
    ) -> None:
        table = table_of((TO_VIP, (A,)))
        await worker.want(table)
        # Packets that are not translated must vanish instead of being refused by this host.
        await worker.plane.apply(diff_tables(table, Table(table.virtual_servers)))
        run_command("nft", broken)
        async with begun(lab, CLIENT, TO_VIP, kind) as flow:
            await worker.want(table)
            assert await flow.answer(self.in_time) == CLIENT

    async def test_what_could_not_be_deleted_is_deleted_by_the_next_audit(
        self, lab: Places, worker: EarlierWorker
    ) -> None:
        async with begun(lab, CLIENT, TO_VIP, DATAGRAM) as flow:
            failure = DataPlaneError(Code.NETLINK_FAILED, "netfilter did not answer within 10 s: look into `dmesg`")
            with patch.object(NetfilterSocket, "entries", side_effect=failure), pytest.raises(DataPlaneError):
                await worker.want(table_of((TO_VIP, (A,))))
            with pytest.raises(TimeoutError):
                await flow.answer(1.0)
            await worker.want(table_of((TO_VIP, (A,))))
            assert await flow.answer(self.in_time) == CLIENT

    async def test_a_handover_to_another_data_plane_leads_no_flow_to_the_next_owner(
        self, lab: Places, worker: EarlierWorker
    ) -> None:
        await worker.want(table_of((TO_VIP, (A,))))
        taken_over: list[bool] = []
        handover = NftablesHandover(lambda: bool(taken_over), worker.tracked, OwnKeys(POOL, lambda _: False))
        async with begun(lab, CLIENT, TO_VIP, DATAGRAM) as flow, begun(lab, CLIENT, TO_VIP, STREAM) as established:
            assert await flow.answer(self.in_time) == CLIENT
            await handover.repair(ADDRESSES, CLAIMS)
            assert await flow.answer(self.in_time) == CLIENT, "nothing is removed before the other one is there"
            taken_over.append(True)
            await handover.repair(ADDRESSES, CLAIMS)
            assert await established.answer(self.in_time) == CLIENT, "conntrack knows where it was led"
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                await flow.answer(1.0)

    async def test_after_teardown_no_flow_is_led_to_the_next_owner(
        self, lab: Places, worker: EarlierWorker, tmp_path: Path
    ) -> None:
        await worker.want(table_of((TO_VIP, (A,))))
        written = f'[vip]\npool = "{POOL}"\n[store]\nurl = "sqlite:///{tmp_path}/store.db"\n'
        async with begun(lab, CLIENT, TO_VIP, DATAGRAM) as flow:
            assert await flow.answer(self.in_time) == CLIENT
            removed, failed = await teardown(parse_settings(written, {}, hostname="w1"))
            assert "delete nftables table ip vipmesh_lb" in removed
            assert failed == []
            with pytest.raises(TimeoutError):
                await flow.answer(1.0)
