"""The digest of a table: equal views have equal digests, and any difference that clients notice changes it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.records.encode import (
    build_view,
    encode_name_claim,
    encode_port_claim,
    encode_registration,
    encode_service_claim,
    encode_verdict,
    encode_vip_claim,
)
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.control.digest import BITS, TableDigest, digest_number, plan_digest
from mesh.control.planner import make_plan
from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import (
    DrainReason,
    Endpoint,
    EndpointKey,
    Forwarding,
    Health,
    PortPublication,
    Route,
    Scheduler,
    SchedulerFlag,
    Service,
    Transport,
)
from mesh.model.view import ClusterView


def two_route_service(name: str) -> Service:
    routes = (Route(f"{name}.test", 80, Transport.TCP, 8080), Route(f"www.{name}.test", 443, Transport.TCP, 8443))
    publishes = (PortPublication(9090, Transport.TCP, None),)
    return Service(f"demo/{name}", f"{name}.test", routes, publishes, probe=Probe(ProbeKind.HTTP, None))


ONE, TWO = (Endpoint(f"web{n}", "demo/web", f"w{n}", f"10.2.0.{n}") for n in (1, 2))
WEB, SHOP = two_route_service("web"), two_route_service("shop")
VIEW = ClusterView(
    (SHOP, WEB),
    (ONE, TWO),
    Claims(
        {"shop.test": "10.112.0.7", "web.test": "10.112.0.8"},
        {name: service.owner for service in (SHOP, WEB) for name in service.names},
        {(Transport.TCP, 30000): ("web.test", 9090), (Transport.TCP, 30001): ("shop.test", 9090)},
    ),
    {ONE.key: Health.HEALTHY, TWO.key: Health.HEALTHY},
)


def of(seen: ClusterView) -> str:
    return plan_digest(make_plan(seen, seen.health))


def with_web(seen: ClusterView, **changes: object) -> ClusterView:
    return replace(seen, services=(SHOP, replace(WEB, **changes)))  # type: ignore[arg-type]


def with_two(seen: ClusterView, **changes: object) -> ClusterView:
    return replace(seen, endpoints=(ONE, replace(TWO, **changes)))  # type: ignore[arg-type]


def with_health(seen: ClusterView, health: Health) -> ClusterView:
    return replace(seen, health={**seen.health, TWO.key: health})


def with_claims(seen: ClusterView, **changes: object) -> ClusterView:
    return replace(seen, claims=replace(seen.claims, **changes))  # type: ignore[arg-type]


DIFFERENCES: dict[str, Callable[[ClusterView], ClusterView]] = {
    "weight": lambda seen: with_two(seen, weight=2),
    "address": lambda seen: with_two(seen, address="10.2.0.3"),
    "port": lambda seen: with_two(seen, port=18080),
    "forwarding": lambda seen: with_two(seen, forwarding=Forwarding.DIRECT),
    "upper threshold": lambda seen: with_two(seen, max_connections=9),
    "lower threshold": lambda seen: with_two(seen, max_connections=9, min_connections=5),
    "drain": lambda seen: with_two(seen, drain=DrainReason.ASKED),
    "gone": lambda seen: replace(seen, endpoints=(ONE,)),
    "another service's": lambda seen: with_two(seen, owner="demo/shop"),
    "unhealthy": lambda seen: with_health(seen, Health.UNHEALTHY),
    "starting": lambda seen: with_health(seen, Health.STARTING),
    "scheduler": lambda seen: with_web(seen, scheduler=Scheduler.LC),
    "flags": lambda seen: with_web(seen, flags=frozenset([SchedulerFlag.PORT])),
    "affinity": lambda seen: with_web(seen, persistence=60),
    "listen port": lambda seen: with_web(seen, routes=(Route("web.test", 81, Transport.TCP, 8080), WEB.routes[1])),
    "transport": lambda seen: with_web(seen, routes=(Route("web.test", 80, Transport.UDP, 8080), WEB.routes[1])),
    "container port": lambda seen: with_web(seen, routes=(Route("web.test", 80, Transport.TCP, 8081), WEB.routes[1])),
    "name": lambda seen: with_web(seen, routes=WEB.routes[:1]),
    "name of another owner": lambda seen: with_claims(
        seen, owners={**seen.claims.owners, "www.web.test": "other/owner"}
    ),
    "VIP": lambda seen: with_claims(seen, vips={**seen.claims.vips, "web.test": "10.112.0.9"}),
    "published no more": lambda seen: with_web(seen, publishes=()),
    "published elsewhere": lambda seen: with_claims(seen, ports={(Transport.TCP, 30002): ("web.test", 9090)}),
    "no service": lambda seen: replace(seen, services=(SHOP,)),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_changes_the_digest(name: str) -> None:
    assert of(DIFFERENCES[name](VIEW)) != of(VIEW)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_digests_are_equal_where_tables_are(name: str) -> None:
    """Who drains and who is gone leave one table behind."""
    here = make_plan(DIFFERENCES[name](VIEW), DIFFERENCES[name](VIEW).health, ["192.0.2.1"])
    for change in DIFFERENCES.values():
        there = make_plan(change(VIEW), change(VIEW).health, ["192.0.2.1"])
        same = (here.table, here.names, here.failed) == (there.table, there.names, there.failed)
        assert (plan_digest(here) == plan_digest(there)) is same


def test_addresses_of_the_worker_do_not_change_the_digest() -> None:
    here = make_plan(VIEW, VIEW.health, ["192.0.2.1", "192.0.2.2"])
    there = make_plan(VIEW, VIEW.health, ["fd00::1"], resolver="10.112.0.1")
    contested = make_plan(VIEW, VIEW.health, ["192.0.2.3"], contested=[(Transport.TCP, 30000)])
    assert len({frozenset(planned.table.virtual_servers) for planned in (here, there, contested)}) == 3
    withheld = make_plan(VIEW, VIEW.health, ["192.0.2.1", "192.0.2.2"], withheld=VIEW.claims.vips.values())
    assert withheld.table != here.table
    assert plan_digest(here) == plan_digest(there) == plan_digest(contested) == plan_digest(withheld)


def test_a_service_without_routes_changes_the_digest() -> None:
    def seen(weight: int) -> ClusterView:
        return with_web(with_two(VIEW, weight=weight), routes=())

    assert of(seen(1)) != of(seen(2))


def test_the_digest_is_short_and_fits_a_double() -> None:
    assert len(of(VIEW)) == BITS // 4 == 12
    assert int(float(digest_number(of(VIEW)))) == digest_number(of(VIEW))
    assert of(ClusterView()) == plan_digest(make_plan(ClusterView(), {})) != of(VIEW)


# ------------------------------------------------------------------------------------------------ order of arrival

RECORDS = list(
    {
        **{k: v for s in (WEB, SHOP) for k, v in encode_service_claim(s.name, VIEW.claims.vips[s.name]).items()},
        **{k: v for name, vip in VIEW.claims.vips.items() for k, v in encode_vip_claim(vip, name).items()},
        **{k: v for name, owner in VIEW.claims.owners.items() for k, v in encode_name_claim(name, owner).items()},
        **{k: v for port, of in VIEW.claims.ports.items() for k, v in encode_port_claim(*port, *of).items()},
        **encode_registration("w1", [WEB, SHOP], [ONE]),
        **encode_registration("w2", [WEB], [TWO]),
        **dict(encode_verdict(worker, (worker, id), health) for (worker, id), health in VIEW.health.items()),
    }.items()
)


@given(st.randoms(use_true_random=False), st.lists(st.integers(0, len(RECORDS)), max_size=4))
def test_equal_views_have_equal_digests_whatever_came_before(order: random.Random, looks: list[int]) -> None:
    arriving = order.sample(RECORDS, len(RECORDS))
    reader, word, planned, last = ViewBuilder(), TableDigest(), None, ""
    for look in [*sorted(looks), len(RECORDS)]:
        seen, problems = reader.view(dict(arriving[:look]))
        planned = make_plan(seen, seen.health, before=planned)
        last = word(planned)
        assert not problems
    assert last == of(build_view(dict(RECORDS))[0])


@dataclass
class _World:
    """What the property changes step by step."""

    weights: dict[EndpointKey, int]
    health: dict[EndpointKey, Health]

    def view(self) -> ClusterView:
        endpoints = tuple(replace(e, weight=self.weights[e.key]) for e in (ONE, TWO))
        return replace(VIEW, endpoints=endpoints, health=dict(self.health))


STEPS = st.lists(
    st.tuples(st.sampled_from([ONE.key, TWO.key]), st.integers(0, 3) | st.sampled_from(list(Health))), max_size=12
)


@given(STEPS)
def test_an_incremental_digest_equals_that_of_the_last_view(
    steps: list[tuple[EndpointKey, int | Health]],
) -> None:
    world = _World(dict.fromkeys([ONE.key, TWO.key], 1), dict(VIEW.health))
    word, planned = TableDigest(), make_plan(VIEW, VIEW.health)
    for key, change in steps:
        if isinstance(change, Health):
            world.health[key] = change
        else:
            world.weights[key] = change
        seen = world.view()
        planned = make_plan(seen, seen.health, before=planned)
        assert word(planned) == of(seen)


@pytest.mark.parametrize("name", ["weight", "unhealthy", "name"])
def test_a_reverted_change_restores_the_digest(name: str) -> None:
    word = TableDigest()
    first = make_plan(VIEW, VIEW.health)
    before = word(first)
    changed = DIFFERENCES[name](VIEW)
    second = make_plan(changed, changed.health, before=first)
    assert word(second) != before
    assert word(make_plan(VIEW, VIEW.health, before=second)) == before
