"""What the passive check notices under the nftables data plane, on this kernel."""

import shutil
from collections.abc import Iterator

import pytest
from typing_extensions import override

from mesh.control.arrival_watcher import PassiveSources
from mesh.dataplane import DataPlane
from mesh.dataplane.nftables import NftablesDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.passive_arrival_contract import PassiveArrivalContract, read_from
from tests.netns import private_network
from tests.system.e2e.programs import CI
from tests.system.ipvs.endpoints import Places


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        places = Places(ipvs=False)
        yield places
        places.close()


class TestNftables(PassiveArrivalContract):
    """A filter that drops a request leaves nothing in connection tracking: requests are counted."""

    cases = (1, 2, 3, 4, 5)

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return NftablesDataPlane(pool, interface)

    @override
    def sources(self, containers: tuple[Network, ...]) -> PassiveSources:
        return read_from(containers, ipvs=False)
