"""explain: the request path, and the reason for everything that is not on it. Each case has its own world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mesh.api.explain.document import Cause, Explanation, render_explanation
from mesh.api.explain.past import RECENT, KeptEvents
from mesh.api.explain.query import explain
from mesh.api.status import notices
from mesh.control.arrival import ArrivalCheck, ArrivalObservation, ArrivalPair, Arrivals, add_observations
from mesh.control.local_overlay import known_health
from mesh.control.planner import make_plan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.health.state_machine import Verdict
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.model.probe import Probe, ProbeKind
from mesh.model.problem import Problem, Severity
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import (
    Address,
    DrainReason,
    Endpoint,
    EndpointKey,
    Health,
    Instance,
    PortPublication,
    Route,
    Scheduler,
    Service,
    Transport,
)
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from mesh.model.view import ClusterView
from tests.builders import WEB_VIP, endpoint, service

TCP, UDP = Transport.TCP, Transport.UDP
OWN = "192.0.2.11"
HEALTHY, UNHEALTHY = Health.HEALTHY, Health.UNHEALTHY
K = EventKind

WEB = Service(
    "demo/web",
    "web.test",
    (Route("web.test", 80, TCP, 8080), Route("www.test", 80, TCP, 8080)),
    (PortPublication(8080, TCP, 30080),),
    probe=Probe(ProbeKind.HTTP, None, "/health"),
)
DB = service("db.mesh.internal", listen_port=53, transport=UDP)
ONE = endpoint("web/" + "a" * 64, name="web-1")
TWO = endpoint("web/" + "b" * 64, address="10.2.0.2", weight=3, release="v2", name="web-2")
FAR = Endpoint("web/" + "c" * 64, "demo/web", "w2", "10.2.0.3", name="web-3")
STORE = Endpoint("db/0", "demo/db", "w1", "10.2.0.9")
CLAIMS = Claims(
    {"web.test": WEB_VIP, "db.mesh.internal": "10.112.0.8", "gone.test": "10.112.0.9"},
    {"web.test": "demo/web", "www.test": "demo/web", "db.mesh.internal": "demo/db"},
    {(TCP, 30080): ("web.test", 8080)},
    {WEB_VIP: "web.test", "10.112.0.8": "db.mesh.internal", "10.112.0.9": "gone.test"},
)
GOOD = Verdict(True, "status 200", 0.01, at=98.0)
BAD = Verdict(False, "refused", 0.002, at=97.0)
FROM_ELSEWHERE = ArrivalPair(WEB.owner, "elsewhere")


DROPPED = Problem(Code.PEERS_DROPPED, Severity.ERROR, "firewall", "the rule drops it", "remove it", owner=WEB.owner)


@dataclass(frozen=True)
class World:
    """What a case changes of a worker where all is well."""

    services: Sequence[Service] = (WEB, DB)
    endpoints: Sequence[Endpoint] = (ONE, TWO, FAR, STORE)
    claims: Claims = CLAIMS
    said: Mapping[tuple[str, str], Health] = field(default_factory=lambda: {FAR.key: HEALTHY})
    probed: Mapping[EndpointKey, Health] = field(default_factory=lambda: {ONE.key: HEALTHY, TWO.key: HEALTHY})
    verdicts: Mapping[EndpointKey, Sequence[Verdict]] = field(
        default_factory=lambda: {ONE.key: [GOOD], TWO.key: [GOOD]}
    )
    instances: Sequence[Instance] | None = None
    problems: Sequence[Problem] = ()
    frozen: Mapping[str, CodedText] = field(default_factory=dict)
    failures: tuple[CodedText, ...] = ()
    contested: frozenset[tuple[Transport, int]] = frozenset()
    withheld: frozenset[Address] = frozenset()
    arrivals: Arrivals = field(default_factory=Arrivals)
    left: Callable[[Table], Table] = lambda table: table
    """The data plane, from what was planned."""
    answers: Callable[[str], bool] = lambda _: True
    own: Sequence[str] = (OWN,)
    past: Sequence[PastEvent] = ()
    published: Mapping[EndpointKey, str] = field(default_factory=dict)
    unlabelled: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, ReleaseShares] = field(default_factory=dict)

    def evidence(self) -> DetailedSnapshot:
        view = ClusterView(tuple(self.services), tuple(self.endpoints), self.claims, self.said, reasons=self.published)
        view = replace(view, shares=self.shares)
        served = {port: of for port, of in self.claims.ports.items() if port not in self.contested}
        planned = make_plan(
            replace(view, claims=replace(self.claims, ports=served)),
            known_health(view, "w1", self.probed),
            self.own,
            withheld=self.withheld,
        )
        observed = WorkerSnapshot(
            WorkerFacts("1", "w1", "ipvs", "a test"),
            view,
            None if self.instances is None else tuple(self.instances),
            self.probed,
            plan=planned,
            problems={"labels": tuple(self.problems)},
            failures=self.failures,
            frozen=self.frozen,
            arrivals=self.arrivals,
        )
        names = {name: vip for name, vip in planned.names.items() if self.answers(name)}
        table = self.left(planned.table)
        return DetailedSnapshot(
            observed, "mesh.internal", self.verdicts, self.contested, names, table, 100.0, self.unlabelled
        )

    def explain(self, asked: str) -> Explanation:
        return explain(asked, self.evidence(), self.kept_events())

    def text(self, asked: str) -> str:
        evidence = self.evidence()
        return render_explanation(self.explain(asked), notices(evidence.observed))

    def kept_events(self) -> KeptEvents:
        return KeptEvents(tuple(NumberedEvent(number, each) for number, each in enumerate(self.past, 1)), 1000.0)


def reasons(explanation: Explanation) -> list[tuple[str, str]]:
    """Every reason, with what it is about."""
    found = [("", str(reason.cause)) for reason in explanation.why_not]
    for way in explanation.ways:
        found += [(way.service, str(reason.cause)) for reason in (*way.why_not, *way.not_arriving)]
        found += [(name.name, str(name.why_not.cause)) for name in way.names if name.why_not is not None]
        found += [(port.virtual_servers[0], str(reason.cause)) for port in way.ports for reason in port.why_not]
        found += [(e.name or e.id, str(reason.cause)) for e in way.endpoints for reason in e.why_not]
    return found


def without(key: VirtualKey) -> Callable[[Table], Table]:
    return lambda table: replace(
        table, virtual_servers={k: server for k, server in table.virtual_servers.items() if k != key}
    )


def with_real(real: RealKey, weight: int) -> Callable[[Table], Table]:
    """The data plane with one real server more behind every virtual server."""

    def change(table: Table) -> Table:
        servers = {
            key: replace(server, real_servers={**server.real_servers, real: RealServer(weight)})
            for key, server in table.virtual_servers.items()
        }
        return replace(table, virtual_servers=servers)

    return change


def emptied(table: Table) -> Table:
    return replace(table, virtual_servers={key: VirtualServer() for key in table.virtual_servers})


OTHER = service("web.test", owner="other/web", listen_port=81)
FIXED = replace(WEB, fixed_vip="10.112.0.8")
DRAINED = {drain: replace(TWO, drain=drain) for drain in DrainReason}
BOTH = f"{TCP}://{WEB_VIP}:80"
PORT = f"{TCP}://{OWN}:30080"


def of_shop(kind: EventKind, at: float, **fields: object) -> PastEvent:
    """An event of an endpoint that is not there."""
    of: dict[str, Any] = {"worker": "w2", "owner": "demo/shop", "service": "shop.test", "endpoint": "shop/1"}
    of |= {"name": "shop-1", "address": "10.2.9.1", **fields}
    return PastEvent(at=at, kind=kind, code="VM780", text="it happened", **of)


def of_service(kind: EventKind, at: float) -> PastEvent:
    names = {"owner": "demo/shop", "service": "shop.test", "names": ("shop.test",)}
    return PastEvent(at=at, kind=kind, code="VM784", text="it did", **names, vip="10.112.0.20", ports=(8088,))  # type: ignore[arg-type]


SHOP_GONE = [
    of_shop(EventKind.ENDPOINT_CAME, 1.0),
    of_service(EventKind.SERVICE_VIP, 2.0),
    of_shop(EventKind.ENDPOINT_FAILED, 890.0, reason="status 503"),
    of_shop(EventKind.CONTAINER_DIED, 900.0, reason="exit code 137, SIGKILL, out of memory"),
    of_shop(EventKind.ENDPOINT_GONE, 900.0),
    of_service(EventKind.SERVICE_GONE, 900.0),
]
REFUSED_PORT = Problem(
    Code.LABEL_PORT,
    Severity.ERROR,
    "container odd-1, label mesh.routing.port_0",
    '"0" is not a port',
    "write a number",
    label="mesh.routing.port_0",
)

CASES: list[tuple[str, World, str, list[tuple[str, Cause]], str]] = [
    (
        "a failed probe: which, when, with what answer",
        World(probed={ONE.key: HEALTHY, TWO.key: UNHEALTHY}, verdicts={TWO.key: [GOOD, BAD, BAD, BAD]}),
        "web.test",
        [("web-2", Cause.PROBE_FAILED)],
        "GET http://10.2.0.2:8080/health: refused, 3 s ago, took 0.002 s; 3 failed in a row, 2 successes make it serve",
    ),
    (
        "a failed probe that answers again",
        World(probed={ONE.key: HEALTHY, TWO.key: UNHEALTHY}, verdicts={TWO.key: [BAD, GOOD]}),
        "web.test",
        [("web-2", Cause.PROBE_FAILED)],
        "status 200, 2 s ago, took 0.01 s; 1 of the 2 successes in a row that it needs",
    ),
    (
        "no success yet",
        World(probed={ONE.key: HEALTHY, TWO.key: Health.STARTING}, verdicts={TWO.key: [BAD]}),
        "web-2",
        [("web-2", Cause.NOT_PROBED_YET)],
        "1 failed in a row, the first success makes it serve; see the log of web-2 on w1",
    ),
    (
        "not asked yet",
        World(probed={ONE.key: HEALTHY}, verdicts={}),
        "web-2",
        [("web-2", Cause.NOT_PROBED_YET)],
        "GET http://10.2.0.2:8080/health: not answered yet",
    ),
    (
        "a probe of another worker",
        World(said={FAR.key: UNHEALTHY}),
        "web-3",
        [("web-3", Cause.PROBE_FAILED)],
        "worker w2 reports that its probe fails (GET http://10.2.0.3:8080/health); see the log of web-3 on w2",
    ),
    (
        "a probe of another worker, which has published the answer",
        World(said={FAR.key: UNHEALTHY}, published={FAR.key: "status 503"}),
        "web-3",
        [("web-3", Cause.PROBE_FAILED)],
        "worker w2 reports that its probe fails: status 503 (GET http://10.2.0.3:8080/health); see the log of web-3",
    ),
    (
        "another worker has not probed yet",
        World(said={}),
        "web-3",
        [("web-3", Cause.NOT_PROBED_YET)],
        "worker w2 has not reported a first success yet",
    ),
    (
        "the engine's health check",
        World(endpoints=(replace(STORE, health=UNHEALTHY),)),
        "db",
        [("udp://10.112.0.8:53", Cause.NO_ENDPOINT), ("db/0", Cause.ENGINE_UNHEALTHY)],
        "the container engine's own health check fails; see `docker inspect db/0`",
    ),
    (
        "the engine's health check has not succeeded yet",
        World(endpoints=(replace(STORE, health=Health.STARTING),)),
        "db",
        [("udp://10.112.0.8:53", Cause.NO_ENDPOINT), ("db/0", Cause.ENGINE_STARTING)],
        "has not succeeded yet",
    ),
    (
        "an operator drains it, connections are left",
        World(endpoints=(ONE, DRAINED[DrainReason.ASKED]), left=with_real(RealKey("10.2.0.2", 8080), 0)),
        "web.test",
        [("web-2", Cause.DRAINING)],
        "an operator drains it: established connections finish, new ones go elsewhere; end this with",
    ),
    (
        "it is being stopped, and is free",
        World(endpoints=(ONE, DRAINED[DrainReason.STOPPING])),
        "web.test",
        [("web-2", Cause.DRAINING)],
        "its container is being stopped: no connection is left",
    ),
    (
        "it is paused and its weight is 0: both are said",
        World(endpoints=(ONE, replace(DRAINED[DrainReason.PAUSED], weight=0))),
        "web-2",
        [("web-2", Cause.DRAINING), ("web-2", Cause.WEIGHT_ZERO)],
        "its weight is 0; set its label routing.weight to 1 or more",
    ),
    (
        "its release has no share",
        World(
            endpoints=(replace(ONE, release="v1"), replace(TWO, release="v2")),
            shares={WEB.owner: ReleaseShares(WEB.owner, {"v2": 0}, ("v1", "v2"), "anna")},
        ),
        "web-2",
        [("web-2", Cause.NO_SHARE)],
        "the share of release v2 is 0 %, given by anna; type `vipmesh rollout share demo/web reset`",
    ),
    (
        "an endpoint of the other family",
        World(endpoints=(ONE, replace(TWO, address="fd00::2"))),
        "web.test",
        [(BOTH, Cause.OTHER_FAMILY), (PORT, Cause.OTHER_FAMILY), ("web-2", Cause.OTHER_FAMILY)],
        "[fd00::2]:8080 is of the other address family",
    ),
    (
        "a conflict of names: with whom",
        World(services=(WEB, OTHER), endpoints=(ONE, replace(FAR, owner="other/web", worker="w1"))),
        "other/web",
        [("web.test", Cause.NAME_TAKEN), ("web.test", Cause.NAME_TAKEN)],
        "the name web.test is held by demo/web; give the service a name of its own",
    ),
    (
        "a second name that another holds",
        World(claims=replace(CLAIMS, owners={**CLAIMS.owners, "www.test": "old/www"})),
        "www.test",
        [("www.test", Cause.NAME_TAKEN)],
        "www.test  ->  does not resolve here\n    name-taken: the name www.test is held by old/www",
    ),
    (
        "a fixed VIP that another holds",
        World(services=(FIXED,)),
        "web.test",
        [("web.test", Cause.VIP_TAKEN), ("web.test", Cause.NOT_PROGRAMMED), ("www.test", Cause.NOT_PROGRAMMED)],
        "the VIP 10.112.0.8 is held by db.mesh.internal; write another address",
    ),
    (
        "a VIP that is refused",
        World(
            services=(replace(WEB, fixed_vip="10.9.0.1"),),
            endpoints=(),
            problems=[
                Problem(
                    Code.VIP_TAKEN,
                    Severity.ERROR,
                    "service demo/web",
                    "the VIP 10.9.0.1 is outside",
                    "x",
                    owner="demo/web",
                )
            ],
        ),
        "web.test",
        [("web.test", Cause.REFUSED), ("web.test", Cause.NOT_PROGRAMMED), ("www.test", Cause.NOT_PROGRAMMED)],
        "refused: the VIP 10.9.0.1 is outside; x",
    ),
    (
        "claimed by nobody yet",
        World(services=(DB,), endpoints=(), claims=Claims()),
        "db",
        [("db.mesh.internal", Cause.UNCLAIMED), ("db.mesh.internal", Cause.UNCLAIMED)],
        "the name db.mesh.internal is not claimed yet; ask again in a moment",
    ),
    (
        "claimed by nobody yet, and the store is away",
        World(
            services=(DB,),
            endpoints=(),
            claims=Claims(),
            frozen={"store": CodedText("etcd is gone", Code.STORE_UNREACHABLE)},
        ),
        "db",
        [("db.mesh.internal", Cause.FROZEN), ("db.mesh.internal", Cause.FROZEN)],
        "is not claimed yet, and the store does not answer: etcd is gone",
    ),
    (
        "a frozen store is told wherever there is a way, too",
        World(frozen={"store": CodedText("etcd is gone", Code.STORE_UNREACHABLE)}),
        "web.test",
        [],
        "frozen:\n  etcd is gone [VM401]",
    ),
    (
        "requests of a network that do not arrive",
        World(
            arrivals=add_observations(
                Arrivals(),
                [ArrivalObservation(ArrivalPair(WEB.owner, "elsewhere"), ArrivalCheck.CONNTRACK, False, "no answer")]
                * 2,
                1.0,
            )
        ),
        "web.test",
        [("web.test", Cause.NOT_ARRIVING)],
        "  not-arriving: requests from other hosts do not arrive: no answer; `vipmesh status` says since when",
    ),
    (
        "a firewall on another worker that drops what this one sends",
        World(problems=[replace(DROPPED, subject="worker w2")]),
        "web.test",
        [("web.test", Cause.NOT_ARRIVING)],
        "  not-arriving: worker w2: the rule drops it; remove it\n",
    ),
    (
        "a firewall on this worker that drops what others send",
        World(problems=[DROPPED]),
        "web.test",
        [("web.test", Cause.NOT_ARRIVING)],
        "  not-arriving: worker w1: the rule drops it; remove it\n",
    ),
    (
        "a VIP in a network of this host",
        World(withheld=frozenset(CLAIMS.vips.values())),
        "web.test:80",
        [(name, Cause.VIP_WITHHELD) for name in ("web.test", "www.test")]
        + [(f"tcp://{CLAIMS.vips['web.test']}:80", Cause.VIP_WITHHELD)],
        "the VIP is not bound on this worker: it is in a network of this host; see the problem of [vip] pool in",
    ),
    (
        "a published port that a program listens on",
        World(contested=frozenset({(TCP, 30080)})),
        "30080",
        [("tcp port 30080 of the worker", Cause.PORT_CONTESTED)],
        "a program on worker w1 listens on tcp port 30080; publish another port, or stop that program (`ss -lnp",
    ),
    (
        "a published port that another service holds",
        World(services=(WEB, replace(DB, publishes=(PortPublication(53, TCP, 30080),)))),
        "db",
        [("tcp port 30080 of the worker", Cause.PORT_TAKEN)],
        "the published tcp port 30080 is held by web.test; publish another port or auto",
    ),
    (
        "a published port that is not claimed yet",
        World(services=(replace(DB, publishes=(PortPublication(53, UDP, None),)),), endpoints=(STORE,)),
        "db",
        [("udp port auto of the worker", Cause.UNCLAIMED)],
        "the published port for container port 53 is not claimed yet",
    ),
    (
        "no endpoint at all",
        World(endpoints=()),
        "web.test:80",
        [(BOTH, Cause.NO_ENDPOINT)],
        "no endpoint takes connections: clients are refused",
    ),
    (
        "a virtual server that the data plane refused",
        World(
            left=without(VirtualKey(WEB_VIP, 80, TCP)),
            failures=(CodedText("add virtual server: no module", Code.OPERATION_REFUSED),),
        ),
        "web.test:80",
        [(BOTH, Cause.NOT_PROGRAMMED), (BOTH, Cause.NO_ENDPOINT)],
        "tcp://10.112.0.7:80 is not in the data plane yet; see what the data plane refused, below",
    ),
    (
        "real servers that the data plane does not have",
        World(left=emptied, endpoints=(ONE,)),
        "web.test:80",
        [(BOTH, Cause.NO_ENDPOINT), (BOTH, Cause.NOT_PROGRAMMED)],
        "10.2.0.1:8080 is not a real server in the data plane yet",
    ),
    (
        "a name whose VIP is not bound",
        World(answers=lambda name: name != "www.test"),
        "web.test",
        [("www.test", Cause.NOT_PROGRAMMED)],
        "it resolves as soon as its VIP is bound and programmed",
    ),
    (
        "a container whose label is refused",
        World(
            instances=(Instance("bad/" + "d" * 64, "demo/bad", "10.2.0.4", {}, name="bad-1"),),
            problems=[
                Problem(
                    Code.UNKNOWN_LABEL,
                    Severity.ERROR,
                    "service bad, label x",
                    "it is bad",
                    "write good",
                    "x",
                    "c.yaml:3",
                    "demo/bad",
                )
            ],
        ),
        "bad-1",
        [("", Cause.REFUSED)],
        "bad-1: c.yaml:3: service bad, label x: it is bad; write good",
    ),
    (
        "a container that no label leads to",
        World(instances=(Instance("x", "demo/x", "10.2.0.4", {}),)),
        "10.2.0.4",
        [("", Cause.NOT_ROUTED)],
        "it runs on worker w1 at 10.2.0.4, and no label routes to it; give it a label such as",
    ),
    (
        "a container that its source left out, with a problem of its own",
        World(
            problems=[
                Problem(
                    Code.CONTAINER_UNUSABLE, Severity.ERROR, "container odd-1", "it has no address", "give it a network"
                )
            ]
        ),
        "odd-1",
        [("", Cause.REFUSED)],
        "container odd-1: it has no address; give it a network",
    ),
    (
        "a VIP that is kept for a service that is gone",
        World(),
        "10.112.0.9",
        [("", Cause.UNKNOWN)],
        "the VIP is reserved for gone.test, which no worker runs now; start it again",
    ),
    (
        "a port on which a service does not listen",
        World(probed={ONE.key: HEALTHY, TWO.key: HEALTHY}),
        "web.test:9999",
        [("web.test", Cause.NOT_LISTENING)],
        "nothing listens on port 9999 of web.test; it listens on tcp 80, tcp 30080 of every worker; ask for one",
    ),
    (
        "a port of a VIP on which nothing listens",
        World(probed={ONE.key: HEALTHY, TWO.key: HEALTHY}),
        f"udp://{WEB_VIP}:80",
        [("web.test", Cause.NOT_LISTENING)],
        "nothing listens on udp 80 of web.test",
    ),
    (
        "a service that is gone, by its name",
        World(past=SHOP_GONE),
        "shop.test",
        [("", Cause.GONE), ("", Cause.GONE)],
        "shop.test: shop.test (demo/shop) is gone: no worker declares it any more, at 1970-01-01 00:15:00 UTC",
    ),
    (
        "how the last endpoint of a service that is gone ended",
        World(past=SHOP_GONE),
        "http://shop.test/",
        [("", Cause.GONE), ("", Cause.GONE)],
        "100 s ago: its probe failed: status 503; its process ended: exit code 137, SIGKILL, out of memory; `",
    ),
    ("a VIP that is gone", World(past=SHOP_GONE), "10.112.0.20", [("", Cause.GONE)] * 2, "its VIP was 10.112.0.20"),
    ("a port that is gone", World(past=SHOP_GONE), "8088", [("", Cause.GONE)] * 2, "shop.test (demo/shop) is gone"),
    ("a container that is gone", World(past=SHOP_GONE), "shop-1", [("", Cause.GONE)], "out of memory"),
    ("an address that is gone", World(past=SHOP_GONE), "10.2.9.1", [("", Cause.GONE)], "out of memory"),
    (
        "a container that an operator drained",
        World(past=[of_shop(EventKind.ENDPOINT_DRAINED, 1.0, reason="asked", by="uid 0"), *SHOP_GONE[-2:-1]]),
        "shop-1",
        [("", Cause.GONE)],
        "an operator drained it (uid 0)",
    ),
    (
        "the name that a refused label wants",
        World(
            instances=[Instance("odd/1", "demo/odd", "10.2.0.8", {"mesh.routing.port_0": "odd.test; http://www.odd/"})],
            problems=[replace(REFUSED_PORT, owner="demo/odd")],
        ),
        "www.odd",
        [("", Cause.REFUSED)],
        '"0" is not a port; write a number',
    ),
    (
        "a container without labels",
        World(unlabelled={"d" * 64: "cron"}),
        "cron",
        [("", Cause.NOT_ROUTED)],
        "the container cron runs on worker w1, and no label routes to it; give it a label such as",
    ),
    ("one by its id", World(unlabelled={"d" * 64: "cron"}), "dddd", [("", Cause.NOT_ROUTED)], "container cron runs"),
    ("a port that nobody has", World(), "9999", [("", Cause.UNKNOWN)], "no service publishes port 9999"),
    ("a name with a typing error", World(), "wbe.test", [("", Cause.UNKNOWN)], "did you mean web.test?"),
    ("nothing like it", World(), "zzz", [("", Cause.UNKNOWN)], "`vipmesh status` lists what there is"),
]


@pytest.mark.parametrize(("world", "asked", "causes", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_every_endpoint_without_traffic_has_its_reason(
    world: World, asked: str, causes: list[tuple[str, Cause]], text: str
) -> None:
    explanation = world.explain(asked)
    assert reasons(explanation) == [(about, str(cause)) for about, cause in causes]
    assert text in world.text(asked)
    assert msgspec.json.decode(msgspec.json.encode(explanation), type=Explanation) == explanation


def test_shares_in_force_are_explained() -> None:
    world = World(
        endpoints=(replace(ONE, release="v1"), replace(TWO, release="v2")),
        shares={WEB.owner: ReleaseShares(WEB.owner, {"v2": 1250}, ("v1", "v2"), "anna")},
    )
    [way] = world.explain("web.test").ways
    assert way.shares == ("v1: 87.5 % on 1 of 1 endpoints", "v2: 12.5 % on 1 of 1 endpoints, given 12.5 % by anna")
    assert "  share of release v2: 12.5 % on 1 of 1" in world.text("web.test")
    assert World().explain("web.test").ways[0].shares == ()


def test_every_cause_has_a_case() -> None:
    assert {cause for *_, causes, _ in CASES for _, cause in causes} == set(Cause)


@pytest.mark.parametrize(
    ("past", "told"),
    [
        pytest.param([(K.ENDPOINT_CAME, "web-8"), (K.ENDPOINT_GONE, "web-8")], ["web-8"], id="half of it is gone"),
        pytest.param([(K.ENDPOINT_GONE, "web-8")], ["web-8"], id="its arrival is forgotten"),
        pytest.param(
            [(K.ENDPOINT_GONE, "web-8"), (K.ENDPOINT_CAME, "web-1"), (K.ENDPOINT_CAME, "web-2")], [], id="new"
        ),
        pytest.param([(K.ENDPOINT_CAME, "web-1"), (K.ENDPOINT_GONE, "web-1")], [], id="what serves is never gone"),
        pytest.param([(K.ENDPOINT_CAME, "web-8"), (K.ENDPOINT_FAILED, "web-8")], [], id="not said to be gone"),
    ],
)
def test_a_service_says_what_became_of_its_other_half(past: list[tuple[EventKind, str]], told: list[str]) -> None:
    ids = {"web-1": ONE.key, "web-2": TWO.key, "web-8": ("w2", "web/8")}
    before = [(K.ENDPOINT_CAME, "web-1"), (K.ENDPOINT_CAME, "web-2")] if (K.ENDPOINT_CAME, "web-1") not in past else []
    events = [
        PastEvent(
            at=900.0 + at,
            kind=kind,
            code="VM780",
            text="it happened",
            worker=ids[name][0],
            endpoint=ids[name][1],
            name=name,
            owner="demo/web",
        )
        for at, (kind, name) in enumerate([*before, *past])
    ]
    world = World(endpoints=(ONE, TWO, STORE), past=events)
    explanation = world.explain("web.test")
    (way,) = explanation.ways
    assert explanation.works, "what is gone does not keep the rest from working"
    assert [reason.text.split()[0] for reason in way.gone] == told
    assert ("\n  gone:\n    web-8 on w2 is gone, at " in world.text("web.test")) is bool(told)


def test_an_endpoint_that_was_lost_long_ago_is_not_told() -> None:
    gone = structs.replace(of_shop(EventKind.ENDPOINT_GONE, 900.0), owner="demo/web")
    world = World(endpoints=(ONE, TWO, STORE), past=[gone])
    evidence, kept = world.evidence(), world.kept_events()
    of = structs.replace(gone, kind=K.ENDPOINT_CAME, at=1.0, worker="w1")
    came = [NumberedEvent(0, structs.replace(of, endpoint=each.id)) for each in (ONE, TWO)]
    kept = replace(kept, events=(*came, *kept.events))
    (way,) = explain("web.test", evidence, kept).ways
    (later,) = explain("web.test", evidence, replace(kept, now=900.0 + RECENT + 1)).ways
    assert (len(way.gone), len(later.gone)) == (1, 0)


WHOLE = """\
service web.test  (demo/web)
  web.test  ->  10.112.0.7
  www.test  ->  10.112.0.7
  virtual server tcp://10.112.0.7:80  ->  container port 8080
    wrr
     25%  weight 1    10.2.0.1:8080           web-1 on w1  GET http://10.2.0.1:8080/health: status 200, 2 s ago
     75%  weight 3    10.2.0.2:8080           web-2 on w1  release v2
  published port tcp://192.0.2.11:30080  ->  container port 8080
    wrr
    the same endpoints as above"""


def test_the_whole_request_path_of_a_name() -> None:
    world = World(endpoints=(ONE, TWO))
    assert world.explain("web.test").works
    said = "  GET http://10.2.0.2:8080/health: status 200, 2 s ago"
    assert world.text("web.test") == WHOLE.replace("release v2", f"release v2{said}")


@pytest.mark.parametrize(
    ("asked", "kind", "services"),
    [
        ("web.test", "name", ["web.test"]),
        ("WWW.test.", "name", ["web.test"]),
        ("web.test:80", "name", ["web.test"]),
        ("http://web.test/a/path?x=1", "name", ["web.test"]),
        ("db", "name", ["db.mesh.internal"]),
        ("udp://db:53", "name", ["db.mesh.internal"]),
        (WEB_VIP, "vip", ["web.test"]),
        (f"{WEB_VIP}:80", "vip", ["web.test"]),
        (f"tcp://{WEB_VIP}:80", "vip", ["web.test"]),
        ("30080", "port", ["web.test"]),
        ("30080/tcp", "port", ["web.test"]),
        (f"{OWN}:30080", "port", ["web.test"]),
        ("53", "port", ["db.mesh.internal"]),
        ("53/tcp", "nothing", []),
        ("80", "port", ["web.test"]),
        ("web-2", "endpoint", ["web.test"]),
        ("b" * 12, "endpoint", ["web.test"]),
        ("bbb", "nothing", []),
        (TWO.id, "endpoint", ["web.test"]),
        (f"w1/{TWO.id}", "endpoint", ["web.test"]),
        ("10.2.0.2", "endpoint", ["web.test"]),
        ("demo/web", "service", ["web.test"]),
        ("", "nothing", []),
        ("http://", "nothing", []),
        ("[fd00::7]:80", "nothing", []),
        ("fd00::7", "nothing", []),
    ],
)
def test_any_identifier_of_a_user_is_understood(asked: str, kind: str, services: list[str]) -> None:
    explanation = World().explain(asked)
    assert (explanation.kind, [way.service for way in explanation.ways]) == (kind, services)


@pytest.mark.parametrize(
    "asked",
    [
        "web.test:9999",
        "WEB.test.:9999",
        "www.test:9999",
        "http://web.test:9999/path",
        "https://web.test",
        "udp://web.test:80",
        f"{WEB_VIP}:9999",
        f"tcp://{WEB_VIP}:9999",
        "demo/web:9999",
        "web:9999",
    ],
)
def test_a_port_on_which_nothing_listens_is_said_however_the_service_is_named(asked: str) -> None:
    world = World(probed={ONE.key: HEALTHY, TWO.key: HEALTHY})
    explanation = world.explain(asked)
    assert [way.service for way in explanation.ways] == ["web.test"]
    assert reasons(explanation) == [("web.test", str(Cause.NOT_LISTENING))]
    assert "it listens on tcp 80, tcp 30080 of every worker" in world.text(asked)


@pytest.mark.parametrize(
    "asked", ["web.test", "demo/web", WEB_VIP, "web-1", "web-2", "10.2.0.1", "30080", ONE.id, "web.test:80"]
)
@pytest.mark.parametrize("kind", list(K))
def test_no_event_makes_what_serves_gone(asked: str, kind: EventKind) -> None:
    story: dict[str, Any] = {"worker": "w1", "owner": "demo/web", "service": "web.test", "endpoint": ONE.id}
    story |= {"name": "web-1", "address": ONE.address, "names": ("web.test",), "vip": WEB_VIP, "ports": (30080,)}
    past = [PastEvent(at=990.0, kind=kind, code="VM780", text="it happened", **story)]
    world = World(probed={ONE.key: HEALTHY, TWO.key: HEALTHY}, past=past)
    explanation = world.explain(asked)
    assert explanation.works
    assert not [way.gone for way in explanation.ways if way.gone]
    assert " is gone" not in world.text(asked)


def test_of_two_services_that_declare_a_name_the_holder_counts() -> None:
    world = World(services=(WEB, OTHER), endpoints=(ONE, replace(FAR, owner="other/web")))
    assert world.explain("web.test").works
    assert world.explain("demo/web").works
    assert not world.explain("other/web").works


def test_a_port_shows_only_its_virtual_servers_and_a_container_only_itself() -> None:
    (way,) = World().explain("30080").ways
    assert [port.virtual_servers for port in way.ports] == [(PORT,)]
    (way,) = World().explain("http://web.test").ways
    assert [port.virtual_servers for port in way.ports] == [(BOTH,)]
    (way,) = World().explain("web-2").ways
    assert [endpoint.name for endpoint in way.endpoints] == ["web-2"]
    assert [real.address for real in way.ports[0].real_servers] == ["10.2.0.1:8080", "10.2.0.2:8080", "10.2.0.3:8080"]


def test_round_robin_shares_do_not_follow_the_weights() -> None:
    (way,) = World(services=(replace(WEB, scheduler=Scheduler.RR),), endpoints=(ONE, TWO)).explain("80").ways
    assert [(real.weight, real.share) for real in way.ports[0].real_servers] == [(1, 0.5), (3, 0.5)]


def test_stickiness_is_shown_for_each_port() -> None:
    sticky = World(services=(replace(WEB, persistence=300),), endpoints=(ONE, TWO))
    ports = [line for line in sticky.text("web.test").splitlines() if "container port" in line]
    assert len(ports) > 1
    assert sticky.text("web.test").count("a client keeps its endpoint on this port for 300 s") == len(ports)
    assert "keeps its endpoint" not in World().text("web.test")


def test_removed_endpoints_that_finish_connections_are_shown() -> None:
    world = World(endpoints=(ONE,), left=with_real(RealKey("10.2.0.8", 8080), 0))
    assert "  0%  weight 0    10.2.0.8:8080           gone, its connections are finishing" in world.text("web.test")
    assert world.explain("web.test").works


def test_before_the_first_view_the_state_is_unknown() -> None:
    explanation = explain(
        "web.test", DetailedSnapshot(WorkerSnapshot(WorkerFacts("1", "w1", "ipvs", "a test")), "mesh.internal")
    )
    assert reasons(explanation) == [("", "frozen")]
    assert not explanation.works


@pytest.mark.parametrize(
    ("probe", "text"),
    [
        (Probe(ProbeKind.TCP, 8081), "connect to 10.2.0.2:8081"),
        (Probe(ProbeKind.COMMAND, None, command="true"), "run `true` in the container"),
        (
            Probe(ProbeKind.HTTPS, None, "/h", initial_delay=4),
            "GET https://10.2.0.2:8080/h: not answered yet, probing begins",
        ),
    ],
)
def test_the_request_of_a_probe_is_shown(probe: Probe, text: str) -> None:
    assert text in World(services=(replace(WEB, probe=probe),), probed={}, verdicts={}).text("web-2")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*DrainReason, None]),
            st.sampled_from([*Health, None]),
            st.sampled_from([*Health, None]),
            st.sampled_from([0, 1, 7]),
            st.sampled_from(["w1", "w2"]),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_an_endpoint_serves_or_has_a_reason_not_to(
    drawn: list[tuple[DrainReason | None, Health | None, Health | None, int, str, bool]],
) -> None:
    said: dict[EndpointKey, Health] = {}
    endpoints = []
    for number, (drain, engine, health, weight, worker, is_web) in enumerate(drawn):
        owner = "demo/web" if is_web else "demo/db"
        one = Endpoint(str(number), owner, worker, f"10.2.1.{number}", weight=weight, health=engine, drain=drain)
        endpoints.append(one)
        if health is not None:
            said[one.key] = health
    probed = {key: health for key, health in said.items() if key[0] == "w1"}
    world = World(endpoints=endpoints, said=said, probed=probed)
    for asked in ("web.test", "db"):
        for way in world.explain(asked).ways:
            programmed = {real.endpoint for port in way.ports for real in port.real_servers if real.weight}
            assert programmed == {endpoint.id for endpoint in way.endpoints if endpoint.serving}
            assert all(endpoint.serving is not bool(endpoint.why_not) for endpoint in way.endpoints)


@given(st.text() | st.from_regex(r"[a-z]{0,5}:?/{0,2}[][0-9.:a-z/]{0,20}", fullmatch=True))
def test_any_text_has_an_answer(asked: str) -> None:
    explanation = World().explain(asked)
    assert explanation.ways or explanation.why_not
    assert World().text(asked)
