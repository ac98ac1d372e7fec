"""Source NAT under the nftables data plane, on this kernel."""

import shutil
from collections.abc import Iterator

import pytest

from mesh.dataplane import DataPlane
from mesh.dataplane.nftables import NftablesDataPlane
from mesh.host.interface import MeshInterface
from mesh.host.routes import Network
from tests.dataplane.source_nat_contract import SourceNatContract, Worker
from tests.e2e.programs import CI
from tests.ipvs.places import Places
from tests.netns import private_network


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

    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return NftablesDataPlane(pool, interface)

    @pytest.mark.parametrize("rule", ["ct state", "ct original ip daddr"])
    async def test_the_firewall_of_the_docs(self, lab: Places, worker: Worker, rule: str) -> None:
        await self.lets_through(lab, worker, "forward", rule)
