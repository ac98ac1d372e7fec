"""What the facts of a host mean: each problem with its code, and a remedy that fits this host."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from mesh.host.certificates import CertificateFacts
from mesh.host.facts import ConntrackRoom, HostFacts
from mesh.host.host_problems import HostNeeds, host_problems, occupied_networks, withheld_vips
from mesh.host.overlap import HostAddress, HostRoute
from mesh.model.codes import Code
from mesh.model.engine_facts import AttachedContainer, EngineFacts, EngineNetwork
from mesh.model.service import Transport

POOL = ip_network("10.112.0.0/16")
NEEDS = HostNeeds(pool=POOL, data_plane="ipvs", publish=range(30000, 32768))
HOST = HostFacts(
    routes=(HostRoute(ip_network("0.0.0.0/0"), "eth0"), HostRoute(ip_network("192.0.2.0/24"), "eth0")),
    addresses=(HostAddress(ip_interface("192.0.2.1/24"), "eth0"), HostAddress(ip_interface("10.112.0.9/32"), "mesh0")),
    local_ports=range(32768, 61000),
)


def route(text: str, interface: str = "br-1") -> HostRoute:
    return HostRoute(ip_network(text), interface)


def network(name: str, *subnets: str) -> EngineNetwork:
    return EngineNetwork(name, tuple(map(ip_network, subnets)))


def with_routes(*routes: str) -> HostFacts:
    return replace(HOST, routes=(*HOST.routes, *map(route, routes)))


def with_certificate(days: float) -> HostFacts:
    return replace(HOST, certificates=(CertificateFacts("/etc/vipmesh/w1.pem", "2026-12-24", days * 86400),))


CASES: list[tuple[str, HostFacts, HostNeeds, list[tuple[Code, str, str]]]] = [
    ("a certificate with more than 30 days left", with_certificate(30.1), NEEDS, []),
    (
        "a certificate that ends soon",
        with_certificate(29.9),
        NEEDS,
        [(Code.CERTIFICATE_ENDS, "it ends on 2026-12-24", "vipmesh cluster certs")],
    ),
    (
        "a certificate that has ended",
        with_certificate(-0.1),
        NEEDS,
        [(Code.CERTIFICATE_ENDS, "it ended on 2026-12-24", "vipmesh cluster certs")],
    ),
    ("a certificate that cannot be read", replace(HOST, certificates=(CertificateFacts("w1.pem"),)), NEEDS, []),
    ("a host as it should be", replace(HOST, engine=EngineFacts(live_restore=True)), NEEDS, []),
    ("nothing is known", HostFacts(), NEEDS, []),
    (
        "a route in the pool",
        with_routes("10.112.5.0/24"),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "route 10.112.5.0/24 dev br-1 of this host", 'pool = "10.113.0.0/16"')],
    ),
    (
        "the next networks are used as well",
        with_routes("10.112.5.0/24", "10.113.0.0/24", "10.114.0.0/15"),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "route 10.112.5.0/24 dev br-1 of this host", 'pool = "10.116.0.0/16"')],
    ),
    (
        "a bridge network of the engine is named once, and the way to remove it",
        replace(
            HOST,
            routes=(route("10.112.0.0/16"),),
            addresses=(HostAddress(ip_interface("10.112.0.1/16"), "br-1"),),
            engine=EngineFacts(live_restore=True, networks=(network("shop_default", "10.112.0.0/16"),)),
        ),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "overlaps docker network shop_default 10.112.0.0/16 of", "`docker network rm shop_")],
    ),
    (
        "a network of the engine without a route here",
        replace(HOST, engine=EngineFacts(is_podman=True, networks=(network("lan", "fd00::/64", "10.112.7.0/24"),))),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "podman network lan 10.112.7.0/24", "remove it (`podman network rm lan`), or set")],
    ),
    (
        "a pool that is proposed is not one from which the engine takes new networks",
        replace(
            with_routes("10.112.0.0/16"),
            engine=EngineFacts(live_restore=True, address_pools=(ip_network("10.112.0.0/12"),)),
        ),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "route 10.112.0.0/16", 'pool = "10.128.0.0/16"')],
    ),
    (
        "no private network is free",
        with_routes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "route 10.0.0.0/8", "remove what overlaps: no private network of 256 addresses")],
    ),
    (
        "many overlaps are counted",
        with_routes(*(f"10.112.{n}.0/24" for n in range(20))),
        NEEDS,
        [(Code.VIP_POOL_OVERLAPS, "route 10.112.3.0/24 dev br-1 and 16 more of this host", "10.113.0.0/16")],
    ),
    ("an IPv6 pool beside an IPv4 route", HOST, replace(NEEDS, pool=ip_network("fd00:1::/64")), []),
    (
        "a route in an IPv6 pool",
        replace(HOST, routes=(route("fd00:1::/80"),)),
        replace(NEEDS, pool=ip_network("fd00:1::/64")),
        [(Code.VIP_POOL_OVERLAPS, "route fd00:1::/80", 'pool = "fd76:6970:6d00::/64"')],
    ),
    (
        "a pool on loopback",
        replace(HOST, addresses=(HostAddress(ip_interface("127.0.0.1/8"), "lo"),), routes=(route("127.112.1.0/24"),)),
        replace(NEEDS, pool=ip_network("127.112.0.0/16"), data_plane="userspace"),
        [(Code.VIP_POOL_OVERLAPS, "route 127.112.1.0/24", 'pool = "127.113.0.0/16"')],
    ),
    (
        "the range of published ports",
        replace(
            HOST,
            local_ports=range(32000, 61000),
            reserved_ports=frozenset([20007]),
            listening=frozenset([(Transport.TCP, 20005)]),
        ),
        NEEDS,
        [
            (
                Code.OUTGOING_PORTS,
                "overlap the ports of outgoing connections, 32000-60999",
                'or set [publish] ports = "20008-22775", which are free here',
            )
        ],
    ),
    (
        "published ports of labels",
        HOST,
        replace(
            NEEDS,
            published={
                (Transport.TCP, 40000): "web.test",
                (Transport.UDP, 40001): "web.test",
                (Transport.TCP, 80): "a",
            },
        ),
        [(Code.OUTGOING_PORTS, "published port 40000-40001 is among", "ip_local_reserved_ports = 40000-40001'")],
    ),
    (
        "published ports that are reserved",
        replace(HOST, reserved_ports=frozenset([40000])),
        replace(NEEDS, published={(Transport.TCP, 40000): "web.test"}),
        [],
    ),
    (
        "reserved ports that exist stay reserved",
        replace(HOST, reserved_ports=frozenset([1234])),
        replace(NEEDS, published={(Transport.TCP, 40000): "web.test"}),
        [(Code.OUTGOING_PORTS, "published port 40000 is", "sysctl -w 'net.ipv4.ip_local_reserved_ports = 1234,40000'")],
    ),
    (
        "another data plane than IPVS",
        HOST,
        replace(NEEDS, data_plane="nftables", published={(Transport.TCP, 40000): "web.test"}),
        [],
    ),
]

BOTH = AttachedContainer("web-1", ("10.1.0.2", "10.2.0.2", "fd00::2"))
ON_BOTH = replace(
    HOST,
    routes=(*HOST.routes, route("10.0.0.0/14", "eth1"), route("10.1.0.0/16", "br-a"), route("10.2.0.0/16", "br-b")),
    engine=EngineFacts(
        on_several_networks=(BOTH,), networks=(network("a", "10.1.0.0/16"), network("b", "10.2.0.0/16"))
    ),
    bridge_filtering=True,
)
UNMASQUERADED = EngineFacts(
    on_several_networks=(BOTH,), networks=(EngineNetwork("b", (ip_network("10.2.0.0/16"),), masquerades=False),)
)
IPV6 = replace(NEEDS, pool=ip_network("fd00:1::/64"))
DIRECT = replace(NEEDS, routes_to_containers=True)
CASES += [
    (
        "a container on two networks, strict filtering",
        replace(ON_BOTH, rp_filter={"br-a": 1, "br-b": 2, "eth0": 1}),
        NEEDS,
        [(Code.REVERSE_PATH_FILTER, "it is on br-a, br-b, and rp_filter of br-a is 1", "conf.all.rp_filter=2`")],
    ),
    ("a container on two networks, loose filtering", replace(ON_BOTH, rp_filter={"br-a": 2, "br-b": 0}), NEEDS, []),
    (
        "strict filtering, and the proxy in user space",
        replace(ON_BOTH, rp_filter={"br-a": 1, "br-b": 1}),
        replace(NEEDS, data_plane="userspace"),
        [],
    ),
    (
        "strict filtering where both addresses are behind one interface",
        replace(ON_BOTH, routes=(route("10.0.0.0/14", "br-a"),), rp_filter={"br-a": 1}),
        NEEDS,
        [],
    ),
    ("IPv6 has no reverse path filter", replace(ON_BOTH, rp_filter={"br-a": 1, "br-b": 1}), IPV6, []),
    (
        "a container on two networks whose engine does not rewrite sources, without br_netfilter",
        replace(ON_BOTH, engine=UNMASQUERADED, bridge_filtering=None),
        NEEDS,
        [(Code.BRIDGE_FILTERING, "bridged packets are not tracked", "modprobe br_netfilter && sysctl -w net.bridge.")],
    ),
    ("the same with br_netfilter", replace(ON_BOTH, engine=UNMASQUERADED), NEEDS, []),
    ("the engine rewrites sources", replace(ON_BOTH, bridge_filtering=False), NEEDS, []),
    ("conntrack has room", replace(HOST, conntrack=ConntrackRoom(799, 1000)), NEEDS, []),
    (
        "conntrack is nearly full",
        replace(HOST, conntrack=ConntrackRoom(800, 1000)),
        NEEDS,
        [(Code.CONNTRACK_FULL, "more than 80% of its 1000 entries", "'net.netfilter.nf_conntrack_max = 2000'")],
    ),
    (
        "conntrack is full",
        replace(HOST, conntrack=ConntrackRoom(1000, 1000)),
        NEEDS,
        [(Code.CONNTRACK_FULL, "more than 95% of its 1000 entries", "'net.netfilter.nf_conntrack_max = 2000'")],
    ),
    (
        "conntrack is full, and the proxy in user space",
        replace(HOST, conntrack=ConntrackRoom(1000, 1000)),
        replace(NEEDS, data_plane="userspace"),
        [],
    ),
    (
        "live-restore is off",
        replace(HOST, engine=EngineFacts("20.10.24", live_restore=False)),
        NEEDS,
        [(Code.ENGINE_RESTART, "live-restore is off", 'write "live-restore": true to /etc/docker/daemon.json')],
    ),
    ("live-restore is unknown", replace(HOST, engine=EngineFacts("20.10.24")), NEEDS, []),
    ("swarm mode excludes it", replace(HOST, engine=EngineFacts(live_restore=False, in_swarm=True)), NEEDS, []),
    ("Podman needs none", replace(HOST, engine=EngineFacts(live_restore=False, is_podman=True)), NEEDS, []),
    (
        "Docker 28 and other workers that send to containers",
        replace(HOST, engine=EngineFacts("28.5.2", live_restore=True)),
        DIRECT,
        [(Code.ENGINE_FIREWALL, "drops what other workers send", '"allow-direct-routing": true')],
    ),
    ("Docker 27 drops nothing", replace(HOST, engine=EngineFacts("27.5.1", live_restore=True)), DIRECT, []),
    ("nobody sends to containers", replace(HOST, engine=EngineFacts("28.5.2", live_restore=True)), NEEDS, []),
    ("a version without a number", replace(HOST, engine=EngineFacts("dev", live_restore=True)), DIRECT, []),
]


@pytest.mark.parametrize(("facts", "needs", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_fact_has_its_problem_and_remedy(
    facts: HostFacts, needs: HostNeeds, expected: list[tuple[Code, str, str]]
) -> None:
    found = host_problems(facts, needs)
    assert [problem.code for problem in found] == [code for code, _, _ in expected]
    for problem, (_, reason, remedy) in zip(found, expected, strict=True):
        assert reason in problem.reason
        assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("bound", "withheld"),
    [(set(), {"10.112.5.1", "10.112.5.2"}), ({"10.112.5.1"}, {"10.112.5.2"}), ({"10.112.5.1", "10.112.5.2"}, set())],
)
def test_only_vips_that_are_not_bound_yet_are_withheld(bound: set[str], withheld: set[str]) -> None:
    occupied = occupied_networks(with_routes("10.112.5.0/24"), POOL)
    assert withheld_vips(["10.112.4.1", "10.112.5.1", "10.112.5.2"], occupied, bound) == withheld


def test_a_network_without_a_route_on_this_host_withholds_nothing() -> None:
    facts: Any = replace(HOST, engine=EngineFacts(networks=(network("lan", "10.112.0.0/16"),)))
    assert occupied_networks(facts, POOL) == ()


def test_a_problem_keeps_its_text_while_it_holds() -> None:
    """The log has a problem once; a number that changes would be another problem."""
    texts = {str(host_problems(replace(HOST, conntrack=ConntrackRoom(n, 1000)), NEEDS)) for n in range(800, 950)}
    assert len(texts) == 1


def test_every_case_of_a_problem_exists() -> None:
    about = {code for _, _, _, expected in CASES for code, _, _ in expected}
    assert {code.value for code in about} == {"VM350", "VM657", *(f"VM{number}" for number in range(592, 598))}
