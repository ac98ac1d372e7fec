"""Claims: which service gets which name, VIP and port, permanently."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.claims import (
    ClaimName,
    ClaimPort,
    ClaimRequest,
    ClaimVip,
    MoveVip,
    PutBackVip,
    RecordOlderNames,
    TakeOverName,
    apply_claims,
    claims_in_force,
    plan_claims,
)
from mesh.config.name_policy import NamePolicy
from mesh.config.values import Network
from mesh.model.claims import ClaimQuotas, Claims, LapsedClaims
from mesh.model.codes import Code
from mesh.model.problem import Severity
from mesh.model.service import PortPublication, Route, Service, Transport
from tests.builders import SMALL_POOL, service

PORTS = range(30000, 30004)


def claiming(name: str, owner: str = "", *, vip: str | None = None, publish: int | None = -1) -> Service:
    publishes = () if publish == -1 else (PortPublication(80, Transport.TCP, publish),)
    return service(name, owner=owner or f"demo/{name}", publishes=publishes, fixed_vip=vip)


def settle(
    *services: Service, claims: Claims | None = None, pool: Network = SMALL_POOL, ports: range = PORTS
) -> tuple[Claims, list[str]]:
    """The claims after everything was granted, and the refusals; then nothing more is wished for."""
    begun = claims or Claims()
    wanted, problems = plan_claims(services, begun, pool=pool, ports=ports)
    settled = apply_claims(begun, wanted)
    again, still = plan_claims(services, settled, pool=pool, ports=ports)
    assert again == ()
    assert still == problems, "what was refused stays refused, in the same words"
    return settled, [str(problem) for problem in problems]


def test_a_new_service_requests_its_name_a_vip_and_a_port() -> None:
    wanted, problems = plan_claims([claiming("web.test", publish=None)], Claims(), pool=SMALL_POOL, ports=PORTS)
    assert not problems
    name, vip, port = wanted
    assert name == ClaimName("web.test", "demo/web.test")
    assert isinstance(vip, ClaimVip)
    assert ip_address(vip.address) in SMALL_POOL
    assert isinstance(port, ClaimPort)
    assert port.port in PORTS


NAMES = st.sets(st.from_regex(r"[a-z]{1,3}\.test", fullmatch=True), max_size=40)


@given(NAMES)
def test_vips_are_unique_and_never_a_reserved_address(names: set[str]) -> None:
    settled, problems = settle(*map(service, sorted(names)))
    assert not problems
    assert len(set(settled.vips.values())) == len(names)
    special = {SMALL_POOL.network_address, SMALL_POOL.network_address + 1, SMALL_POOL.broadcast_address}
    assert all(ip_address(vip) in SMALL_POOL and ip_address(vip) not in special for vip in settled.vips.values())


@given(
    st.lists(st.from_regex(r"[a-z]{1,3}\.test", fullmatch=True), unique=True, max_size=20).flatmap(
        lambda names: st.tuples(st.just(names), st.permutations(names))
    )
)
def test_the_order_of_the_services_does_not_matter(names: tuple[list[str], list[str]]) -> None:
    one, two = (settle(*(claiming(name, publish=None) for name in some))[0] for some in names)
    assert one == two, "nor the names and ports, although there are fewer ports than services"


@given(NAMES, NAMES)
def test_a_later_service_moves_no_other(early: set[str], late: set[str]) -> None:
    before, _ = settle(*map(service, sorted(early)))
    after, _ = settle(*map(service, sorted(early | late)), claims=before)
    assert {name: after.vips[name] for name in early} == before.vips


@given(NAMES, NAMES)
def test_only_later_services_are_refused_and_only_when_the_pool_is_full(early: set[str], late: set[str]) -> None:
    pool = ip_network("10.112.0.0/27")  # 32 addresses, 29 for VIPs
    before, _ = settle(*map(service, sorted(early)), pool=pool)
    after, problems = settle(*map(service, sorted(early | late)), claims=before, pool=pool)
    assert before.vips.items() <= after.vips.items()
    assert len(set(after.vips.values())) == len(after.vips) == min(29, len(early | late))
    assert len(problems) == len(early | late) - len(after.vips)


def test_a_vip_with_one_lost_record_is_given_to_no_other_service() -> None:
    chosen = settle(claiming("web.test"))[0].vips["web.test"]
    half = Claims(vips={"gone.test": chosen})
    assert settle(claiming("web.test"), claims=half)[0].vips["web.test"] != chosen
    _, (problem,) = settle(claiming("web.test", vip=chosen), claims=half)
    assert "held by gone.test" in problem


def test_a_vip_is_reserved_for_a_removed_service() -> None:
    before, _ = settle(claiming("web.test", publish=None))
    meanwhile, _ = settle(*(claiming(f"n{n}.test") for n in range(100)), claims=before)
    after, _ = settle(claiming("web.test", publish=None), claims=meanwhile)
    assert after.vips["web.test"] == before.vips["web.test"]
    assert after.ports == before.ports


@given(
    st.sets(st.sampled_from([f"{n}.test" for n in range(12)]), min_size=1),
    st.lists(st.sampled_from(["10.112.0.0/29", "10.112.0.8/30", "10.112.0.12/30", "10.0.0.0/8", "192.0.2.0/24"])),
)
def test_vips_are_chosen_outside_of_networks_to_avoid_while_there_are_others(names: set[str], avoid: list[str]) -> None:
    pool, networks = ip_network("10.112.0.0/28"), [ip_network(text) for text in avoid]
    services = [claiming(name) for name in names]
    wanted, problems = plan_claims(services, Claims(), pool=pool, ports=PORTS, avoid=networks)
    vips = [ip_address(wish.address) for wish in wanted if isinstance(wish, ClaimVip)]
    usable = [pool[n] for n in range(2, 15)]
    outside = [address for address in usable if not any(address in network for network in networks)]
    assert (problems, len(set(vips)), set(vips) <= set(usable)) == ((), len(names), True)
    assert len(set(vips) & set(outside)) == min(len(names), len(outside))


def test_an_exhausted_pool_refuses_only_the_new_service() -> None:
    pool = ip_network("10.112.0.0/29")  # 8 addresses, 5 for VIPs
    full, none = settle(*(claiming(f"n{n}.test") for n in range(5)), pool=pool)
    assert not none
    after, problems = settle(*(claiming(f"n{n}.test") for n in range(6)), claims=full, pool=pool)
    assert after.vips == full.vips
    (problem,) = problems
    assert "service demo/n5.test: all 5 VIPs of the pool 10.112.0.0/29 are given away; set [vip] pool" in problem


class TestFixedVip:
    def test_is_granted_on_request(self) -> None:
        settled, problems = settle(claiming("web.test", vip="10.112.0.77"))
        assert (settled.vips, problems) == ({"web.test": "10.112.0.77"}, [])

    def test_is_not_taken_by_a_simultaneous_automatic_choice(self) -> None:
        (automatic,) = settle(claiming("a.test"))[0].vips.values()
        settled, problems = settle(claiming("a.test"), claiming("z.test", vip=automatic))
        assert not problems
        assert settled.vips["z.test"] == automatic

    def test_held_by_another_service_is_refused_and_the_holder_named(self) -> None:
        before, _ = settle(claiming("web.test"))
        vip = before.vips["web.test"]
        after, problems = settle(claiming("web.test"), claiming("x.test", vip=vip), claims=before)
        assert after.vips == before.vips
        assert f"service demo/x.test: the VIP {vip} is held by web.test" in problems[0]

    def test_outside_of_the_pool_is_refused(self) -> None:
        settled, problems = settle(claiming("web.test", vip="192.0.2.1"))
        assert settled.vips == {}
        assert "the VIP 192.0.2.1 is outside of the pool" in problems[0]

    @pytest.mark.parametrize("vip", ["10.112.0.0", "10.112.0.1", "10.112.0.255"])
    def test_reserved_for_the_network_or_the_resolver_is_refused(self, vip: str) -> None:
        settled, problems = settle(claiming("web.test", vip=vip))
        assert settled.vips == {}
        assert f"service demo/web.test: the VIP {vip} is one of the first two or the last of the pool" in problems[0]

    @pytest.mark.parametrize("vip", ["10.112.0.2", "10.112.0.254"])
    def test_first_or_last_of_the_usable_range_is_granted(self, vip: str) -> None:
        assert settle(claiming("web.test", vip=vip))[0].vips == {"web.test": vip}

    def test_moves_a_service_and_reserves_its_former_vip(self) -> None:
        before, _ = settle(claiming("web.test"))
        old = before.vips["web.test"]
        moved = claiming("web.test", vip="10.112.0.77")
        wanted, _ = plan_claims([moved], before, pool=SMALL_POOL, ports=PORTS)
        assert wanted == (MoveVip("web.test", old, "10.112.0.77"),)
        after, problems = settle(moved, claiming("x.test", vip=old), claims=apply_claims(before, wanted))
        assert "held by web.test" in problems[0]
        assert "x.test" not in after.vips


class TestAVipWhoseRecordByAddressHasAnotherName:
    """Somebody rewrote one of the two records of a VIP while the service was away."""

    OWNERS = {"web.test": "demo/web.test", "x.test": "demo/x.test"}  # noqa: RUF012 -- never changed

    @pytest.mark.parametrize("others", [{}, {"x.test": "10.112.0.9"}])
    @pytest.mark.parametrize("fixed", [None, "10.112.0.7"])
    def test_is_put_back_if_that_name_does_not_have_it(self, others: dict[str, str], fixed: str | None) -> None:
        given = Claims({"web.test": "10.112.0.7", **others}, self.OWNERS, {}, {"10.112.0.7": "x.test"})
        wanted, problems = plan_claims([claiming("web.test", vip=fixed)], given, pool=SMALL_POOL, ports=PORTS)
        assert (wanted, problems) == ((PutBackVip("web.test", "10.112.0.7", "x.test"),), ())
        in_force = claims_in_force(apply_claims(given, wanted), SMALL_POOL)
        assert in_force.vips["web.test"] == "10.112.0.7"

    def test_is_replaced_if_that_name_has_it_too(self) -> None:
        given = Claims({"web.test": "10.112.0.7", "x.test": "10.112.0.7"}, self.OWNERS, {}, {"10.112.0.7": "x.test"})
        after, problems = settle(claiming("web.test"), claiming("x.test"), claims=given)
        assert not problems
        assert claims_in_force(after, SMALL_POOL).vips["x.test"] == "10.112.0.7"
        assert claims_in_force(after, SMALL_POOL).vips["web.test"] != "10.112.0.7"

    def test_is_refused_if_that_name_has_it_too_and_a_label_asks_for_it(self) -> None:
        vips = {"web.test": "10.112.0.7", "x.test": "10.112.0.7"}
        given = Claims(vips, self.OWNERS, {}, {"10.112.0.7": "x.test"})
        after, (problem,) = settle(claiming("web.test", vip="10.112.0.7"), claiming("x.test"), claims=given)
        assert after == given
        assert "the VIP 10.112.0.7 is held by x.test" in problem

    @given(st.data())
    def test_whatever_the_records_say_each_service_has_a_vip_or_a_problem(self, data: st.DataObject) -> None:
        names = [f"s{number}.test" for number in range(4)]
        addresses = st.sampled_from([f"10.112.0.{number}" for number in range(7)])
        vips = data.draw(st.dictionaries(st.sampled_from(names), addresses))
        holders = data.draw(st.dictionaries(addresses, st.sampled_from([*names, "away.test"])))
        pool = ip_network("10.112.0.0/29")
        services = [claiming(name, vip=data.draw(st.none() | addresses)) for name in names]
        claims = Claims(vips, {service.name: service.owner for service in services}, {}, holders)
        for _ in range(3):
            claims = apply_claims(claims, plan_claims(services, claims, pool=pool, ports=PORTS)[0])
        wanted, problems = plan_claims(services, claims, pool=pool, ports=PORTS)
        assert wanted == ()
        in_force = claims_in_force(claims, pool).vips
        assert len(set(in_force.values())) == len(in_force)
        silent = [name for name in names if name not in in_force and not any(name in str(p) for p in problems)]
        assert silent == []


class TestAClaimThatThePoolDoesNotCover:
    """Written by hand, or given before the pool was changed."""

    @pytest.mark.parametrize("vip", ["8.8.8.8", "10.111.255.255", "fd00::7", "10.112.0.1", "10.112.0.255"])
    def test_is_not_in_force_and_reported_with_a_remedy(self, vip: str) -> None:
        given = Claims({"web.test": vip, "x.test": "10.112.0.9"}, {"web.test": "demo/web.test"}, {}, {vip: "web.test"})
        assert claims_in_force(given, SMALL_POOL) == replace(given, vips={"x.test": "10.112.0.9"})
        after, (problem,) = settle(claiming("web.test"), claims=given)
        assert after == given, "nobody moves a VIP but whoever fixes another"
        assert f"the VIP {vip} is " in problem
        assert "set [vip] pool to one that has it, fix another by the label routing.vip, or forget the claim" in problem
        _, (fixed,) = settle(claiming("web.test", vip=vip), claims=given)
        assert "write another address or remove the label" in fixed

    def test_is_replaced_by_a_fixed_vip(self) -> None:
        given = Claims({"web.test": "8.8.8.8"}, {"web.test": "demo/web.test"}, {}, {"8.8.8.8": "web.test"})
        after, problems = settle(claiming("web.test", vip="10.112.0.7"), claims=given)
        assert (after.vips, problems) == ({"web.test": "10.112.0.7"}, [])
        assert claims_in_force(after, SMALL_POOL) is after


class TestNames:
    def test_the_first_holder_keeps_its_name(self) -> None:
        before, _ = settle(claiming("web.test", "demo/z"))
        after, problems = settle(claiming("web.test", "demo/z"), claiming("web.test", "demo/a"), claims=before)
        assert after == before
        assert "service demo/a: the name web.test is held by demo/z" in problems[0]

    def test_of_two_new_services_the_same_one_wins_on_every_worker(self) -> None:
        for order in ((0, 1), (1, 0)):
            both = [claiming("web.test", "demo/a"), claiming("web.test", "demo/z")]
            settled, problems = settle(*(both[n] for n in order))
            assert settled.owners == {"web.test": "demo/a"}
            assert len(problems) == 1

    def test_a_name_that_its_holder_no_longer_declares_is_taken_over_with_its_vip(self) -> None:
        before, _ = settle(claiming("web.test", "demo/old"))
        wanted, problems = plan_claims([claiming("web.test", "demo/new")], before, pool=SMALL_POOL, ports=PORTS)
        assert wanted == (TakeOverName("web.test", "demo/old", "demo/new"),)
        assert not problems
        assert apply_claims(before, wanted).vips == before.vips

    def test_a_service_whose_first_name_is_held_by_another_gets_no_vip(self) -> None:
        before, _ = settle(claiming("web.test", "demo/z"))
        other = replace(claiming("web.test", "demo/a", publish=None), fixed_vip="10.112.0.77")
        after, _ = settle(claiming("web.test", "demo/z"), other, claims=before)
        assert (after.vips, after.ports) == (before.vips, {})


class TestPublishedPorts:
    def test_any_port_can_be_fixed(self) -> None:
        settled, problems = settle(claiming("web.test", publish=8080))
        assert settled.ports == {(Transport.TCP, 8080): ("web.test", 80)}
        assert not problems

    def test_held_by_another_service_is_refused_and_the_holder_named(self) -> None:
        before, _ = settle(claiming("web.test", publish=8080))
        after, problems = settle(claiming("a.test", publish=8080), claiming("web.test", publish=8080), claims=before)
        assert after.ports == before.ports
        assert "service demo/a.test: the published tcp port 8080 is held by web.test" in problems[0]

    def test_that_leads_to_another_container_port_stays_with_its_service(self) -> None:
        before, _ = settle(claiming("web.test", publish=8080))
        moved = replace(claiming("web.test"), publishes=(PortPublication(81, Transport.TCP, 8080),))
        after, problems = settle(moved, claims=before)
        assert after.ports == {(Transport.TCP, 8080): ("web.test", 81)}
        assert not problems

    def test_that_a_service_declares_twice_leads_to_one_container_port(self) -> None:
        both = (PortPublication(80, Transport.TCP, 8080), PortPublication(81, Transport.TCP, 8080))
        settled, problems = settle(replace(claiming("web.test"), publishes=both))
        assert settled.ports == {(Transport.TCP, 8080): ("web.test", 80)}
        assert len(problems) == 1

    def test_automatic_ports_are_unique_until_the_range_is_exhausted(self) -> None:
        settled, problems = settle(*(claiming(f"n{n}.test", publish=None) for n in range(5)))
        assert sorted(port for _, port in settled.ports) == list(PORTS)
        assert len(problems) == 1
        assert "all 4 published tcp ports are given away; set [publish] ports" in problems[0]

    def test_one_port_number_can_be_published_for_both_transports(self) -> None:
        both = replace(
            claiming("web.test"),
            publishes=(PortPublication(53, Transport.TCP, 53), PortPublication(53, Transport.UDP, 53)),
        )
        assert len(settle(both)[0].ports) == 2


@pytest.mark.parametrize(
    ("pool", "vip"), [("10.112.0.0/16", "10.112.175.109"), ("fd00:112::/64", "fd00:112::f13e:ec36:277f:791a")]
)
def test_the_choice_is_the_same_in_every_process(pool: str, vip: str) -> None:
    assert settle(claiming("restserver.local"), pool=ip_network(pool))[0].vips == {"restserver.local": vip}


class TestNamesOutsideTheAllowedDomains:
    POLICY = NamePolicy("mesh.internal", ("local", "test"), ("lab.test",))

    def planned(self, claims: Claims, *services: Service) -> tuple[Claims, list[tuple[Severity, str]]]:
        wanted, problems = plan_claims(services, claims, pool=SMALL_POOL, ports=PORTS, policy=self.POLICY)
        settled = apply_claims(claims, wanted)
        again, still = plan_claims(services, settled, pool=SMALL_POOL, ports=PORTS, policy=self.POLICY)
        assert (again, still) == ((), problems)
        assert {problem.code for problem in problems} <= {Code.NAME_NOT_ALLOWED}
        return settled, [(problem.severity, problem.owner or "") for problem in problems]

    def test_a_new_name_is_refused_and_takes_nothing(self) -> None:
        settled, problems = self.planned(Claims(), claiming("github.com"), claiming("web.test"))
        assert problems == [(Severity.ERROR, "demo/github.com")]
        assert set(settled.owners) == set(settled.vips) == {"web.test"}
        assert settled.older_names == frozenset()

    def test_a_name_that_was_served_before_goes_on_with_a_warning(self) -> None:
        old = Claims({"github.com": "10.112.0.9"}, {"github.com": "demo/github.com"}, {}, {"10.112.0.9": "github.com"})
        assert claims_in_force(old, SMALL_POOL, self.POLICY) is old, "also before the older names are recorded"
        settled, problems = self.planned(old, claiming("github.com"))
        assert problems == [(Severity.WARNING, "demo/github.com")]
        assert settled.older_names == frozenset({"github.com"})
        assert claims_in_force(settled, SMALL_POOL, self.POLICY) == settled

    def test_another_owner_does_not_inherit_an_older_name(self) -> None:
        old = Claims(owners={"github.com": "demo/old"}, older_names=frozenset({"github.com"}))
        settled, problems = self.planned(old, claiming("github.com", "demo/new"))
        assert problems == [(Severity.ERROR, "demo/new")]
        assert settled.owners == old.owners
        both = [claiming("github.com", "demo/new"), claiming("github.com", "demo/old")]
        assert self.planned(old, *both)[1] == [(Severity.ERROR, "demo/new"), (Severity.WARNING, "demo/old")]

    def test_a_name_that_a_worker_without_the_rule_claims_later_is_not_in_force(self) -> None:
        later = Claims(
            {"github.com": "10.112.0.9", "web.test": "10.112.0.8"},
            {"github.com": "demo/github.com", "web.test": "demo/web.test"},
            older_names=frozenset(),
        )
        assert set(claims_in_force(later, SMALL_POOL, self.POLICY).owners) == {"web.test"}
        _, problems = self.planned(later, claiming("github.com"))
        assert problems == [(Severity.ERROR, "demo/github.com")]

    def test_the_older_names_are_recorded_once_by_whoever_comes_first(self) -> None:
        old = Claims(owners={"github.com": "demo/a", "web.test": "demo/b"})
        wanted, _ = plan_claims([], old, pool=SMALL_POOL, ports=PORTS, policy=self.POLICY)
        assert wanted == (RecordOlderNames(("github.com",)),)
        assert not plan_claims([], apply_claims(old, wanted), pool=SMALL_POOL, ports=PORTS, policy=self.POLICY)[0]


class TestTakeOver:
    """Who may have a name or port that its holder does not declare, by how long that lasts."""

    RELEASED = LapsedClaims(frozenset({"web.test"}), idle=("web.test",))
    KEPT = LapsedClaims(
        frozenset({"web.test"}), frozenset({"web.test"}), frozenset({(Transport.TCP, 8080)}), ("web.test",)
    )

    @pytest.mark.parametrize(
        ("lapsed", "owner", "holder_runs", "taken"),
        [
            (LapsedClaims(), "demo/new", False, False),
            (LapsedClaims(), "demo/new", True, False),
            (LapsedClaims(), "other/web", True, False),
            (RELEASED, "demo/new", False, True),
            (RELEASED, "demo/new", True, True),
            (RELEASED, "other/web", True, True),
            (RELEASED, "other/web", False, False),
            (RELEASED, "demolition/web", False, False),
            (KEPT, "other/web", False, True),
            (KEPT, "other/web", True, True),
        ],
    )
    def test_depends_on_the_time_the_project_and_whether_the_holder_runs(
        self, lapsed: LapsedClaims, owner: str, *, holder_runs: bool, taken: bool
    ) -> None:
        before, _ = settle(claiming("web.test", "demo/old"))
        others = [claiming("old.test", "demo/old")] if holder_runs else []
        after, problems = settle(claiming("web.test", owner), *others, claims=replace(before, lapsed=lapsed))
        assert after.owners["web.test"] == (owner if taken else "demo/old")
        assert after.vips["web.test"] == before.vips["web.test"], "the VIP goes with the name"
        assert ["the name web.test is held by demo/old, which does not declare it now" in p for p in problems] == (
            [] if taken else [True]
        )

    @given(st.sampled_from([LapsedClaims(), RELEASED, KEPT]), st.sampled_from(["demo/new", "other/web"]))
    def test_never_a_name_that_its_holder_declares(self, lapsed: LapsedClaims, owner: str) -> None:
        before, _ = settle(claiming("web.test", "demo/old", publish=8080))
        both = claiming("web.test", "demo/old", publish=8080), claiming("web.test", owner, publish=8080)
        after, problems = settle(*both, claims=replace(before, lapsed=lapsed))
        assert (after, len(problems)) == (replace(before, lapsed=lapsed), 1)

    @pytest.mark.parametrize("lapsed", [LapsedClaims(), RELEASED, KEPT])
    def test_a_published_port_only_when_nobody_has_declared_it_for_long(self, lapsed: LapsedClaims) -> None:
        before, _ = settle(claiming("web.test", publish=8080))
        after, problems = settle(claiming("x.test", publish=8080), claims=replace(before, lapsed=lapsed))
        taken = bool(lapsed.ports)
        assert after.ports == {(Transport.TCP, 8080): ("x.test" if taken else "web.test", 80)}
        assert bool(problems) == (not taken)

    def test_an_automatic_port_when_the_range_is_exhausted(self) -> None:
        before, _ = settle(*(claiming(f"n{n}.test", publish=None) for n in range(4)))
        gone = replace(before, lapsed=LapsedClaims(ports=frozenset({(Transport.TCP, 30002)})))
        after, problems = settle(claiming("x.test", publish=None), claiming("y.test", publish=None), claims=gone)
        assert [str(key) for key, (name, _) in after.ports.items() if name in ("x.test", "y.test")] == [
            str((Transport.TCP, 30002))
        ]
        assert "all 4 published tcp ports are given away" in problems[0]

    def test_a_full_pool_gives_the_vip_that_is_unused_for_the_longest_time(self) -> None:
        pool = ip_network("10.112.0.0/29")  # 5 VIPs
        names = [f"n{n}.test" for n in range(5)]
        full, _ = settle(*map(claiming, names), pool=pool)
        gone = ("n3.test", "n1.test")
        timed = replace(full, lapsed=LapsedClaims(frozenset(gone), idle=gone))
        remaining = [claiming(name) for name in names if name not in gone]
        after, problems = settle(*remaining, claiming("x.test"), claims=timed, pool=pool)
        assert not problems
        assert after.vips["x.test"] == full.vips["n3.test"]
        assert "n3.test" not in after.vips
        assert after.holders[full.vips["n3.test"]] == "x.test"
        rest = {name: vip for name, vip in full.vips.items() if name != "n3.test"}
        assert rest.items() <= after.vips.items(), "no other service is moved"

    def test_a_pool_with_room_gives_no_vip_a_second_time(self) -> None:
        before, _ = settle(*(claiming(f"n{n}.test") for n in range(5)))
        timed = replace(before, lapsed=LapsedClaims(frozenset(before.owners), idle=tuple(before.owners)))
        after, _ = settle(claiming("x.test"), claims=timed)
        assert after.vips["x.test"] not in before.vips.values()
        assert before.vips.items() <= after.vips.items()


QUOTAS = ClaimQuotas(container_names=4, container_ports=2, owner_names=6, owner_ports=3)


def with_names(owner: str, names: Iterable[str], ports: Iterable[int | None] = ()) -> Service:
    """A service with these names, and with these published ports for container ports from 1 on."""
    routes = tuple(Route(name, 80, Transport.TCP, 80) for name in names)
    publishes = tuple(PortPublication(n, Transport.TCP, port) for n, port in enumerate(ports, 1))
    return Service(owner, routes[0].name, routes, publishes)


class TestQuotas:
    """What one container and one owner may claim."""

    def plan(
        self, service: Service, claims: Claims, quotas: ClaimQuotas = QUOTAS
    ) -> tuple[Claims, list[Code], Sequence[ClaimRequest]]:
        wanted, problems = plan_claims([service], claims, pool=SMALL_POOL, ports=PORTS, quotas=quotas)
        settled = apply_claims(claims, wanted)
        again, still = plan_claims([service], settled, pool=SMALL_POOL, ports=PORTS, quotas=quotas)
        assert (again, still) == ((), problems)
        return settled, [problem.code for problem in problems], wanted

    @given(st.integers(1, 12), st.integers(0, 6))
    def test_a_container_gets_the_first_of_its_names_and_ports(self, names: int, ports: int) -> None:
        service = with_names("p/a", [f"n{n}.test" for n in range(names)], range(8000, 8000 + ports))
        settled, codes, _ = self.plan(service, Claims())
        assert set(settled.owners) == {f"n{n}.test" for n in range(min(names, 4))}
        assert {port for _, port in settled.ports} == set(range(8000, 8000 + min(ports, 2)))
        assert codes == [Code.CLAIM_QUOTA] * (max(names - 4, 0) + max(ports - 2, 0))

    def test_automatic_ports_count_as_fixed_ones(self) -> None:
        settled, codes, _ = self.plan(with_names("p/a", ["a.test"], [None] * 4), Claims())
        assert (len(settled.ports), codes) == (2, [Code.CLAIM_QUOTA] * 2)

    @given(st.integers(5, 12), st.integers(3, 6))
    def test_what_is_held_already_stays(self, names: int, ports: int) -> None:
        service = with_names("p/a", [f"n{n}.test" for n in range(names)], range(8000, 8000 + ports))
        before, none, _ = self.plan(service, Claims(), ClaimQuotas(99, 99, 99, 99))
        after, codes, wanted = self.plan(service, before)
        assert (none, after, codes, wanted) == ([], before, [], ())

    def test_an_owner_is_refused_what_it_holds_too_many_of(self) -> None:
        held = Claims(
            {"old0.test": "10.112.0.9"},
            {f"old{n}.test": "p/a" for n in range(5)},
            {(Transport.TCP, 9000 + n): ("old0.test", n) for n in range(3)},
            {"10.112.0.9": "old0.test"},
        )
        settled, codes, _ = self.plan(with_names("p/a", ["a.test", "b.test"], [8000]), held)
        assert settled.owners == {**held.owners, "a.test": "p/a"}
        assert settled.ports == held.ports
        assert codes == [Code.CLAIM_QUOTA] * 2
        other, codes, _ = self.plan(with_names("p/b", ["a.test", "b.test"], [8000]), held)
        assert (len(other.owners), len(other.ports), codes) == (7, 4, []), "another owner is not concerned"

    @given(st.permutations([f"old{n}.test" for n in range(6)]), st.integers(0, 6))
    def test_a_full_owner_gives_up_its_longest_unused_names(self, idle: list[str], past_grace: int) -> None:
        lapsed = LapsedClaims(frozenset(idle[:past_grace]), idle=tuple(idle[:past_grace]))
        held = Claims(owners=dict.fromkeys(sorted(idle), "p/a"), lapsed=lapsed)
        settled, codes, _ = self.plan(with_names("p/a", ["a.test", "b.test", "c.test"]), held)
        new = {name for name in settled.owners if not name.startswith("old")}
        assert len(settled.owners) == 6
        assert new == {"a.test", "b.test", "c.test"} if past_grace >= 3 else len(new) == past_grace
        assert settled.owners.keys() - new == set(idle[len(new) :])
        assert len(codes) == 3 - len(new)

    def test_a_name_that_is_taken_over_counts_for_the_one_who_takes_it(self) -> None:
        lapsed = LapsedClaims(frozenset({"old0.test"}), idle=("old0.test",))
        held = Claims(owners={f"n{n}.test": "p/a" for n in range(6)} | {"old0.test": "p/old"}, lapsed=lapsed)
        settled, codes, _ = self.plan(with_names("p/a", ["old0.test"]), held)
        assert (settled.owners, codes) == (held.owners, [Code.CLAIM_QUOTA])

    def test_the_defaults(self) -> None:
        service = with_names("p/a", [f"n{n}.test" for n in range(40)], range(8000, 8020))
        settled, codes, _ = self.plan(service, Claims(), ClaimQuotas())
        assert (len(settled.owners), len(settled.ports), len(codes)) == (32, 16, 12)
