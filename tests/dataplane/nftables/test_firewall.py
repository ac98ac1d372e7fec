"""The opening of a firewall under nftables."""

from collections.abc import Iterator

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane
from mesh.dataplane.nftables.plane import NftablesDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.firewall_contract import FirewallContract, Networks
from tests.netns import private_network


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    with private_network():
        networks = Networks(ipvs=False)
        yield networks
        networks.close()


class TestNftables(FirewallContract):
    """Requests are forwarded with their new destination."""

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return NftablesDataPlane(pool, interface)
