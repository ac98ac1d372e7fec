"""Source NAT under IPVS, every path."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.overlap import Network
from mesh.host.vip_interface import MeshInterface
from tests.dataplane.masquerade_contract import SourceNatContract, Worker
from tests.netns import private_network
from tests.system.ipvs.endpoints import TO_PUBLISHED, TO_VIP, Places, Where


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

    @override
    def plane(self, pool: Network, interface: MeshInterface) -> DataPlane:
        return IpvsDataPlane(pool, interface, lambda key: ip_address(key.address) not in pool)

    @pytest.mark.parametrize(
        ("rule", "needed_for"),
        [
            pytest.param(("input", '"VIPs"'), TO_VIP, id="request"),
            pytest.param(("output", '"VIPs"'), TO_VIP, id="request with its new destination"),
            pytest.param(("output", '"published ports"'), TO_PUBLISHED, id="the same to a published port"),
            pytest.param(("forward", "ct state"), TO_PUBLISHED, id="reply"),
        ],
    )
    async def test_the_firewall_of_the_docs(
        self, lab: Places, worker: Worker, rule: tuple[str, str], needed_for: Where
    ) -> None:
        await self.lets_through(lab, worker, rule, needed_for)
