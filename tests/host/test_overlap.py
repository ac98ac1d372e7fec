"""Overlaps of a host's networks with the VIP pool: a table of hosts, and a real one."""

from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from mesh.host.overlap import HostAddress, HostRoute, find_overlaps, read_overlaps, tables_apart
from tests.netns import private_network, run_ip

POOL = "10.112.0.0/16"


def address(text: str, interface: str = "eth0") -> HostAddress:
    return HostAddress(ip_interface(text), interface)


def route(text: str, interface: str = "eth0") -> HostRoute:
    return HostRoute(ip_network(text), interface)


@pytest.mark.parametrize(
    ("pool", "entry", "lines"),
    [
        pytest.param(POOL, address("192.0.2.1/24"), [], id="an address elsewhere"),
        pytest.param(POOL, address("10.112.3.4/24"), ["address 10.112.3.4/24 dev eth0"], id="an address inside"),
        pytest.param(POOL, address("10.1.0.1/8"), ["address 10.1.0.1/8 dev eth0"], id="a network around the pool"),
        pytest.param(POOL, address("10.112.0.1/32", "mesh0"), [], id="our own VIP"),
        pytest.param(POOL, address("fd00::1/64"), [], id="the other IP version"),
        pytest.param(POOL, route("0.0.0.0/0"), [], id="the default route"),
        pytest.param(POOL, route("10.113.0.0/16"), [], id="a neighbouring route"),
        pytest.param(POOL, route("10.112.0.0/24", "eth1"), ["route 10.112.0.0/24 dev eth1"], id="a route inside"),
        pytest.param(POOL, route("10.0.0.0/8"), ["route 10.0.0.0/8 dev eth0"], id="a route around the pool"),
        pytest.param(POOL, route("10.0.0.0/8", ""), ["route 10.0.0.0/8"], id="a route that leads nowhere"),
        pytest.param(POOL, route("10.112.0.0/24", "mesh0"), [], id="a route of our own interface"),
        pytest.param("127.112.0.0/16", address("127.0.0.1/8", "lo"), [], id="loopback in loopback"),
        pytest.param("127.112.0.0/16", route("127.112.0.0/24", "eth1"), ["route 127.112.0.0/24 dev eth1"], id="not lo"),
        pytest.param(POOL, address("10.112.0.9/32", "lo"), ["address 10.112.0.9/32 dev lo"], id="an address on lo"),
        pytest.param("fd00:1::/64", route("::/0"), [], id="IPv6: the default route"),
        pytest.param("fd00:1::/64", route("fd00:1::/80"), ["route fd00:1::/80 dev eth0"], id="IPv6: a route inside"),
    ],
)
def test_overlapping(pool: str, entry: HostAddress | HostRoute, lines: list[str]) -> None:
    addresses = [entry] if isinstance(entry, HostAddress) else []
    routes = [entry] if isinstance(entry, HostRoute) else []

    assert [str(found) for found in find_overlaps(ip_network(pool), "mesh0", addresses, routes)] == lines


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        run_ip(
            "link add eth1 type bridge",
            "link set eth1 up",
            "address add 10.112.3.4/24 dev eth1",
            "address add fd00:1::4/64 dev eth1",
            "route add default via 10.112.3.1",
            "route add blackhole 10.112.9.0/24",
            "route add 10.112.10.0/24 nexthop via 10.112.3.8 nexthop via 10.112.3.9",
            "route add 10.112.20.0/24 dev eth1 table 52",
            "link add mesh0 type bridge",
            "link set mesh0 up",
            "address add 10.112.0.1/32 dev mesh0",
        )
        yield


async def test_a_real_host(network: None) -> None:
    assert sorted(map(str, await read_overlaps(ip_network(POOL)))) == [
        "address 10.112.3.4/24 dev eth1",
        "route 10.112.10.0/24 dev eth1",
        "route 10.112.20.0/24 dev eth1",
        "route 10.112.3.0/24 dev eth1",
        "route 10.112.9.0/24",
    ]
    assert list(map(str, await read_overlaps(ip_network("fd00:1::/64")))) == [
        "address fd00:1::4/64 dev eth1",
        "route fd00:1::/64 dev eth1",
    ]
    assert await read_overlaps(ip_network("127.112.0.0/16")) == []
    assert await read_overlaps(ip_network("10.113.0.0/16")) == []


def test_routes_of_a_vrf_lead_elsewhere() -> None:
    vrf, bridge = ifinfmsg(), ifinfmsg()
    vrf["attrs"] = [
        (
            "IFLA_LINKINFO",
            {"attrs": [("IFLA_INFO_KIND", "vrf"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_VRF_TABLE", 77)]})]},
        )
    ]
    bridge["attrs"] = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": []})]})]
    found = []
    for link in (vrf, bridge, ifinfmsg()):
        link.encode()
        sent = ifinfmsg(link.data)
        sent.decode()
        found.append(sent)

    assert tables_apart(found) == {255, 77}
