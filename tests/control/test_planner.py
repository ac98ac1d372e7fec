"""The plan of a view: virtual servers, weights and names."""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.records.encode import (
    encode_name_claim,
    encode_port_claim,
    encode_registration,
    encode_service_claim,
    encode_verdict,
)
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.control.planner import changed_servers, has_virtual_servers, make_plan, planning_effort
from mesh.dataplane.diff import changed_virtual_servers
from mesh.model.claims import Claims
from mesh.model.eligibility import probe_targets
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import (
    Address,
    DrainReason,
    Endpoint,
    EndpointKey,
    Health,
    PortPublication,
    Route,
    Scheduler,
    Service,
    Transport,
)
from mesh.model.table import RealKey, RealServer, VirtualKey
from mesh.model.view import ClusterView
from tests.builders import WEB_VIP, endpoint, service, view

WEB = service("web.test", container_port=8080)
PROBED = replace(WEB, probe=Probe(ProbeKind.HTTP, port=None))
CLAIMS = Claims(vips={"web.test": WEB_VIP}, owners={"web.test": "demo/web"})
ONE = endpoint()
TWO = endpoint("b", address="10.2.0.2", weight=3)
KEY = VirtualKey(WEB_VIP, 80, Transport.TCP)


def web_view(service: Service = WEB, *endpoints: Endpoint, claims: Claims = CLAIMS) -> ClusterView:
    return view(service, *endpoints, claims=claims)


def test_every_endpoint_of_a_service_is_a_real_server_of_its_vip() -> None:
    planned = make_plan(web_view(WEB, ONE, TWO), {})
    assert planned.table.virtual_servers[KEY].real_servers == {
        RealKey("10.2.0.1", 8080): RealServer(1),
        RealKey("10.2.0.2", 8080): RealServer(3),
    }
    assert planned.table.vips == {WEB_VIP}
    assert planned.names == {"web.test": WEB_VIP}


def test_a_service_without_endpoints_keeps_its_virtual_server_and_its_name() -> None:
    planned = make_plan(web_view(WEB), {})
    assert planned.table.virtual_servers[KEY].real_servers == {}
    assert planned.names == {"web.test": WEB_VIP}


def test_an_endpoint_with_its_own_port_is_reached_there() -> None:
    planned = make_plan(web_view(WEB, replace(ONE, port=18080)), {})
    assert list(planned.table.virtual_servers[KEY].real_servers) == [RealKey("10.2.0.1", 18080)]


@pytest.mark.parametrize(
    ("health", "serving"),
    [
        pytest.param({}, False, id="nothing before the first success"),
        pytest.param({"a": Health.STARTING}, False, id="starting"),
        pytest.param({"a": Health.HEALTHY}, True, id="healthy"),
        pytest.param({"a": Health.UNHEALTHY}, False, id="pruned"),
    ],
)
def test_a_probe_decides(health: dict[str, Health], serving: bool) -> None:
    planned = make_plan(web_view(PROBED, ONE), {("w1", id): verdict for id, verdict in health.items()})
    assert (RealKey("10.2.0.1", 8080) in planned.table.virtual_servers[KEY].real_servers) is serving


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(Claims(owners={"web.test": "demo/web"}), id="no VIP yet"),
        pytest.param(Claims(vips={"web.test": WEB_VIP}, owners={"web.test": "other/web"}), id="the name is another's"),
    ],
)
def test_a_service_without_its_claims_is_not_programmed(claims: Claims) -> None:
    planned = make_plan(web_view(WEB, ONE, claims=claims), {})
    assert (planned.table.virtual_servers, planned.table.vips, planned.names) == ({}, frozenset(), {})


def test_a_service_whose_fixed_vip_was_refused_is_left_out() -> None:
    planned = make_plan(web_view(replace(WEB, fixed_vip="10.112.0.99"), ONE), {})
    assert planned.names == {}


def test_only_the_names_that_a_service_holds_are_published() -> None:
    both = replace(WEB, routes=(*WEB.routes, Route("taken.test", 81, Transport.TCP, 8080)))
    claims = replace(CLAIMS, owners={**CLAIMS.owners, "taken.test": "other/web"})
    planned = make_plan(web_view(both, ONE, claims=claims), {})
    assert planned.names == {"web.test": WEB_VIP}
    assert list(planned.table.virtual_servers) == [KEY]


def test_a_published_port_listens_on_every_address_of_the_worker() -> None:
    service = replace(WEB, publishes=(PortPublication(8080, Transport.TCP, None),))
    claims = replace(CLAIMS, ports={(Transport.TCP, 30001): ("web.test", 8080), (Transport.TCP, 30002): ("x.test", 1)})
    planned = make_plan(web_view(service, ONE, claims=claims), {}, ["192.0.2.1", "192.0.2.2"])
    assert sorted(planned.table.virtual_servers) == [
        KEY,
        VirtualKey("192.0.2.1", 30001, Transport.TCP),
        VirtualKey("192.0.2.2", 30001, Transport.TCP),
    ]
    assert planned.table.vips == {WEB_VIP}, "a worker's own address is not a VIP to bind"


def test_a_published_port_that_is_no_longer_declared_is_not_served() -> None:
    claims = replace(CLAIMS, ports={(Transport.TCP, 30001): ("web.test", 8080)})
    assert list(make_plan(web_view(WEB, ONE, claims=claims), {}, ["192.0.2.1"]).table.virtual_servers) == [KEY]


def test_endpoints_of_the_other_address_family_are_left_out() -> None:
    planned = make_plan(web_view(WEB, ONE, replace(TWO, address="fd00::2")), {})
    assert list(planned.table.virtual_servers[KEY].real_servers) == [RealKey("10.2.0.1", 8080)]


def test_scheduler_and_persistence_reach_the_virtual_server() -> None:
    planned = make_plan(web_view(replace(WEB, scheduler=Scheduler.LC, persistence=300), ONE), {})
    server = planned.table.virtual_servers[KEY]
    assert (server.scheduler, server.persistence) == (Scheduler.LC, 300)


def test_a_probe_without_a_port_checks_the_first_routed_container_port() -> None:
    assert probe_targets(web_view(PROBED, ONE))["w1", "a"][1] == RealKey("10.2.0.1", 8080)
    assert probe_targets(web_view(WEB, ONE)) == {}


@given(st.permutations([ONE, TWO, replace(ONE, id="c", address="10.2.0.3")]))
def test_the_order_of_the_view_does_not_matter(endpoints: list[Endpoint]) -> None:
    assert make_plan(web_view(WEB, *endpoints), {}) == make_plan(
        web_view(WEB, *sorted(endpoints, key=lambda e: e.id)), {}
    )


PICTURES = st.builds(
    view,
    st.sampled_from(
        [WEB, PROBED, replace(WEB, scheduler=Scheduler.LC, publishes=(PortPublication(8080, Transport.TCP, None),))]
    ),
    st.sampled_from([ONE, replace(ONE, weight=9)]),
    claims=st.sampled_from(
        [CLAIMS, replace(CLAIMS, owners={}), replace(CLAIMS, ports={(Transport.TCP, 30001): ("web.test", 8080)})]
    ),
)
HEALTH = st.sampled_from([{}, {("w1", "a"): Health.HEALTHY}, {("w1", "a"): Health.UNHEALTHY}])
INPUTS = st.tuples(PICTURES, HEALTH, st.sampled_from([[], ["192.0.2.1"]]))


@given(INPUTS, INPUTS)
def test_reused_parts_of_an_earlier_plan_equal_a_fresh_plan(
    first: tuple[ClusterView, dict[EndpointKey, Health], list[str]],
    now: tuple[ClusterView, dict[EndpointKey, Health], list[str]],
) -> None:
    assert make_plan(*now, make_plan(*first)) == make_plan(*now)


def _records() -> dict[str, list[bytes]]:
    """Keys of every kind that a plan follows from, each with some of the values that it may have."""
    published = replace(WEB, publishes=(PortPublication(8080, Transport.TCP, None),))
    rival = Service("other/web", "web.test", (Route("web.test", 80, Transport.TCP, 80),))
    second = Route("www.test", 80, Transport.TCP, 80)
    services = [WEB, PROBED, published, rival, replace(WEB, routes=(*WEB.routes, second))]
    endpoints = [
        ONE,
        replace(ONE, weight=5),
        replace(ONE, owner="other/web"),
        TWO,
        replace(TWO, drain=DrainReason.ASKED),
    ]
    records = [pair for service in services for pair in encode_registration("w1", [service], []).items()]
    records += [pair for endpoint in endpoints for pair in encode_registration("w1", [], [endpoint]).items()]
    records += [
        encode_verdict("w1", ("w1", id), health) for id in "ab" for health in (Health.HEALTHY, Health.UNHEALTHY)
    ]
    claims = [encode_service_claim("web.test", vip) for vip in (WEB_VIP, "10.112.0.8", "fd00::7")]
    claims += [
        encode_name_claim(name, owner) for name in ("web.test", "www.test") for owner in ("demo/web", "other/web")
    ]
    claims += [encode_port_claim(Transport.TCP, 30000 + n, "web.test", 8080) for n in range(2)]
    records += [pair for claim in claims for pair in claim.items()]
    return {key: [value for other, value in records if other == key] for key, _ in records}


STORED = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in _records().items()})
SITES = st.tuples(
    st.sampled_from([(), ("192.0.2.1",), ("192.0.2.1", "192.0.2.2")]),
    st.sampled_from([None, "10.112.0.1"]),
    st.sampled_from([frozenset(), frozenset([(Transport.TCP, 30000)])]),
    st.sets(st.sampled_from([WEB_VIP, "10.112.0.8"])),
)


@given(st.lists(st.tuples(STORED, SITES), min_size=2, max_size=5))
def test_an_incremental_plan_equals_a_fresh_plan(
    stored: list[
        tuple[dict[str, bytes], tuple[tuple[str, ...], str | None, frozenset[tuple[Transport, int]], set[Address]]]
    ],
) -> None:
    reader, before = ViewBuilder(), None
    for records, (own, resolver, contested, withheld) in stored:
        seen, _ = reader.view(records)
        site = partial(make_plan, resolver=resolver, contested=contested, withheld=withheld)
        now = site(seen, seen.health, own, before)
        anew = site(replace(seen), dict(seen.health), own)
        assert (now, now.parts, now.by_name) == (anew, anew.parts, anew.by_name)
        assert not withheld & now.table.vips
        assert not withheld & {key.address for key in now.table.virtual_servers}
        if before is not None:
            assert changed_virtual_servers(before.table, now.table) <= changed_servers(before, now)
            assert planning_effort(seen, before) >= len(now.parts.keys() ^ before.parts.keys())
        before = now


def test_a_withheld_vip_is_not_bound_and_its_published_ports_are_served() -> None:
    published = replace(WEB, publishes=(PortPublication(8080, Transport.TCP, 30080),))
    claims = Claims({"web.test": WEB_VIP}, {"web.test": "demo/web"}, {(Transport.TCP, 30080): ("web.test", 8080)})
    seen = ClusterView((published,), (ONE,), claims)
    planned = make_plan(seen, {}, ["192.0.2.1"], withheld=[WEB_VIP], resolver="10.112.0.1")
    assert list(map(str, planned.table.virtual_servers)) == ["tcp://192.0.2.1:30080"]
    assert (set(planned.table.vips), dict(planned.names)) == ({"10.112.0.1"}, {})
    assert has_virtual_servers(planned, "demo/web")


OWN = replace(WEB, routes=(Route("web.test", 80, Transport.TCP, 9090),))


@pytest.mark.parametrize(
    ("own", "real"),
    [
        pytest.param(None, RealKey("10.2.0.1", 8080), id="the same as the service"),
        pytest.param(OWN, RealKey("10.2.0.1", 9090), id="another container port"),
        pytest.param(replace(OWN, routes=(Route("web.test", 81, Transport.TCP, 9090),)), None, id="not this port"),
        pytest.param(replace(OWN, routes=(Route("web.test", 80, Transport.UDP, 9090),)), None, id="not this transport"),
    ],
)
def test_an_endpoint_is_reached_where_its_own_labels_say(own: Service | None, real: RealKey | None) -> None:
    planned = make_plan(web_view(WEB, TWO, replace(ONE, declared=own)), {})
    found = set(planned.table.virtual_servers[KEY].real_servers) - {RealKey("10.2.0.2", 8080)}
    assert found == (set() if real is None else {real})


PUBLISHED = replace(WEB, publishes=(PortPublication(8080, Transport.TCP, 30080),))


@pytest.mark.parametrize(
    ("own", "port"),
    [
        pytest.param(replace(OWN, publishes=(PortPublication(9090, Transport.TCP, 30080),)), 9090, id="its own"),
        pytest.param(OWN, 9090, id="as the port of the VIP that leads to the same"),
        pytest.param(replace(OWN, routes=(Route("web.test", 82, Transport.TCP, 8080),)), 8080, id="one it has"),
        pytest.param(replace(OWN, routes=(Route("web.test", 82, Transport.TCP, 1),)), None, id="none"),
    ],
)
def test_an_endpoint_is_reached_on_a_published_port_where_its_own_labels_say(own: Service, port: int | None) -> None:
    claims = replace(CLAIMS, ports={(Transport.TCP, 30080): ("web.test", 8080)})
    planned = make_plan(web_view(PUBLISHED, replace(ONE, declared=own), claims=claims), {}, ["192.0.2.1"])
    found = planned.table.virtual_servers[VirtualKey("192.0.2.1", 30080, Transport.TCP)].real_servers
    assert set(found) == (set() if port is None else {RealKey("10.2.0.1", port)})


def test_a_published_port_serves_at_once_when_it_leads_to_another_container_port() -> None:
    """The claim still has the former container port."""
    claims = replace(CLAIMS, ports={(Transport.TCP, 30080): ("web.test", 80)})
    planned = make_plan(web_view(PUBLISHED, ONE, claims=claims), {}, ["192.0.2.1"])
    found = planned.table.virtual_servers[VirtualKey("192.0.2.1", 30080, Transport.TCP)].real_servers
    assert set(found) == {RealKey("10.2.0.1", 8080)}


def test_each_endpoint_has_its_own_probe_or_none() -> None:
    probed = replace(WEB, probe=Probe(ProbeKind.TCP, port=9000))
    for declared, other, serving in ((WEB, probed, {"10.2.0.1"}), (probed, WEB, {"10.2.0.2"})):
        seen = web_view(declared, ONE, replace(TWO, declared=other))
        planned = make_plan(seen, {})
        assert {real.address for real in planned.table.virtual_servers[KEY].real_servers} == serving
        [(key, (probe, real))] = probe_targets(seen).items()
        assert (key[1], probe.kind, real.port) == ("b" if declared is WEB else "a", ProbeKind.TCP, 9000)


def test_two_services_that_claim_one_vip_are_planned_like_a_fresh_plan() -> None:
    """No worker gives one VIP twice; a hand in the store may."""
    shop = service("shop.test")
    owners = {"web.test": "demo/web", "shop.test": "demo/shop"}
    both = ClusterView((shop, WEB), (ONE,), Claims({"web.test": WEB_VIP, "shop.test": WEB_VIP}, owners))
    one = replace(both, claims=Claims({"web.test": WEB_VIP}, owners))
    other = replace(both, claims=Claims({"shop.test": WEB_VIP}, owners))
    for first in (both, one, other):
        for then in (both, one, other):
            assert make_plan(then, then.health, (), make_plan(first, first.health)) == make_plan(then, then.health)


def test_the_part_of_an_unchanged_service_is_reused() -> None:
    before = make_plan(web_view(WEB, ONE), {})
    after = make_plan(web_view(replace(WEB), replace(ONE)), {}, (), before)
    assert after.table.virtual_servers[KEY] is before.table.virtual_servers[KEY]
