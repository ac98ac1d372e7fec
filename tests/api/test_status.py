"""status: the text for people and the document for programs."""

from dataclasses import replace

import msgspec

from mesh.api.status import WorkerStatus, render_status, service_statuses
from mesh.control.planner import make_plan
from mesh.health.snapshot import HealthStatus, VerdictStatus
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.probe import Probe, ProbeKind
from mesh.model.problem import Notices, Problem, Severity
from mesh.model.service import Endpoint, Health, PortPublication, Route, Service, Transport
from mesh.model.view import ClusterView
from tests.builders import endpoint, service

VIEW = ClusterView(
    services=(
        Service(
            "demo/web",
            "web.test",
            (Route("web.test", 80, Transport.TCP, 8080), Route("www.test", 80, Transport.TCP, 8080)),
            probe=Probe(ProbeKind.HTTP, None),
        ),
        service("web.test", owner="other/web", listen_port=81),
    ),
    endpoints=(
        endpoint(port=18080),
        endpoint("b", address="10.2.0.2", weight=3, release="v2"),
        Endpoint("c", "other/web", "w1", "10.2.0.3"),
    ),
    claims=Claims({"web.test": "10.112.0.7"}, {"web.test": "demo/web", "www.test": "demo/web"}),
)
HEALTH = {("w1", "a"): Health.HEALTHY, ("w1", "b"): Health.UNHEALTHY}
AT = "2026-11-23T16:15:41.123+00:00"
KNOWN = HealthStatus(
    HEALTH,
    HEALTH,
    last={("w1", "a"): "status 200", ("w1", "b"): "refused"},
    verdicts={
        ("w1", "a"): (VerdictStatus(AT, False, "refused", 0.001), VerdictStatus(AT, True, "status 200", 0.0012)),
        ("w1", "b"): (VerdictStatus(AT, False, "refused", 0.001),),
    },
)

TAKEN = Problem(
    Code.NAME_TAKEN,
    Severity.ERROR,
    "service x",
    "the name web.test is held by demo/web",
    "choose another name",
    where="compose.yaml:9",
)
REFUSED = CodedText("add virtual server tcp://10.112.0.9:80: no module; modprobe ip_vs_mh", Code.OPERATION_REFUSED)
AWAY = CodedText("etcd is not available (h1: gone); check that it runs", Code.STORE_UNREACHABLE)
NOTICES = Notices((TAKEN,), (REFUSED,), (AWAY,))
STATUS = WorkerStatus(
    version="1.2.3",
    worker="w1",
    data_plane="ipvs",
    data_plane_reason="this kernel has IPVS",
    dns=("127.0.0.1:53",),
    services=service_statuses(VIEW, KNOWN, make_plan(VIEW, HEALTH)),
    problems=(str(TAKEN),),
    failures=(REFUSED.text,),
    frozen=(AWAY.text,),
    repairs=2,
    digest="0123456789ab",
)

TEXT = """\
worker      w1  (vipmesh 1.2.3)
data plane  ipvs: this kernel has IPVS
dns         127.0.0.1:53
digest      0123456789ab
repairs     2 changes from outside vipmesh were reverted; see the log
frozen      etcd is not available (h1: gone); check that it runs [VM401]

web.test  10.112.0.7  1 of 2 endpoints serving  (demo/web)
  tcp://10.112.0.7:80
  names: web.test www.test
  -> 10.2.0.1:18080           healthy    weight 1  last probe: status 200
  x  10.2.0.2                 unhealthy  weight 3  release v2  last probe: refused

web.test  REFUSED  0 of 1 endpoints serving  (other/web)
  x  10.2.0.3                 not probed weight 1

problems:
  compose.yaml:9: error: service x: the name web.test is held by demo/web; choose another name [VM201]

the data plane refused:
  add virtual server tcp://10.112.0.9:80: no module; modprobe ip_vs_mh [VM506]"""


def test_an_endpoint_of_the_other_family_than_its_vip_does_not_serve() -> None:
    (web, _) = VIEW.services
    there = replace(VIEW, services=(web,), endpoints=(*VIEW.endpoints[:1], endpoint("b", address="fd00::2")))
    well = dict.fromkeys(HEALTH, Health.HEALTHY)
    (row,) = service_statuses(there, HealthStatus(well, well), make_plan(there, well))
    assert [(e.address, e.serving) for e in row.endpoints] == [("10.2.0.1", True), ("fd00::2", False)]


def test_the_text_goes_from_names_to_endpoints_and_ends_with_problems() -> None:
    assert render_status(STATUS, NOTICES) == TEXT


def test_the_document_survives_a_round_trip() -> None:
    assert msgspec.json.decode(msgspec.json.encode(STATUS), type=WorkerStatus) == STATUS


def test_a_worker_without_services_is_reported_as_such() -> None:
    nothing_read = WorkerStatus("1", "w", "ipvs", "r", ())
    assert render_status(nothing_read, Notices()).endswith(
        "\n\nno services are known yet: no pass has ended since the start"
    )
    assert render_status(replace(nothing_read, digest="0f"), Notices()).endswith("\n\nno services")


def test_a_published_port_is_shown_unless_another_program_has_it() -> None:
    web = service(publishes=(PortPublication(80, Transport.TCP, 30080), PortPublication(80, Transport.UDP, 30080)))
    ports = {(transport, 30080): (web.name, 80) for transport in (Transport.TCP, Transport.UDP)}
    claims = Claims({web.name: "10.112.0.7"}, {web.name: web.owner}, ports)
    view = ClusterView(services=(web,), endpoints=(endpoint(),), claims=claims)
    plans = (make_plan(view, HEALTH), make_plan(view, HEALTH, contested=[(Transport.UDP, 30080)]))
    found = [service_statuses(view, KNOWN, plan)[0].published for plan in plans]
    assert found == [("30080/tcp", "30080/udp"), ("30080/tcp",)]
    text = render_status(replace(STATUS, services=service_statuses(view, KNOWN, plans[0])), Notices())
    assert "  tcp://10.112.0.7:80\n  published: 30080/tcp 30080/udp\n  -> " in text


def test_one_repair_is_one_change() -> None:
    shown = render_status(replace(STATUS, repairs=1), NOTICES)
    assert "repairs     1 change from outside vipmesh was reverted; see the log" in shown


def test_what_made_another_workers_endpoint_unhealthy_is_its_last_probe() -> None:
    """This worker does not probe it; a result of its own counts before what others publish."""
    view = replace(VIEW, reasons={("w1", "a"): "status 500", ("w1", "b"): "status 503"})
    known = HealthStatus(HEALTH, HEALTH, last={("w1", "a"): "status 200"})
    (web, other) = service_statuses(view, known, make_plan(view, HEALTH))
    assert [each.last_probe for each in web.endpoints] == ["status 200", "status 503"]
    assert [each.last_probe for each in other.endpoints] == [None]
