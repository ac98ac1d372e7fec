"""Networks of the worker's containers."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from mesh.host.local_networks import LinkRoute, NetworkLink, local_networks, read_local_networks
from tests.builders import POOL
from tests.netns import Namespace, private_network, run_ip

POOL_6 = ip_network("fd00:1::/64")
CARD, DOCKER, CONTAINER, OVERLAY = NetworkLink(""), NetworkLink("bridge"), NetworkLink("veth", 3), NetworkLink("vxlan")


def route(network: str, link: int, gateway: bool = False) -> LinkRoute:
    return LinkRoute(ip_network(network), link, gateway)


HERE = route("172.17.0.0/16", 3)


@pytest.mark.parametrize(
    ("links", "routes", "expected"),
    [
        pytest.param({2: CARD, 3: DOCKER}, [HERE, route("192.0.2.0/24", 2)], ["172.17.0.0/16"], id="bridge, hardware"),
        pytest.param({3: DOCKER, 4: CONTAINER}, [HERE], ["172.17.0.0/16"], id="a bridge with a container"),
        pytest.param(
            {3: DOCKER, 4: NetworkLink("tun", 3)}, [HERE], ["172.17.0.0/16"], id="a bridge with a virtual machine"
        ),
        pytest.param({3: DOCKER, 4: CONTAINER, 5: NetworkLink("", 3)}, [HERE], [], id="a bridge with a network card"),
        pytest.param({3: DOCKER, 5: NetworkLink("vlan", 3)}, [HERE], [], id="a bridge with a VLAN"),
        pytest.param({3: DOCKER, 5: NetworkLink("vxlan", 3)}, [HERE], [], id="a bridge with a tunnel"),
        pytest.param(
            {3: DOCKER, 6: DOCKER, 5: NetworkLink("", 6)},
            [HERE, route("192.0.2.0/24", 6)],
            ["172.17.0.0/16"],
            id="another bridge with a network card",
        ),
        pytest.param({3: DOCKER}, [HERE, route("0.0.0.0/0", 3, gateway=True)], [], id="the way out"),
        pytest.param({3: DOCKER}, [HERE, route("10.3.0.0/24", 3, gateway=True)], [], id="the way to another worker"),
        pytest.param({3: DOCKER}, [HERE, route("::/0", 3, gateway=True)], [], id="the way out of the other family"),
        pytest.param(
            {5: NetworkLink("veth")}, [route("10.2.0.7/32", 5)], ["10.2.0.7/32"], id="a pair for each container"
        ),
        pytest.param({5: NetworkLink("veth")}, [route("10.7.0.0/24", 5)], [], id="a worker that is a container"),
        pytest.param(
            {6: OVERLAY, 7: NetworkLink("wireguard")},
            [route("10.9.0.0/24", 6), route("10.8.0.0/24", 7)],
            [],
            id="overlays",
        ),
        pytest.param({8: DOCKER}, [route("10.112.0.0/24", 8)], [], id="in the pool"),
        pytest.param({3: DOCKER}, [route("fd00::/64", 3), route("fe80::/64", 3)], [], id="the other family"),
        pytest.param({}, [HERE], [], id="a link that has just gone"),
        pytest.param({}, [], [], id="none"),
    ],
)
def test_local_networks(links: dict[int, NetworkLink], routes: list[LinkRoute], expected: list[str]) -> None:
    assert [str(network) for network in local_networks(links, routes, POOL)] == expected


def test_link_local_networks_are_left_out() -> None:
    routes = [route("fe80::/64", 3), route("fd00:2::/64", 3)]
    assert local_networks({3: DOCKER}, routes, POOL_6) == (ip_network("fd00:2::/64"),)


@pytest.fixture
def host() -> Iterator[None]:
    with private_network():
        there = Namespace()
        run_ip(
            "link add br0 type bridge",
            "address add 10.2.0.254/24 dev br0",
            "address add fd00:2::254/64 dev br0 nodad",
            f"link add v0 type veth peer name e0 netns {there.path}",
            "link set v0 master br0 up",
            "link set br0 up",
            f"link add up0 type veth peer name peer netns {there.path}",
            "address add 192.0.2.1/24 dev up0",
            "link set up0 up",
            "route add default via 192.0.2.254",
        )
        yield
        there.close()


OURS = ("10.2.0.0/24", "fd00:2::/64")


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        pytest.param([], OURS, id="as it is"),
        pytest.param(["route add 10.9.0.0/16 via 10.2.0.7"], (), id="a gateway"),
        pytest.param(["route add fd00:9::/64 via fd00:2::7"], (), id="a gateway for IPv6"),
        pytest.param(["route add 10.9.0.0/16 via inet6 fd00:2::7"], (), id="a gateway of the other family"),
        pytest.param(["route add 10.9.0.0/16 via 10.2.0.7 table 100"], (), id="a gateway of another table"),
        pytest.param(
            ["route add 10.9.0.0/16 nexthop via 192.0.2.9 nexthop via 10.2.0.7"], (), id="the second of two gateways"
        ),
        pytest.param(
            ["link add x0 type vxlan id 7 dstport 4789", "link set x0 master br0"], (), id="a tunnel as a port"
        ),
        pytest.param(["route add 10.9.0.0/24 dev br0 table 100"], OURS, id="a network of another table"),
        pytest.param(
            [
                "link add p0 type veth peer name p1",
                "address add 10.7.0.1/24 dev p0",
                "link set p0 up",
                "link set p1 up",
            ],
            OURS,
            id="a second network between workers, without a gateway",
        ),
    ],
)
async def test_they_are_read_from_the_kernel(host: None, commands: list[str], expected: tuple[str, ...]) -> None:
    run_ip(*commands)
    assert tuple(map(str, (*await read_local_networks(POOL), *await read_local_networks(POOL_6)))) == expected
