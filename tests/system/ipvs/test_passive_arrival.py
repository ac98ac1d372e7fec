"""What the passive check notices under IPVS."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from typing_extensions import override

from mesh.control.arrival_watcher import PassiveSources
from mesh.dataplane import DataPlane
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.passive_arrival_contract import PassiveArrivalContract, read_from
from tests.netns import private_network
from tests.system.ipvs.endpoints import Places


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with private_network():
        places = Places(ipvs=True)
        yield places
        places.close()


@pytest.mark.ipvs
@pytest.mark.timeout(240)
class TestIpvs(PassiveArrivalContract):
    """IPVS takes requests off the filter's path and loses replies; cases 3 and 4 do not happen."""

    cases = (2, 6)

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return IpvsDataPlane(pool, interface, lambda key: ip_address(key.address) not in pool)

    @override
    def sources(self, containers: tuple[Network, ...]) -> PassiveSources:
        return read_from(containers, ipvs=True)
