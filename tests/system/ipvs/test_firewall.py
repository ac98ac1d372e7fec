"""The opening of a firewall under IPVS."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.firewall_contract import FirewallContract, Networks
from tests.netns import private_network


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    with private_network():
        networks = Networks(ipvs=True)
        yield networks
        networks.close()


@pytest.mark.ipvs
@pytest.mark.timeout(180)
class TestIpvs(FirewallContract):
    """Requests end at this host, where IPVS takes them; replies are forwarded."""

    takes_input = True

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return IpvsDataPlane(pool, interface, lambda key: ip_address(key.address) not in pool)
