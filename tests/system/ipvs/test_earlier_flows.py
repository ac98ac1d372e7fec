"""Connections that began before the present state, under IPVS."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.earlier_flows_contract import IN_TIME, EarlierFlowsContract
from tests.netns import private_network
from tests.system.ipvs.endpoints import Places


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with private_network():
        places = Places(ipvs=True)
        yield places
        places.close()


@pytest.mark.ipvs
@pytest.mark.timeout(180)
class TestIpvs(EarlierFlowsContract):
    attempts = 4  # on an emulated processor that moment lasts long enough to be hit
    in_time = 5 * IN_TIME  # on an emulated processor, and TCP repeats a packet after 1, 3, 7 and 15 s

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return IpvsDataPlane(pool, interface, lambda key: ip_address(key.address) not in pool)
