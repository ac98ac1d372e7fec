"""claims: who gets what, for good."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.claims import (
    ClaimName,
    ClaimPort,
    ClaimVip,
    MoveVip,
    TakeOverName,
    apply_claims,
    claims_in_force,
    plan_claims,
)
from mesh.config.values import Network
from mesh.model.claims import Claims
from mesh.model.service import PortPublication, Route, Service, Transport

POOL = ip_network("10.112.0.0/24")
PORTS = range(30000, 30004)


def service(name: str, owner: str = "", *, vip: str | None = None, publish: int | None = -1) -> Service:
    publishes = () if publish == -1 else (PortPublication(80, Transport.TCP, publish),)
    return Service(owner or f"demo/{name}", name, (Route(name, 80, Transport.TCP, 80),), publishes, vip)


def settle(
    *services: Service, claims: Claims | None = None, pool: Network = POOL, ports: range = PORTS
) -> tuple[Claims, list[str]]:
    """The claims after everything was granted, and the refusals; then nothing more is wished for."""
    begun = claims or Claims()
    wanted, problems = plan_claims(services, begun, pool=pool, ports=ports)
    settled = apply_claims(begun, wanted)
    again, still = plan_claims(services, settled, pool=pool, ports=ports)
    assert again == ()
    assert still == problems, "what was refused stays refused, in the same words"
    return settled, [str(problem) for problem in problems]


def test_a_new_service_wishes_for_its_name_a_vip_and_a_port() -> None:
    wanted, problems = plan_claims([service("web.test", publish=None)], Claims(), pool=POOL, ports=PORTS)
    assert not problems
    name, vip, port = wanted
    assert name == ClaimName("web.test", "demo/web.test")
    assert isinstance(vip, ClaimVip)
    assert ip_address(vip.address) in POOL
    assert isinstance(port, ClaimPort)
    assert port.port in PORTS


NAMES = st.sets(st.from_regex(r"[a-z]{1,3}\.test", fullmatch=True), max_size=40)


@given(NAMES)
def test_vips_are_unique_in_the_pool_and_no_special_address(names: set[str]) -> None:
    settled, problems = settle(*map(service, sorted(names)))
    assert not problems
    assert len(set(settled.vips.values())) == len(names)
    special = {POOL.network_address, POOL.network_address + 1, POOL.broadcast_address}
    assert all(ip_address(vip) in POOL and ip_address(vip) not in special for vip in settled.vips.values())


@given(
    st.lists(st.from_regex(r"[a-z]{1,3}\.test", fullmatch=True), unique=True, max_size=20).flatmap(
        lambda names: st.tuples(st.just(names), st.permutations(names))
    )
)
def test_the_order_of_the_services_does_not_matter(names: tuple[list[str], list[str]]) -> None:
    one, two = (settle(*(service(name, publish=None) for name in some))[0] for some in names)
    assert one == two, "nor the names and ports, although there are fewer ports than services"


@given(NAMES, NAMES)
def test_who_comes_later_moves_nobody(early: set[str], late: set[str]) -> None:
    before, _ = settle(*map(service, sorted(early)))
    after, _ = settle(*map(service, sorted(early | late)), claims=before)
    assert {name: after.vips[name] for name in early} == before.vips


@given(NAMES, NAMES)
def test_exhaustion_refuses_only_who_comes_later_and_nobody_before_the_pool_is_full(
    early: set[str], late: set[str]
) -> None:
    pool = ip_network("10.112.0.0/27")  # 32 addresses, 29 for VIPs
    before, _ = settle(*map(service, sorted(early)), pool=pool)
    after, problems = settle(*map(service, sorted(early | late)), claims=before, pool=pool)
    assert before.vips.items() <= after.vips.items()
    assert len(set(after.vips.values())) == len(after.vips) == min(29, len(early | late))
    assert len(problems) == len(early | late) - len(after.vips)


def test_a_vip_of_which_one_record_is_lost_is_still_given_to_no_other() -> None:
    chosen = settle(service("web.test"))[0].vips["web.test"]
    half = Claims(vips={"gone.test": chosen})
    assert settle(service("web.test"), claims=half)[0].vips["web.test"] != chosen
    _, (problem,) = settle(service("web.test", vip=chosen), claims=half)
    assert "held by gone.test" in problem


def test_a_vip_waits_for_a_service_that_is_gone() -> None:
    before, _ = settle(service("web.test", publish=None))
    meanwhile, _ = settle(*(service(f"n{n}.test") for n in range(100)), claims=before)
    after, _ = settle(service("web.test", publish=None), claims=meanwhile)
    assert after.vips["web.test"] == before.vips["web.test"]
    assert after.ports == before.ports


def test_an_exhausted_pool_refuses_the_new_service_alone() -> None:
    pool = ip_network("10.112.0.0/29")  # 8 addresses, 5 for VIPs
    full, none = settle(*(service(f"n{n}.test") for n in range(5)), pool=pool)
    assert not none
    after, problems = settle(*(service(f"n{n}.test") for n in range(6)), claims=full, pool=pool)
    assert after.vips == full.vips
    (problem,) = problems
    assert "service demo/n5.test: all 5 VIPs of the pool 10.112.0.0/29 are given away; set [vip] pool" in problem


class TestFixedVip:
    def test_is_given_if_asked(self) -> None:
        settled, problems = settle(service("web.test", vip="10.112.0.77"))
        assert (settled.vips, problems) == ({"web.test": "10.112.0.77"}, [])

    def test_is_not_taken_by_an_automatic_choice_of_the_same_moment(self) -> None:
        (automatic,) = settle(service("a.test"))[0].vips.values()
        settled, problems = settle(service("a.test"), service("z.test", vip=automatic))
        assert not problems
        assert settled.vips["z.test"] == automatic

    def test_that_another_holds_is_refused_with_the_holder(self) -> None:
        before, _ = settle(service("web.test"))
        vip = before.vips["web.test"]
        after, problems = settle(service("web.test"), service("x.test", vip=vip), claims=before)
        assert after.vips == before.vips
        assert f"service demo/x.test: the VIP {vip} is held by web.test" in problems[0]

    def test_outside_of_the_pool_is_refused(self) -> None:
        settled, problems = settle(service("web.test", vip="192.0.2.1"))
        assert settled.vips == {}
        assert "the VIP 192.0.2.1 is outside of the pool" in problems[0]

    @pytest.mark.parametrize("vip", ["10.112.0.0", "10.112.0.1", "10.112.0.255"])
    def test_of_the_network_or_the_resolver_is_refused(self, vip: str) -> None:
        settled, problems = settle(service("web.test", vip=vip))
        assert settled.vips == {}
        assert f"service demo/web.test: the VIP {vip} is one of the first two or the last of the pool" in problems[0]

    @pytest.mark.parametrize("vip", ["10.112.0.2", "10.112.0.254"])
    def test_at_either_end_of_what_services_get_is_given(self, vip: str) -> None:
        assert settle(service("web.test", vip=vip))[0].vips == {"web.test": vip}

    def test_moves_a_service_and_keeps_what_it_leaves_from_others(self) -> None:
        before, _ = settle(service("web.test"))
        old = before.vips["web.test"]
        moved = service("web.test", vip="10.112.0.77")
        wanted, _ = plan_claims([moved], before, pool=POOL, ports=PORTS)
        assert wanted == (MoveVip("web.test", old, "10.112.0.77"),)
        after, problems = settle(moved, service("x.test", vip=old), claims=apply_claims(before, wanted))
        assert "held by web.test" in problems[0]
        assert "x.test" not in after.vips


class TestAClaimThatThePoolDoesNotCover:
    """Written by hand, or given before the pool was changed."""

    @pytest.mark.parametrize("vip", ["8.8.8.8", "10.111.255.255", "fd00::7", "10.112.0.1", "10.112.0.255"])
    def test_is_not_in_force_and_told_with_the_remedy(self, vip: str) -> None:
        given = Claims({"web.test": vip, "x.test": "10.112.0.9"}, {"web.test": "demo/web.test"}, {}, {vip: "web.test"})
        assert claims_in_force(given, POOL) == replace(given, vips={"x.test": "10.112.0.9"})
        after, (problem,) = settle(service("web.test"), claims=given)
        assert after == given, "nobody moves a VIP but whoever fixes another"
        assert f"the VIP {vip} is " in problem
        assert "set [vip] pool to one that has it, fix another by the label routing.vip, or forget the claim" in problem
        _, (fixed,) = settle(service("web.test", vip=vip), claims=given)
        assert "write another address or remove the label" in fixed

    def test_gives_way_to_one_that_is_fixed(self) -> None:
        given = Claims({"web.test": "8.8.8.8"}, {"web.test": "demo/web.test"}, {}, {"8.8.8.8": "web.test"})
        after, problems = settle(service("web.test", vip="10.112.0.7"), claims=given)
        assert (after.vips, problems) == ({"web.test": "10.112.0.7"}, [])
        assert claims_in_force(after, POOL) is after


class TestNames:
    def test_the_first_one_keeps_it(self) -> None:
        before, _ = settle(service("web.test", "demo/z"))
        after, problems = settle(service("web.test", "demo/z"), service("web.test", "demo/a"), claims=before)
        assert after == before
        assert "service demo/a: the name web.test is held by demo/z" in problems[0]

    def test_of_two_new_ones_the_same_one_wins_everywhere(self) -> None:
        for order in ((0, 1), (1, 0)):
            both = [service("web.test", "demo/a"), service("web.test", "demo/z")]
            settled, problems = settle(*(both[n] for n in order))
            assert settled.owners == {"web.test": "demo/a"}
            assert len(problems) == 1

    def test_a_name_that_its_holder_no_longer_declares_is_taken_over_with_its_vip(self) -> None:
        before, _ = settle(service("web.test", "demo/old"))
        wanted, problems = plan_claims([service("web.test", "demo/new")], before, pool=POOL, ports=PORTS)
        assert wanted == (TakeOverName("web.test", "demo/old", "demo/new"),)
        assert not problems
        assert apply_claims(before, wanted).vips == before.vips

    def test_a_service_whose_first_name_is_anothers_gets_no_vip(self) -> None:
        before, _ = settle(service("web.test", "demo/z"))
        other = replace(service("web.test", "demo/a", publish=None), fixed_vip="10.112.0.77")
        after, _ = settle(service("web.test", "demo/z"), other, claims=before)
        assert (after.vips, after.ports) == (before.vips, {})


class TestPublishedPorts:
    def test_by_hand_any_port(self) -> None:
        settled, problems = settle(service("web.test", publish=8080))
        assert settled.ports == {(Transport.TCP, 8080): ("web.test", 80)}
        assert not problems

    def test_that_another_holds_is_refused_with_the_holder(self) -> None:
        before, _ = settle(service("web.test", publish=8080))
        after, problems = settle(service("a.test", publish=8080), service("web.test", publish=8080), claims=before)
        assert after.ports == before.ports
        assert "service demo/a.test: the published tcp port 8080 is held by web.test" in problems[0]

    def test_automatic_ones_are_unique_until_the_range_is_used_up(self) -> None:
        settled, problems = settle(*(service(f"n{n}.test", publish=None) for n in range(5)))
        assert sorted(port for _, port in settled.ports) == list(PORTS)
        assert len(problems) == 1
        assert "all 4 published tcp ports are given away; set [publish] ports" in problems[0]

    def test_the_same_number_serves_both_transports(self) -> None:
        both = replace(
            service("web.test"),
            publishes=(PortPublication(53, Transport.TCP, 53), PortPublication(53, Transport.UDP, 53)),
        )
        assert len(settle(both)[0].ports) == 2


@pytest.mark.parametrize(
    ("pool", "vip"), [("10.112.0.0/16", "10.112.175.109"), ("fd00:112::/64", "fd00:112::f13e:ec36:277f:791a")]
)
def test_the_choice_is_the_same_in_every_process(pool: str, vip: str) -> None:
    assert settle(service("restserver.local"), pool=ip_network(pool))[0].vips == {"restserver.local": vip}
