"""Source NAT under the nftables data plane, on this kernel."""

import shutil
from collections.abc import Iterator

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane
from mesh.dataplane.nftables import NftablesDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.masquerade_contract import SourceNatContract, Worker
from tests.netns import private_network
from tests.system.e2e.programs import CI
from tests.system.ipvs.endpoints import TO_PUBLISHED, TO_VIP, Places, Where


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        places = Places(ipvs=False)
        yield places
        places.close()


class TestNftables(SourceNatContract):
    """What it forwards is forwarded from the start."""

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return NftablesDataPlane(pool, interface)

    @pytest.mark.parametrize(
        ("rule", "needed_for"),
        [
            pytest.param(("forward", '"nftables: VIPs"'), TO_VIP, id="vip"),
            pytest.param(("forward", '"nftables: published ports"'), TO_PUBLISHED, id="published"),
        ],
    )
    async def test_the_firewall_of_the_docs(
        self, lab: Places, worker: Worker, rule: tuple[str, str], needed_for: Where
    ) -> None:
        await self.lets_through(lab, worker, rule, needed_for)
