"""Which networks are containers' of this worker: a table of hosts, and real ones."""

from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

import pytest

from mesh.host.networks import Link, container_networks, read
from mesh.host.routes import HostAddress
from tests.netns import Namespace, ip, private_network

CARD = Link("eth0", None)
DOCKER = (Link("docker0", "bridge"), Link("veth1", "veth", "docker0"))


def addresses(**given: str) -> list[HostAddress]:
    return [HostAddress(ip_interface(text), name) for name, several in given.items() for text in several.split()]


@pytest.mark.parametrize(
    ("links", "given", "uplinks", "networks"),
    [
        pytest.param([*DOCKER], {"docker0": "172.17.0.1/16"}, "", "172.17.0.0/16", id="a bridge of containers"),
        pytest.param(
            [*DOCKER[:1]], {"docker0": "172.17.0.1/16"}, "", "172.17.0.0/16", id="one without a container yet"
        ),
        pytest.param(
            [*DOCKER, Link("br-7", "bridge")],
            {"docker0": "172.17.0.1/16", "br-7": "172.18.0.1/16"},
            "",
            "172.17.0.0/16 172.18.0.0/16",
            id="two bridges",
        ),
        pytest.param(
            [*DOCKER],
            {"docker0": "172.17.0.1/16 172.30.0.1/24 fd00:5::1/64"},
            "",
            "172.17.0.0/16 172.30.0.0/24 fd00:5::/64",
            id="several networks on a bridge",
        ),
        pytest.param(
            [Link("virbr0", "bridge"), Link("vnet1", "tun", "virbr0")],
            {"virbr0": "192.168.122.1/24"},
            "",
            "192.168.122.0/24",
            id="virtual machines",
        ),
        pytest.param([CARD], {"eth0": "192.0.2.11/24"}, "eth0", "", id="a network card"),
        pytest.param([CARD], {"eth0": "192.0.2.11/24"}, "", "", id="a network card without a gateway"),
        pytest.param([Link("eth0", "veth")], {"eth0": "192.0.2.11/24"}, "", "", id="a worker that is a container"),
        pytest.param(
            [Link("br0", "bridge"), Link("eth0", None, "br0"), Link("veth1", "veth", "br0")],
            {"br0": "192.0.2.11/24"},
            "",
            "",
            id="a bridge with a network card",
        ),
        pytest.param(
            [Link("br0", "bridge"), Link("vx0", "vxlan", "br0")],
            {"br0": "10.9.0.1/24"},
            "",
            "",
            id="a stretched bridge",
        ),
        pytest.param(
            [Link("br0", "bridge"), Link("eth0", "veth", "br0")], {"br0": "10.9.0.1/24"}, "br0", "", id="with a gateway"
        ),
        pytest.param([*DOCKER], {"docker0": "169.254.1.1/16 fe80::1/64"}, "", "", id="link-local"),
        pytest.param([*DOCKER], {"docker0": "172.17.0.1/32"}, "", "", id="a single address"),
        pytest.param([Link("mesh0", "bridge")], {"mesh0": "10.112.0.7/24"}, "", "", id="our own interface"),
    ],
)
def test_a_network_is_containers_if_its_hosts_can_have_no_other_router(
    links: list[Link], given: dict[str, str], uplinks: str, networks: str
) -> None:
    found = container_networks(links, addresses(**given), frozenset(uplinks.split()), "mesh0")
    assert found == {ip_network(text) for text in networks.split()}


@pytest.fixture
def bridge() -> Iterator[None]:
    """A host with a bridge of containers, and an uplink."""
    with private_network():
        container = Namespace()
        ip(
            "link add br0 type bridge",
            f"link add v0 type veth peer name e0 netns {container.path}",
            "link set v0 master br0 up",
            "address add 10.2.0.254/24 dev br0",
            "address add fd00:2::1/64 dev br0",
            "link set br0 up",
            "link add u0 type veth peer name u1",
            "address add 192.0.2.11/24 dev u0",
            "link set u0 up",
            "link set u1 up",
            "route add default via 192.0.2.1",
        )
        yield
        container.close()


OURS = {ip_network("10.2.0.0/24"), ip_network("fd00:2::/64")}


@pytest.mark.parametrize(
    ("commands", "networks"),
    [
        pytest.param([], OURS, id="as it is"),
        pytest.param(["route add 10.9.0.0/16 via 10.2.0.7"], set(), id="a gateway on it"),
        pytest.param(["route add 10.9.0.0/16 via inet6 fd00:2::7"], set(), id="a gateway of the other family"),
        pytest.param(["route add fd00:9::/64 via fd00:2::7"], set(), id="a gateway for IPv6"),
        pytest.param(["route add 10.9.0.0/16 via 10.2.0.7 table 100"], set(), id="a gateway in another table"),
        pytest.param(
            ["route add 10.9.0.0/16 nexthop via 192.0.2.9 nexthop via 10.2.0.7"], set(), id="one of several gateways"
        ),
        pytest.param(["route add 10.9.0.0/16 dev br0"], OURS, id="a route without a gateway"),
        pytest.param(["link set u0 master br0"], OURS, id="another virtual link"),
        pytest.param(["link add x0 type vxlan id 7 dstport 4789", "link set x0 master br0"], set(), id="a tunnel"),
    ],
)
async def test_a_real_host(bridge: None, commands: list[str], networks: set[object]) -> None:
    ip(*commands)
    assert await read() == networks


async def test_the_interface_of_vips_is_none_of_containers(bridge: None) -> None:
    assert await read(own_interface="br0") == frozenset()
