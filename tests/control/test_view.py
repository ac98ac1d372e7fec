"""The view pipeline: incremental updates equal a fresh view, and status and explain agree with the planned table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.api.explain.query import explain
from mesh.api.status import worker_status
from mesh.control.planner import Plan, make_plan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.control.view import EffectiveView, ViewInputs, effective_view, view_effort
from mesh.health.panic import PanicInput, PanicState, ProbeEvidence
from mesh.health.snapshot import HealthSnapshot
from mesh.health.takeover import (
    held_back_in_force,
    kept_in_force,
    probing_workers,
    taken_over_probes,
    takeover_verdicts,
)
from mesh.model.claims import Claims
from mesh.model.eligibility import real_keys
from mesh.model.probe import Probe, ProbeKind
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import (
    Address,
    DrainReason,
    Endpoint,
    EndpointKey,
    Health,
    HostPort,
    Instance,
    PortPublication,
    Route,
    Service,
    Transport,
)
from mesh.model.view import ClusterView
from tests.builders import service

TCP, UDP = Transport.TCP, Transport.UDP
ME, WORKERS = "w1", ("w1", "w2", "w3")
OWN = ("192.0.2.11", "2001:db8::11")
FACTS = WorkerFacts("1", ME, "fake", "a test")
VERDICTS = st.sampled_from([Health.UNHEALTHY, Health.STARTING])
"""Of endpoints that are not healthy."""
PROBE = Probe(ProbeKind.TCP, None)

# Every kind of service: probed or not, over IPv4 or IPv6, with two names, with published ports beside routes or alone.
WEB = Service(
    "demo/web",
    "web.test",
    (Route("web.test", 80, TCP, 8080), Route("www.test", 443, TCP, 8443)),
    (PortPublication(8080, TCP, None),),
    probe=PROBE,
)
DB = service("db.test", listen_port=53, transport=UDP)
ONLY = Service(
    "demo/only", "only.test", (), (PortPublication(9090, TCP, 30001), PortPublication(9091, UDP, 30002)), probe=PROBE
)
SIX = service("six.test", publishes=(PortPublication(80, TCP, 30003),), probe=PROBE)
LATE = service("web.test", owner="demo/late", listen_port=81)
SERVICES = (DB, LATE, ONLY, SIX, WEB)
PORTS = {
    (TCP, 30000): ("web.test", 8080),
    (TCP, 30001): ("only.test", 9090),
    (UDP, 30002): ("only.test", 9091),
    (TCP, 30003): ("six.test", 80),
}
VIPS = {"db.test": "10.112.0.2", "only.test": "10.112.0.3", "six.test": "fd00:112::4", "web.test": "10.112.0.5"}
NAMES = {
    "db.test": "demo/db",
    "only.test": "demo/only",
    "six.test": "demo/six",
    "web.test": "demo/web",
    "www.test": "demo/web",
}
KEYS = [(worker, f"{s.owner}/{n}") for s in SERVICES for worker in WORKERS for n in range(1 + (s is WEB))]
OWNERS = {id: id.rpartition("/")[0] for _, id in KEYS}


def address(key: EndpointKey, *, ipv6: bool) -> Address:
    """Each endpoint has its own, so that a real server is one endpoint."""
    number = KEYS.index(key)
    return f"fd00:2::{number:x}" if ipv6 else f"10.2.0.{number}"


RELEASES = (None, "v1", "v2")
SHARES = st.dictionaries(
    st.sampled_from([service.owner for service in SERVICES]),
    st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.sampled_from([0, 100, 3333]), max_size=2),
).map(lambda found: {owner: ReleaseShares(owner, given, ("", "v1", "v2")) for owner, given in found.items()})
DRAINS = st.sampled_from([*[None] * 9, *DrainReason])
ENDPOINTS = st.builds(
    lambda key, ipv6, port, weight, mapped, engine, drain, release: Endpoint(
        key[1],
        OWNERS[key[1]],
        key[0],
        address(key, ipv6=ipv6),
        port=port,
        weight=weight,
        release=release,
        host_ports=(HostPort(TCP, 8080, 32768),) if mapped else (),
        health=engine,
        drain=drain,
    ),
    st.sampled_from(KEYS),
    st.sampled_from([False, False, True]),
    st.sampled_from([None, 18080]),
    st.sampled_from([1, 1, 3, 3, 0]),
    st.booleans(),
    st.sampled_from([None, None, *Health]),
    DRAINS,
    st.sampled_from(RELEASES),
)
SOME_KEYS = st.frozensets(st.sampled_from(KEYS), max_size=9)
MISSING = st.frozensets(st.sampled_from([*VIPS, *NAMES.values(), *PORTS]), max_size=3)
"""What has not been claimed yet, or is not declared any more."""
OTHERS = st.frozensets(st.sampled_from(WORKERS[1:]))


def claims(missing: frozenset[object], taken: frozenset[object]) -> Claims:
    vips = {name: vip for name, vip in VIPS.items() if name not in missing}
    names = {name: owner for name, owner in NAMES.items() if name not in taken}
    ports = {port: of for port, of in PORTS.items() if port not in missing}
    return Claims(vips, names, ports, {vip: name for name, vip in vips.items()})


VIEWS = st.builds(
    lambda missing, taken, found, health, kept, held_back, gone, silent, shares: ClusterView(
        tuple(service for service in SERVICES if service.owner not in missing),
        tuple(sorted(found, key=lambda endpoint: (endpoint.id, endpoint.worker))),
        claims(missing, taken),
        {e.key: said for e in found if (said := health.get(e.key, Health.HEALTHY)) is not Health.STARTING},
        kept=kept,
        held_back=held_back,
        workers=frozenset(WORKERS) - gone,
        silent=silent,
        shares=shares,
    ),
    MISSING,
    st.frozensets(st.sampled_from(sorted(NAMES)), max_size=2),
    st.lists(ENDPOINTS, unique_by=lambda endpoint: endpoint.key, min_size=2, max_size=12),
    st.dictionaries(st.sampled_from(KEYS), VERDICTS),
    SOME_KEYS,
    SOME_KEYS,
    OTHERS,
    OTHERS,
    SHARES,
)


@dataclass(frozen=True)
class World:
    """What one worker knows at one moment."""

    view: ClusterView
    instances: Mapping[str, Instance] | None
    probes: Mapping[EndpointKey, Health]
    """The verdicts of its probes on what is not healthy, should it probe these."""
    failing: frozenset[EndpointKey]
    holds_back: frozenset[EndpointKey]
    kept: frozenset[EndpointKey]
    lost: frozenset[EndpointKey]
    isolated: bool
    contested: frozenset[tuple[Transport, int]] = frozenset()
    own: tuple[Address, ...] = OWN

    def inputs(self) -> ViewInputs:
        probed_here = {e.owner for e in self.view.endpoints}
        services = {s.owner for s in self.view.services if s.probe is not None} & probed_here
        own = [e.key for e in self.view.endpoints if e.worker == ME and e.owner in services]
        others = frozenset(taken_over_probes(self.view, ME))
        asked = others.union(own)
        probed = {key: self.probes.get(key, Health.HEALTHY) for key in asked}
        return ViewInputs(
            ME,
            self.view,
            self.instances,
            probed,
            self.lost,
            self.isolated,
            takeover_verdicts(self.view, others, probed),
            kept_in_force(self.view, self.kept, ME, asked),
            held_back_in_force(self.view, self.holds_back, asked),
            asked,
        )

    def evidence(self, planned: Plan) -> DetailedSnapshot:
        """The snapshot of this worker, which has planned and programmed this."""
        inputs = self.inputs()
        observed = WorkerSnapshot(
            FACTS,
            self.view,
            None if self.instances is None else tuple(self.instances.values()),
            inputs.probed,
            HealthSnapshot(inputs.takeover, inputs.kept, inputs.held_back),
            planned,
            lost=self.lost,
            isolated=self.isolated,
        )
        return DetailedSnapshot(
            observed, "test", contested=self.contested, names=planned.names, programmed=planned.table, now=1.0
        )


INSTANCES = st.builds(
    lambda id, health, drain: Instance(id, OWNERS[id], "10.2.0.1", {}, health=health, drain=drain),
    st.sampled_from([id for worker, id in KEYS if worker == ME]),
    st.sampled_from([None, *Health]),
    DRAINS,
)
WORLDS = st.builds(
    World,
    VIEWS,
    st.none() | st.lists(INSTANCES).map(lambda found: {instance.id: instance for instance in found}),
    st.dictionaries(st.sampled_from(KEYS), VERDICTS),
    SOME_KEYS,
    SOME_KEYS,
    SOME_KEYS,
    SOME_KEYS,
    st.booleans(),
    st.frozensets(st.sampled_from(sorted(PORTS)), max_size=3),
    st.sampled_from([OWN, OWN[:1], OWN[1:], ()]),
)


@st.composite
def steps(draw: st.DrawFn) -> list[World]:
    """A story: from one moment to the next most of it is as it was, and the same objects."""
    story = [draw(WORLDS)]
    for _ in range(draw(st.integers(1, 4))):
        before, new = story[-1], draw(WORLDS)
        view = before.view
        match draw(st.integers(0, 6)):
            case 0:
                view = new.view
            case 1:
                view = view.judged({key: new.probes.get(key, Health.HEALTHY) for key in new.failing})
            case 2:
                view = view.with_silent(new.view.silent)
            case 3:
                view = view.with_claims(new.view.claims)
            case 4:
                view = replace(view, shares=new.view.shares)
            case _:
                pass
        kept = {
            name: getattr(before if draw(st.booleans()) else new, name)
            for name in ("instances", "probes", "failing", "holds_back", "kept", "lost", "isolated")
        }
        story.append(World(view, **kept))
    return story


def same(one: EffectiveView, other: EffectiveView) -> bool:
    return all(
        (a, a.groups, a.by_key) == (b, b.groups, b.by_key)
        for a, b in ((one.known, other.known), (one.traffic, other.traffic))
    ) and (one.kept, one.panic) == (other.kept, other.panic)


@given(steps(), st.booleans())
def test_incremental_views_equal_fresh_views(story: list[World], follows_panic: bool) -> None:
    last: EffectiveView | None = None
    floor = PanicState()
    for number, world in enumerate(story):
        inputs = world.inputs()
        if last is not None and last.inputs.probed == inputs.probed:
            inputs = replace(inputs, probed=last.inputs.probed)
        panic = None
        if follows_panic:
            asked = ProbeEvidence(world.failing & inputs.asked, probing_workers(inputs.view, ME, inputs.asked))
            panic = PanicInput(floor, asked, 50, float(number))
        now = effective_view(inputs, last, panic)
        scratch = effective_view(replace(inputs, view=replace(inputs.view), probed=dict(inputs.probed)), None, panic)
        assert same(now, scratch)
        assert now.known.groups == replace(now.known).groups, "found out from the endpoints"
        if now.panic is not None:
            floor = now.panic
        last = now


@given(WORLDS)
def test_without_changes_the_view_is_the_same_object(world: World) -> None:
    inputs = world.inputs()
    first = effective_view(inputs)
    again = effective_view(replace(inputs, takeover=dict(inputs.takeover)), first)
    assert (again.known, again.traffic) == (first.known, first.traffic)
    assert again.known is first.known
    assert again.traffic is first.traffic


def test_one_verdict_leaves_the_other_services_as_they_are() -> None:
    view = ClusterView(
        (DB, WEB),
        (Endpoint("demo/db/0", "demo/db", ME, "10.2.0.1"), Endpoint("demo/web/0", "demo/web", ME, "10.2.0.2")),
    )
    first = effective_view(ViewInputs(ME, view, probed={(ME, "demo/web/0"): Health.HEALTHY}))
    then = effective_view(ViewInputs(ME, view, probed={(ME, "demo/web/0"): Health.UNHEALTHY}), first)
    assert then.traffic.groups["demo/db"] is first.traffic.groups["demo/db"]
    assert then.traffic.groups["demo/web"].verdicts == (Health.UNHEALTHY,)


def test_kept_endpoints_and_held_back_ones_without_alternative_are_in_traffic() -> None:
    keys = [("w2", "demo/six/0"), ("w2", "demo/web/0"), ("w2", "demo/web/1")]
    found = tuple(Endpoint(id, OWNERS[id], worker, f"10.2.0.{n}") for n, (worker, id) in enumerate(keys))
    view = ClusterView((SIX, WEB), found, health=dict.fromkeys(keys, Health.UNHEALTHY))
    a, b, c = keys

    def serving(inputs: ViewInputs) -> set[EndpointKey]:
        health = effective_view(inputs).traffic.health
        return {key for key, said in health.items() if said is Health.HEALTHY}

    assert serving(ViewInputs(ME, view)) == set()
    damped = ViewInputs(ME, view, kept=frozenset({b}), held_back=frozenset({a, c}))
    assert serving(damped) == {a, b}, "c has somebody better: b"


@given(WORLDS)
def test_endpoints_reported_as_serving_have_a_weight_in_the_planned_table(world: World) -> None:
    traffic = effective_view(world.inputs()).traffic
    planned = make_plan(traffic, traffic.health, world.own, contested=world.contested)
    weights = {
        real: server.weight
        for virtual in planned.table.virtual_servers.values()
        for real, server in virtual.real_servers.items()
        if server.weight
    }
    services = {service.owner: service for service in traffic.services}
    expected = {
        e.key
        for e in traffic.endpoints
        if (service := services.get(e.owner)) is not None and not real_keys(service, e).isdisjoint(weights)
    }
    evidence = world.evidence(planned)
    status = worker_status(evidence.observed)
    shown = {(e.worker, e.id) for service in status.services for e in service.endpoints if e.serving}
    assert shown == expected
    explained = [way for service in world.view.services for way in explain(service.owner, evidence).ways]
    assert {(e.worker, e.id) for way in explained for e in way.endpoints if e.serving} == expected
    assert all(way.why_not or e.serving or e.why_not for way in explained for e in way.endpoints), (
        "or there is a reason"
    )


def test_endpoints_that_come_and_go_are_counted_before_they_are_looked_at() -> None:
    services = tuple(service(f"n{number}.test", owner=f"demo/n{number}") for number in range(20))
    endpoints = tuple(Endpoint(f"demo/n{n}/1", f"demo/n{n}", ME, "10.2.0.1") for n in range(20))
    there, gone = ViewInputs(ME, ClusterView(services, endpoints)), ViewInputs(ME, ClusterView())
    panic = PanicInput(PanicState(), ProbeEvidence(frozenset()), 50, 0.0)
    before = effective_view(there)
    assert (view_effort(there, None, panic), view_effort(there, before, panic)) == (20, 0)
    assert view_effort(gone, before, panic) == 20
    same_services = ViewInputs(ME, replace(there.view, endpoints=()))
    assert view_effort(same_services, before, panic) == 20


@given(WORLDS, st.data())
def test_an_endpoint_serves_once_the_data_plane_has_it(world: World, data: st.DataObject) -> None:
    traffic = effective_view(world.inputs()).traffic
    planned = make_plan(traffic, traffic.health, world.own, contested=world.contested)
    servers = planned.table.virtual_servers
    left = data.draw(st.sets(st.sampled_from(sorted(servers)))) if servers else set()
    programmed = planned.table.part(left)
    evidence = world.evidence(planned)
    evidence = replace(evidence, observed=replace(evidence.observed, programmed=programmed), programmed=programmed)
    weights = {
        real
        for virtual in programmed.virtual_servers.values()
        for real, server in virtual.real_servers.items()
        if server.weight
    }
    services = {service.owner: service for service in traffic.services}
    shown = {
        e: real_keys(services[service.owner], endpoint)
        for service in worker_status(evidence.observed).services
        for e in service.endpoints
        for endpoint in traffic.groups[service.owner].endpoints
        if endpoint.key == (e.worker, e.id)
    }
    assert all(not reals.isdisjoint(weights) for e, reals in shown.items() if e.serving)
    planned_to_serve = {
        (e.worker, e.id)
        for s in worker_status(world.evidence(planned).observed).services
        for e in s.endpoints
        if e.serving
    }
    assert {(e.worker, e.id) for e in shown if e.serving or e.programming} == planned_to_serve
    explained = [way for service in world.view.services for way in explain(service.owner, evidence).ways]
    assert {(e.worker, e.id) for way in explained for e in way.endpoints if e.serving} == {
        (e.worker, e.id) for e in shown if e.serving
    }
    assert all(way.why_not or e.serving or e.why_not for way in explained for e in way.endpoints)
