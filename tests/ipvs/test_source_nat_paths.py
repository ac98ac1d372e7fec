"""Source NAT under IPVS, every path."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from mesh.dataplane import DataPlane
from mesh.dataplane.ipvs.driver import IpvsDataPlane
from mesh.host.interface import MeshInterface
from mesh.host.routes import Network
from tests.dataplane.source_nat_contract import SourceNatContract, Worker
from tests.ipvs.places import Places
from tests.netns import private_network


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with private_network():
        places = Places(ipvs=True)
        yield places
        places.close()


@pytest.mark.ipvs
@pytest.mark.timeout(180)
class TestIpvs(SourceNatContract):
    """Requests end at this host, where IPVS takes them; replies are forwarded."""

    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return IpvsDataPlane(pool, interface, lambda key: ip_address(key.address) not in pool)

    @pytest.mark.parametrize(
        ("chain", "rule"),
        [("input", "ip daddr 10.112.0.0/16"), ("output", "ct original ip daddr"), ("forward", "ct state")],
    )
    async def test_the_firewall_of_the_docs(self, lab: Places, worker: Worker, chain: str, rule: str) -> None:
        await self.lets_through(lab, worker, chain, rule)
