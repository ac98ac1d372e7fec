"""plan: which virtual servers, weights and names a picture of the cluster gives."""

from dataclasses import replace

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
from mesh.control.planner import changed_servers, make_plan, planning_effort
from mesh.dataplane.diff import changed_virtual_servers
from mesh.model.claims import Claims
from mesh.model.eligibility import probe_targets
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import (
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

VIP = "10.112.0.7"
WEB = Service("demo/web", "web.test", (Route("web.test", 80, Transport.TCP, 8080),))
PROBED = replace(WEB, probe=Probe(ProbeKind.HTTP, port=None))
CLAIMS = Claims(vips={"web.test": VIP}, owners={"web.test": "demo/web"})
ONE = Endpoint("a", "demo/web", "w1", "10.2.0.1")
TWO = Endpoint("b", "demo/web", "w1", "10.2.0.2", weight=3)
KEY = VirtualKey(VIP, 80, Transport.TCP)


def view(service: Service = WEB, *endpoints: Endpoint, claims: Claims = CLAIMS) -> ClusterView:
    return ClusterView((service,), endpoints, claims)


def test_every_endpoint_of_a_service_stands_behind_its_vip() -> None:
    planned = make_plan(view(WEB, ONE, TWO), {})
    assert planned.table.virtual_servers[KEY].real_servers == {
        RealKey("10.2.0.1", 8080): RealServer(1),
        RealKey("10.2.0.2", 8080): RealServer(3),
    }
    assert planned.table.vips == {VIP}
    assert planned.names == {"web.test": VIP}


def test_a_service_without_endpoints_keeps_its_virtual_server_and_its_name() -> None:
    planned = make_plan(view(WEB), {})
    assert planned.table.virtual_servers[KEY].real_servers == {}
    assert planned.names == {"web.test": VIP}


def test_an_endpoint_reached_elsewhere_is_sent_to_there() -> None:
    planned = make_plan(view(WEB, replace(ONE, port=18080)), {})
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
    planned = make_plan(view(PROBED, ONE), {("w1", id): verdict for id, verdict in health.items()})
    assert (RealKey("10.2.0.1", 8080) in planned.table.virtual_servers[KEY].real_servers) is serving


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(Claims(owners={"web.test": "demo/web"}), id="no VIP yet"),
        pytest.param(Claims(vips={"web.test": VIP}, owners={"web.test": "other/web"}), id="the name is another's"),
    ],
)
def test_a_service_without_its_claims_is_not_programmed(claims: Claims) -> None:
    planned = make_plan(view(WEB, ONE, claims=claims), {})
    assert (planned.table.virtual_servers, planned.table.vips, planned.names) == ({}, frozenset(), {})


def test_a_fixed_vip_that_was_refused_leaves_the_service_out_rather_than_elsewhere() -> None:
    planned = make_plan(view(replace(WEB, fixed_vip="10.112.0.99"), ONE), {})
    assert planned.names == {}


def test_only_the_names_that_a_service_holds_are_published() -> None:
    both = replace(WEB, routes=(*WEB.routes, Route("taken.test", 81, Transport.TCP, 8080)))
    claims = replace(CLAIMS, owners={**CLAIMS.owners, "taken.test": "other/web"})
    planned = make_plan(view(both, ONE, claims=claims), {})
    assert planned.names == {"web.test": VIP}
    assert list(planned.table.virtual_servers) == [KEY]


def test_a_published_port_listens_on_every_address_of_the_worker() -> None:
    service = replace(WEB, publishes=(PortPublication(8080, Transport.TCP, None),))
    claims = replace(CLAIMS, ports={(Transport.TCP, 30001): ("web.test", 8080), (Transport.TCP, 30002): ("x.test", 1)})
    planned = make_plan(view(service, ONE, claims=claims), {}, ["192.0.2.1", "192.0.2.2"])
    assert sorted(planned.table.virtual_servers) == [
        KEY,
        VirtualKey("192.0.2.1", 30001, Transport.TCP),
        VirtualKey("192.0.2.2", 30001, Transport.TCP),
    ]
    assert planned.table.vips == {VIP}, "a worker's own address is not a VIP to bind"


def test_a_published_port_that_is_no_longer_asked_for_is_not_served() -> None:
    claims = replace(CLAIMS, ports={(Transport.TCP, 30001): ("web.test", 8080)})
    assert list(make_plan(view(WEB, ONE, claims=claims), {}, ["192.0.2.1"]).table.virtual_servers) == [KEY]


def test_endpoints_of_the_other_address_family_are_left_out() -> None:
    planned = make_plan(view(WEB, ONE, replace(TWO, address="fd00::2")), {})
    assert list(planned.table.virtual_servers[KEY].real_servers) == [RealKey("10.2.0.1", 8080)]


def test_scheduler_and_persistence_reach_the_virtual_server() -> None:
    planned = make_plan(view(replace(WEB, scheduler=Scheduler.LC, persistence=300), ONE), {})
    server = planned.table.virtual_servers[KEY]
    assert (server.scheduler, server.persistence) == (Scheduler.LC, 300)


def test_a_probe_without_a_port_asks_the_first_routed_container_port() -> None:
    assert probe_targets(view(PROBED, ONE))["w1", "a"][1] == RealKey("10.2.0.1", 8080)
    assert probe_targets(view(WEB, ONE)) == {}


@given(st.permutations([ONE, TWO, replace(ONE, id="c", address="10.2.0.3")]))
def test_the_order_of_the_picture_does_not_matter(endpoints: list[Endpoint]) -> None:
    assert make_plan(view(WEB, *endpoints), {}) == make_plan(view(WEB, *sorted(endpoints, key=lambda e: e.id)), {})


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
def test_what_is_taken_over_from_an_earlier_plan_is_what_would_be_planned_anew(
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
    claims = [encode_service_claim("web.test", vip) for vip in (VIP, "10.112.0.8", "fd00::7")]
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
)


@given(st.lists(st.tuples(STORED, SITES), min_size=2, max_size=5))
def test_a_plan_that_follows_the_store_is_what_would_be_planned_anew(
    stored: list[tuple[dict[str, bytes], tuple[tuple[str, ...], str | None, frozenset[tuple[Transport, int]]]]],
) -> None:
    reader, before = ViewBuilder(), None
    for records, (own, resolver, contested) in stored:
        seen, _ = reader.view(records)
        now = make_plan(seen, seen.health, own, before, resolver=resolver, contested=contested)
        anew = make_plan(replace(seen), dict(seen.health), own, resolver=resolver, contested=contested)
        assert (now, now.parts, now.by_name) == (anew, anew.parts, anew.by_name)
        if before is not None:
            assert changed_virtual_servers(before.table, now.table) <= changed_servers(before, now)
            assert planning_effort(seen, before) >= len(now.parts.keys() - before.parts.keys())
        before = now


def test_two_services_that_claim_one_vip_are_planned_as_if_anew() -> None:
    """No worker gives one VIP twice; a hand in the store may."""
    shop = Service("demo/shop", "shop.test", (Route("shop.test", 80, Transport.TCP, 80),))
    owners = {"web.test": "demo/web", "shop.test": "demo/shop"}
    both = ClusterView((shop, WEB), (ONE,), Claims({"web.test": VIP, "shop.test": VIP}, owners))
    one = replace(both, claims=Claims({"web.test": VIP}, owners))
    other = replace(both, claims=Claims({"shop.test": VIP}, owners))
    for first in (both, one, other):
        for then in (both, one, other):
            assert make_plan(then, then.health, (), make_plan(first, first.health)) == make_plan(then, then.health)


def test_the_part_of_a_service_of_which_nothing_has_changed_is_taken_over() -> None:
    before = make_plan(view(WEB, ONE), {})
    after = make_plan(view(replace(WEB), replace(ONE)), {}, (), before)
    assert after.table.virtual_servers[KEY] is before.table.virtual_servers[KEY]
