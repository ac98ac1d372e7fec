"""Which networks are those of the worker's containers."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from mesh.host.networks import LinkRoute, local_networks, read_local_networks
from tests.netns import Namespace, ip, private_network

POOL = ip_network("10.112.0.0/16")


def route(network: str, link: int, kind: str = "bridge", gateway: bool = False) -> LinkRoute:
    return LinkRoute(ip_network(network), link, kind, gateway)


DOCKER, UPLINK = route("172.17.0.0/16", 3), route("192.0.2.0/24", 2, "")


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        pytest.param([DOCKER, UPLINK], ["172.17.0.0/16"], id="a bridge of containers, and hardware"),
        pytest.param(
            [DOCKER, route("192.0.2.0/24", 2), route("0.0.0.0/0", 2, gateway=True)],
            ["172.17.0.0/16"],
            id="a bridge over the uplink is the way out",
        ),
        pytest.param([route("10.2.0.7/32", 5, "veth")], ["10.2.0.7/32"], id="a pair for each container"),
        pytest.param([route("10.9.0.0/24", 6, "vxlan"), route("10.8.0.0/24", 7, "wireguard")], [], id="overlays"),
        pytest.param([route("10.112.0.0/24", 8)], [], id="in the pool"),
        pytest.param([route("fd00::/64", 3), route("fe80::/64", 3)], [], id="the other family"),
        pytest.param([], [], id="none"),
    ],
)
def test_local_networks(routes: list[LinkRoute], expected: list[str]) -> None:
    assert [str(network) for network in local_networks(routes, POOL)] == expected


def test_link_local_ones_are_everywhere_and_so_nowhere() -> None:
    routes = [route("fe80::/64", 3), route("fd00:2::/64", 3)]
    assert local_networks(routes, ip_network("fd00:1::/64")) == (ip_network("fd00:2::/64"),)


@pytest.fixture
def host() -> Iterator[None]:
    with private_network():
        there = Namespace()
        ip(
            "link add br0 type bridge",
            "address add 10.2.0.254/24 dev br0",
            "address add fd00:2::254/64 dev br0 nodad",
            "link set br0 up",
            f"link add up0 type veth peer name peer netns {there.path}",
            "address add 192.0.2.1/24 dev up0",
            "link set up0 up",
            "route add default via 192.0.2.254",
        )
        yield
        there.close()


async def test_those_of_the_kernel(host: None) -> None:
    assert await read_local_networks(POOL) == (ip_network("10.2.0.0/24"),)
    assert await read_local_networks(ip_network("fd00:1::/64")) == (ip_network("fd00:2::/64"),)
