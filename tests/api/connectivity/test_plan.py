"""Which requests a connectivity test sends, from the snapshot of a worker."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mesh.api.connectivity.plan import (
    DNS_PAYLOAD,
    PROXY_LINGER,
    ConnectivityPlan,
    PeerAddress,
    PlanFacts,
    TargetKind,
    make_connectivity_plan,
    published_address,
    udp_payload,
)
from mesh.control.planner import make_plan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health, PortPublication, Route, Service, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from tests.builders import TCP_PROBE, endpoint, service

TCP, UDP, SCTP = Transport.TCP, Transport.UDP, Transport.SCTP
OWN = "192.0.2.11"
WEB = Service(
    "demo/web",
    "web.test",
    (Route("web.test", 80, TCP, 8080), Route("www.test", 80, TCP, 8080), Route("web.test", 9, SCTP, 9)),
    (PortPublication(8080, TCP, 30080),),
)
DNS = service("dns.test", listen_port=53, transport=UDP, owner="demo/dns")
LOST = service("lost.test", owner="demo/lost", probe=TCP_PROBE)
CLAIMS = Claims(
    {"web.test": "10.112.0.7", "dns.test": "10.112.0.8", "lost.test": "10.112.0.9"},
    {"web.test": "demo/web", "www.test": "demo/web", "dns.test": "demo/dns", "lost.test": "demo/lost"},
    {(TCP, 30080): ("web.test", 8080)},
)
VIEW = ClusterView(
    (DNS, LOST, WEB),
    (endpoint("d", owner="demo/dns", address="10.2.0.2"), endpoint("l", owner="demo/lost"), endpoint("w")),
    CLAIMS,
    health={("w1", "l"): Health.UNHEALTHY},
    workers=frozenset({"w1", "w2", "w3"}),
)
FACTS = PlanFacts(
    "10.112.0.0/16",
    "unix:///run/docker.sock",
    "10.112.0.1",
    {"w2": RealKey("192.0.2.12", 9781)},
    OWN,
    lambda key: (key.address, key.port),
)


def planned(
    owners: set[str] | None = None,
    plane: str = "nftables",
    facts: PlanFacts = FACTS,
    view: ClusterView | None = VIEW,
) -> ConnectivityPlan:
    plan = None if view is None else make_plan(view, view.health, ["10.2.0.254", OWN, "172.17.0.1"])
    probed: Mapping[tuple[str, str], Health] = {} if view is None else view.health
    observed = WorkerSnapshot(WorkerFacts("1", "w1", plane, "a test"), view, None, probed, plan=plan)
    return make_connectivity_plan(DetailedSnapshot(observed, "mesh.internal"), facts, owners)


def test_each_vip_and_published_port_is_asked_by_address_and_by_name() -> None:
    found = [(t.destination, t.kind, t.worker) for t in planned({"demo/web"}).targets]
    vip, published = TargetKind.VIP, TargetKind.PUBLISHED
    assert found == [
        ("tcp://10.112.0.7:80", vip, None),
        ("tcp://web.test:80", vip, None),
        ("tcp://www.test:80", vip, None),
        (f"tcp://{OWN}:30080", published, "w1"),
        ("tcp://w1:30080", published, "w1"),
        ("tcp://192.0.2.12:30080", published, "w2"),
    ]


def test_all_services_are_tested_unless_some_are_asked_for() -> None:
    assert {target.owner for target in planned().targets} == {"demo/web", "demo/dns", "demo/lost"}
    assert planned(set()).targets == ()
    assert planned(view=None).targets == ()


def test_a_service_without_a_healthy_endpoint_is_known_as_such() -> None:
    assert {target.service: target.serving for target in planned().targets} == {
        "dns.test": True,
        "lost.test": False,
        "web.test": True,
    }


def test_other_workers_are_listed_also_those_whose_address_is_not_known() -> None:
    assert planned().workers == (PeerAddress("w2", "192.0.2.12"), PeerAddress("w3", None))


def test_a_connection_must_stay_open_behind_the_proxy_alone() -> None:
    assert (planned().linger, planned(plane="userspace").linger) == (0.0, PROXY_LINGER)
    shifted = replace(FACTS, listening_on=lambda key: (key.address, key.port + 8000))
    destinations = {target.destination for target in planned({"demo/web"}, "userspace", shifted).targets}
    assert {"tcp://10.112.0.7:8080", "tcp://web.test:8080"} <= destinations


@pytest.mark.parametrize(
    ("own", "preferred", "vip", "found"),
    [
        (["10.0.0.1", OWN], OWN, "10.112.0.7", OWN),
        (["10.0.0.2", "10.0.0.1"], OWN, "10.112.0.7", "10.0.0.1"),
        (["127.0.0.1"], None, "10.112.0.7", None),
        (["10.0.0.1", "fd00::1"], None, "fd00:112::7", "fd00::1"),
    ],
)
def test_the_address_of_published_ports(own: list[str], preferred: str | None, vip: str, found: str | None) -> None:
    assert published_address(own, preferred, vip) == found


UDP_PROBE = Probe(ProbeKind.UDP, None, send=b"ping", expect_reply=b"pong")


@pytest.mark.parametrize(
    ("probe", "transport", "port", "expected"),
    [
        (None, TCP, 53, (b"", True)),
        (None, UDP, 514, (b"", False)),
        (None, UDP, 53, (DNS_PAYLOAD, True)),
        (UDP_PROBE, UDP, 514, (b"ping", True)),
        (replace(UDP_PROBE, port=514), UDP, 514, (b"ping", True)),
        (replace(UDP_PROBE, port=515), UDP, 514, (b"", False)),
        (TCP_PROBE, UDP, 514, (b"", False)),
    ],
)
def test_a_udp_service_must_answer_only_if_it_is_known_how(
    probe: Probe | None, transport: Transport, port: int, expected: tuple[bytes, bool]
) -> None:
    assert udp_payload(probe, transport, port) == expected


@pytest.mark.parametrize(
    ("dns", "resolver", "host"),
    [
        (("127.0.0.1:53", "10.112.0.1:53"), "10.112.0.1", "10.112.0.1"),
        (("127.0.0.1:5353", "192.0.2.11:53"), None, "192.0.2.11"),
        (("0.0.0.0:53",), None, "127.0.0.1"),
        (("[::]:53",), None, "::1"),
        (("127.0.0.1:5353",), None, None),
        ((), None, None),
    ],
)
def test_where_the_host_itself_can_ask_for_names(dns: tuple[str, ...], resolver: str | None, host: str | None) -> None:
    observed = WorkerSnapshot(WorkerFacts("1", "w1", "nftables", "a test", dns))
    plan = make_connectivity_plan(DetailedSnapshot(observed, "mesh.internal"), replace(FACTS, resolver=resolver), None)
    assert (plan.resolver, plan.host_resolver) == (resolver, host)
