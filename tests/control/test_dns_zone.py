"""The DNS zone that the parts of a plan result in."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mesh.control.dns_zone import ZonePublisher, dns_service, endpoint_label
from mesh.control.planner import make_plan
from mesh.control.service_plan import ServicePlan
from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, Health, Route, Service, Transport
from meshdns import service_records as dns
from tests.builders import WEB_VIP, endpoint, view

ROUTES = (Route("web.test", 80, Transport.TCP, 8080), Route("alt.test", 53, Transport.UDP, 53))
WEB = Service("demo/web", "web.test", ROUTES, probe=Probe(ProbeKind.HTTP, port=None))
CLAIMS = Claims(vips={"web.test": WEB_VIP}, owners={"web.test": "demo/web", "alt.test": "demo/web"})
ONE = endpoint("demo/web/10.2.0.1")
TWO = Endpoint("demo/web/10.2.0.2:8080", "demo/web", "w2", "10.2.0.2", port=8080, weight=3, release="v2")


def part(service: Service = WEB, *endpoints: Endpoint, health: Mapping[str, Health] | None = None) -> ServicePlan:
    verdicts = {e.key: verdict for e in endpoints if (verdict := (health or {}).get(e.id))}
    return make_plan(view(service, *endpoints, claims=CLAIMS), verdicts).parts["demo/web"]


def test_a_service_in_full() -> None:
    assert dns_service("web.test", part(WEB, ONE, TWO, health={ONE.id: Health.HEALTHY})) == dns.DnsService(
        addresses=(WEB_VIP,),
        endpoints=(
            dns.DnsEndpoint("10-2-0-1", "10.2.0.1", True, ("worker=w1", "health=healthy", "weight=1")),
            dns.DnsEndpoint(
                "10-2-0-2-8080",
                "10.2.0.2",
                False,
                ("worker=w2", "health=starting", "weight=3", "port=8080", "release=v2"),
            ),
        ),
        ports=(dns.DnsPort(80, "tcp"),),
        about=("owner=demo/web", "state=serving", "serving=1/2"),
        canonical=True,
    )


def test_an_alias_has_its_own_ports_and_is_not_the_canonical_name() -> None:
    alias = dns_service("alt.test", part(WEB, ONE))
    assert (alias.ports, alias.canonical) == ((dns.DnsPort(53, "udp"),), False)


@pytest.mark.parametrize(
    ("endpoints", "health", "state"),
    [
        pytest.param((), {}, "state=empty", id="no endpoint"),
        pytest.param((ONE,), {}, "state=unhealthy", id="not answered yet"),
        pytest.param((ONE,), {ONE.id: Health.UNHEALTHY}, "state=unhealthy", id="none healthy"),
        pytest.param((ONE, TWO), {TWO.id: Health.HEALTHY}, "state=serving", id="one healthy"),
    ],
)
def test_the_state_of_a_service(endpoints: tuple[Endpoint, ...], health: Mapping[str, Health], state: str) -> None:
    assert state in dns_service("web.test", part(WEB, *endpoints, health=health)).about


def test_without_a_probe_every_endpoint_serves() -> None:
    (endpoint,) = dns_service("web.test", part(replace(WEB, probe=None), ONE)).endpoints
    assert endpoint.serving
    assert "health=not probed" in endpoint.about


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("demo/web/10.2.0.1", "10-2-0-1"),
        ("demo/web/Web_1", "web-1"),
        ("demo/web/[fd00::3]:80", "fd00-3-80"),
        ("demo/web/" + "a" * 64, "a" * 63),
        ("demo/web/--", "endpoint"),
    ],
)
def test_an_endpoints_label(id: str, expected: str) -> None:
    assert endpoint_label(id) == expected


def test_an_unchanged_service_keeps_the_same_object() -> None:
    published: list[Mapping[str, dns.DnsService]] = []
    names = ZonePublisher(published.append)
    web = part(WEB, ONE)
    names({"web.test": web})
    names({"web.test": web, "alt.test": web})
    names({"web.test": part(WEB, ONE, TWO)})
    assert published[0]["web.test"] is published[1]["web.test"]
    assert len(published[2]["web.test"].endpoints) == 2
