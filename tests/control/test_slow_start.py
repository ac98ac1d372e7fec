"""Slow start: the weight of a new endpoint grows by few steps, is never 0, and leaves the shares of releases exact."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.explain.query import explain
from mesh.api.status import worker_status
from mesh.control.digest import TableDigest
from mesh.control.planner import Plan, make_plan
from mesh.control.share_overlay import ShareOverlay
from mesh.control.shares import TENTHS, ShareMember, weigh
from mesh.control.slow_start import PassTime, SlowStarts, ramp_tenths
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.control.view import EffectiveView, ViewInputs, effective_view
from mesh.dataplane.nftables.balancer import MAX_SLOTS, choose_balancer
from mesh.dataplane.userspace.scheduler import RealServerScheduler
from mesh.model.claims import Claims
from mesh.model.release_shares import WHOLE, ReleaseShares
from mesh.model.service import MAX_SLOW_START, DrainReason, Endpoint, Health, Scheduler, Service
from mesh.model.table import RealKey, VirtualServer
from mesh.model.validation import MAX_WEIGHT
from mesh.model.view import ClusterView
from tests.builders import HTTP_PROBE, WEB_KEY, WEB_VIP, endpoint, service, view

WEB = service("web.test", probe=HTTP_PROBE)
CLAIMS = Claims({"web.test": WEB_VIP}, {"web.test": WEB.owner}, {}, {WEB_VIP: "web.test"})
EPOCH = 1_796_000_000.0


def made(id: str, number: int, *, weight: int = 1, slow: int = 10, release: str | None = None) -> Endpoint:
    return replace(
        endpoint(id, address=f"10.2.0.{number}", weight=weight, release=release), slow_start=slow, run=f"{id}-1"
    )


OLD = tuple(made(f"old-{number}", number) for number in range(1, 4))
NEW, LATER = made("new", 9), made("later", 10)


def seen(
    *endpoints: Endpoint,
    unhealthy: Sequence[str] = (),
    silent: Sequence[str] = (),
    shares: ReleaseShares | None = None,
    of: Service = WEB,
) -> ClusterView:
    """A view of these endpoints, all healthy but those whose IDs are named; the `silent` ones have no verdict."""
    health = {
        each.key: Health.UNHEALTHY if each.id in unhealthy else Health.HEALTHY
        for each in endpoints
        if each.id not in silent
    }
    ordered = sorted(endpoints, key=lambda each: each.id)
    return replace(
        view(of, *ordered, claims=CLAIMS, health=health), shares={} if shares is None else {of.owner: shares}
    )


@dataclass
class Watch:
    """The pipeline of one worker, pass by pass."""

    last: EffectiveView | None = None

    def sees(self, of: ClusterView, at: float) -> dict[str, int]:
        """Make a pass and return the weights in the plan, by the ID of the endpoint."""
        starts = SlowStarts() if self.last is None else self.last.slow_starts
        time = PassTime(at, EPOCH + at)
        self.last = effective_view(ViewInputs("w9", of, slow_starts=starts, time=time), self.last)
        fresh = effective_view(ViewInputs("w9", of, slow_starts=starts, time=time))
        assert self.last.traffic == fresh.traffic, "the result before only saves time"
        assert self.last.slow_starts.after(fresh.shared.base, time) == self.last.slow_starts, "the same look again"
        return self.weights

    @property
    def weights(self) -> dict[str, int]:
        assert self.last is not None
        found = self.server.real_servers
        return {
            each.id: found[RealKey(each.address, 80)].weight
            for each in self.last.traffic.endpoints
            if RealKey(each.address, 80) in found
        }

    @property
    def server(self) -> VirtualServer:
        return self.plan.table.virtual_servers[WEB_KEY]

    @property
    def plan(self) -> Plan:
        assert self.last is not None
        return make_plan(self.last.traffic, self.last.traffic.health)

    @property
    def next_step(self) -> float:
        assert self.last is not None
        return self.last.slow_starts.next_step


def watching(of: ClusterView, at: float = 100.0) -> Watch:
    watch = Watch()
    watch.sees(of, at)
    return watch


# ------------------------------------------------------------------------------------------------ the length of a ramp


@given(st.integers(1, MAX_SLOW_START))
def test_a_ramp_has_few_steps_at_whole_seconds_and_ends_in_time(seconds: int) -> None:
    by_second = [ramp_tenths(age, seconds) for age in range(seconds + 2)]
    assert by_second == sorted(by_second)
    assert by_second[0] == 1
    assert by_second[seconds - 1] < TENTHS
    assert by_second[seconds] == TENTHS
    assert sum(one != other for one, other in pairwise(by_second)) <= TENTHS - 1
    assert [ramp_tenths(age + 0.99, seconds) for age in range(seconds)] == by_second[:seconds]


@given(st.integers(1, MAX_SLOW_START))
def test_the_next_step_is_known_and_nothing_happens_before_it(seconds: int) -> None:
    new = replace(NEW, slow_start=seconds)
    watch = watching(seen(*OLD))
    watch.sees(seen(*OLD, new), 200.0)
    steps = []
    while watch.next_step != float("inf"):
        at = watch.next_step
        steps.append(at - 200)
        before = watch.weights
        assert watch.sees(seen(*OLD, new), at - 0.01) == before
        assert watch.sees(seen(*OLD, new), at) != before
    assert len(steps) <= TENTHS - 1
    assert steps[-1] == seconds
    assert set(watch.weights.values()) == {1}


def test_a_new_endpoint_grows_by_tenths_and_the_others_keep_their_weight_meanwhile() -> None:
    watch = watching(seen(*OLD))
    assert watch.sees(seen(*OLD), 199.5) == {"old-1": 1, "old-2": 1, "old-3": 1}
    grown = [watch.sees(seen(*OLD, NEW), 199.5 + second) for second in range(12)]
    assert [each["new"] for each in grown] == [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    assert {tuple(each[old.id] for old in OLD) for each in grown[:-1]} == {(10, 10, 10)}
    assert set(grown[-1].values()) == {1}


# -------------------------------------------------------------------------------------------------- who ramps, and when


def test_what_serves_at_the_first_look_ramps_no_more_and_nothing_is_computed() -> None:
    watch = watching(seen(*OLD, NEW))
    assert set(watch.weights.values()) == {1}
    assert watch.last is not None
    assert watch.last.traffic is watch.last.known
    assert watch.next_step == float("inf")


def test_what_has_no_verdict_at_the_first_look_may_have_served_for_long() -> None:
    watch = watching(seen(*OLD, NEW, silent=["new"]))
    assert set(watch.sees(seen(*OLD, NEW), 101.0).values()) == {1}


def test_a_new_endpoint_waits_for_its_probe_and_then_ramps() -> None:
    watch = watching(seen(*OLD))
    assert "new" not in watch.sees(seen(*OLD, NEW, silent=["new"]), 200.0)
    assert watch.sees(seen(*OLD, NEW), 260.0)["new"] == 1
    assert watch.sees(seen(*OLD, NEW), 265.0)["new"] == 5


@pytest.mark.parametrize("how", ["its probe failed", "a new process", "maintenance"])
def test_an_endpoint_that_begins_again_ramps_again(how: str) -> None:
    first, *others = OLD
    watch = watching(seen(*OLD))
    again = replace(first, run="old-1-2") if how == "a new process" else first
    if how == "its probe failed":
        watch.sees(seen(*OLD, unhealthy=["old-1"]), 200.0)
    elif how == "maintenance":
        watch.sees(seen(replace(first, drain=DrainReason.MAINTENANCE), *others), 200.0)
    assert watch.sees(seen(again, *others), 300.0) == {"old-1": 1, "old-2": 10, "old-3": 10}


@pytest.mark.parametrize("drain", [DrainReason.ASKED, DrainReason.UNREACHABLE, DrainReason.PAUSED])
def test_after_a_drain_the_process_is_as_warm_as_before(drain: DrainReason) -> None:
    first, *others = OLD
    watch = watching(seen(*OLD))
    watch.sees(seen(replace(first, drain=drain), *others), 200.0)
    assert set(watch.sees(seen(*OLD), 300.0).values()) == {1}


def test_a_verdict_that_is_missing_for_a_while_is_no_new_begin() -> None:
    watch = watching(seen(*OLD))
    watch.sees(seen(*OLD, silent=["old-1"]), 200.0)
    assert set(watch.sees(seen(*OLD), 201.0).values()) == {1}


@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.LC, Scheduler.SH, Scheduler.MH, Scheduler.DH])
def test_schedulers_without_weights_and_those_that_divide_clients_have_no_slow_start(scheduler: Scheduler) -> None:
    web = replace(WEB, scheduler=scheduler)
    watch = watching(seen(*OLD, of=web))
    assert set(watch.sees(seen(*OLD, NEW, of=web), 200.0).values()) == {1}


def test_an_endpoint_of_weight_0_stays_without_traffic_and_ramps_once_it_is_given_some() -> None:
    none = NEW.with_weight(0, 0)
    watch = watching(seen(*OLD))
    assert watch.sees(seen(*OLD, none), 200.0)["new"] == 0
    assert watch.sees(seen(*OLD, none.with_weight(3, 3)), 300.0)["new"] == 3
    assert watch.sees(seen(*OLD, none), 301.0)["new"] == 0
    assert watch.sees(seen(*OLD, none.with_weight(3, 3)), 305.0) == {"new": 15, "old-1": 10, "old-2": 10, "old-3": 10}


def test_services_without_slow_start_cost_nothing() -> None:
    there = seen(*(replace(each, slow_start=0) for each in OLD))
    watch = watching(there)
    after = watch.sees(seen(*(replace(each, slow_start=0) for each in (*OLD, NEW))), 200.0)
    assert set(after.values()) == {1}
    assert watch.last is not None
    assert watch.last.traffic is watch.last.known


# ---------------------------------------------------------------------------------- the others must carry the rest


def test_nobody_ramps_where_all_are_new() -> None:
    watch = watching(seen())
    assert set(watch.sees(seen(*OLD), 200.0).values()) == {1}
    later = watch.sees(seen(*OLD, NEW), 202.0)
    assert set(later.values()) == {1}, "the first ones are new still"


def test_one_beside_one_ramps_and_two_beside_one_do_not() -> None:
    watch = watching(seen(OLD[0]))
    assert watch.sees(seen(OLD[0], NEW), 200.0) == {"new": 1, "old-1": 10}
    assert watch.sees(seen(OLD[0], NEW, LATER), 203.0) == {"new": 1, "old-1": 1, "later": 1}


def test_who_has_its_whole_weight_keeps_it_though_the_others_could_carry_the_rest_again() -> None:
    watch = watching(seen(*OLD))
    assert watch.sees(seen(*OLD, NEW), 200.0)["new"] == 1
    assert watch.sees(seen(*OLD, NEW, unhealthy=["old-1", "old-2", "old-3"]), 201.0) == {"new": 1}
    assert watch.sees(seen(*OLD, NEW, unhealthy=["old-1", "old-3"]), 202.0) == {"new": 1, "old-2": 1}


def test_weight_decides_and_not_the_number() -> None:
    heavy = made("new", 9, weight=4)
    watch = watching(seen(*OLD))
    assert watch.sees(seen(*OLD, heavy), 200.0)["new"] == 4


# ------------------------------------------------------------------------------------------------- shares of releases

OLD_RELEASE = tuple(replace(each, release="v1") for each in OLD)
SHARES = ReleaseShares("demo/web", {"v2": 1000}, ("v1", "v2"))


def parts(weights: Mapping[str, int], endpoints: Sequence[Endpoint]) -> Mapping[str | None, Fraction]:
    whole = sum(weights.values()) or 1
    found: Counter[str | None] = Counter()
    for each in endpoints:
        found[each.release] += weights.get(each.id, 0)
    return {release: Fraction(weight, whole) for release, weight in found.items()}


def test_a_ramp_is_inside_of_its_release() -> None:
    served = made("v2-1", 11, release="v2")
    new = made("v2-2", 12, release="v2")
    watch = watching(seen(*OLD_RELEASE, served, shares=SHARES))
    for second in range(12):
        weights = watch.sees(seen(*OLD_RELEASE, served, new, shares=SHARES), 200.0 + second)
        found = parts(weights, (*OLD_RELEASE, served, new))
        assert found == {"v1": Fraction(9, 10), "v2": Fraction(1, 10)}
        assert Fraction(weights["v2-2"], weights["v2-1"]) == Fraction(ramp_tenths(second, 10), 10)


def test_a_release_whose_endpoints_are_all_new_has_its_share_at_once() -> None:
    new = made("v2-1", 11, release="v2")
    watch = watching(seen(*OLD_RELEASE, shares=SHARES))
    assert watch.sees(seen(*OLD_RELEASE, new, shares=SHARES), 200.0) == {"old-1": 3, "old-2": 3, "old-3": 3, "v2-1": 1}


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["", "v1", "v2", "v3"]),
        st.sampled_from([0, 1, 1, 2, 3, 7, 1000, 65_535]),
        st.booleans(),
        st.integers(1, TENTHS),
    ),
    max_size=20,
).map(lambda rows: [ShareMember(("w1", str(n)), *row) for n, row in enumerate(rows)])
GIVEN = st.none() | st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, WHOLE // 3), max_size=3)


@given(GIVEN, MEMBERS)
def test_ramps_leave_shares_exact_and_take_nobody_out_of_traffic(
    given_points: dict[str, int] | None, of: list[ShareMember]
) -> None:
    shares = None if given_points is None else ReleaseShares("demo/web", given_points, ("", "v1", "v2", "v3"))
    ramped, settled = weigh(shares, of), weigh(shares, [each._replace(tenths=TENTHS) for each in of])
    own = {each.key: each.weight for each in of}
    weights, whole = ramped.weights or own, settled.weights or own
    for each in of:
        assert bool(weights[each.key]) == bool(whole[each.key])
        assert weights[each.key] <= MAX_WEIGHT
    if not ramped.in_force or max(*weights.values(), *whole.values()) == MAX_WEIGHT:
        return
    assert {row.release: row.share for row in ramped.releases} == {row.release: row.share for row in settled.releases}
    for one in of:
        for other in of:
            if one.serves and other.serves and one.release == other.release:
                assert weights[one.key] * other.weight * other.tenths == weights[other.key] * one.weight * one.tenths


# -------------------------------------------------------------------------------------------------------- any history

IDS = ("a", "b", "c", "d", "e")
STATES = st.sampled_from(["gone", "serves", "serves", "serves", "fails", "drains", "starts"])
RELEASES = {"a": "v1", "b": "v1", "c": "v1", "d": "v2", "e": "v2"}
LOOK = st.tuples(st.fixed_dictionaries(dict.fromkeys(IDS, STATES)), st.booleans(), st.integers(0, 7))


def look(states: Mapping[str, str], *, shared: bool) -> ClusterView:
    endpoints = [
        replace(
            made(id, number, weight=number, slow=0 if id == "a" else 5 * number, release=RELEASES[id]),
            drain=DrainReason.ASKED if states[id] == "drains" else None,
        )
        for number, id in enumerate(IDS, 1)
        if states[id] != "gone"
    ]
    return seen(
        *endpoints,
        unhealthy=[id for id, state in states.items() if state == "fails"],
        silent=[id for id, state in states.items() if state == "starts"],
        shares=SHARES if shared else None,
    )


def whole_weights(of: ClusterView) -> Mapping[str, int]:
    """The weights without slow start, by ID."""
    traffic = ShareOverlay().after(of).view
    return {each.id: each.weight for each in traffic.endpoints}


@given(st.lists(LOOK, min_size=1, max_size=12))
def test_in_any_history_ramps_grow_and_shares_hold(history: list[tuple[dict[str, str], bool, int]]) -> None:
    watch, at, there = Watch(), 100.0, ClusterView()
    before: Mapping[str, int] = {}
    for states, shared, seconds in history:
        at += seconds
        there = look(states, shared=shared)
        weights = watch.sees(there, at)
        assert watch.last is not None
        tenths = {id: tenths for of in watch.last.slow_starts.ramps.values() for (_, id), tenths in of.items()}
        assert all(weights[id] > 0 for id, state in states.items() if state == "serves")
        assert all(1 <= each < TENTHS and states[id] == "serves" for id, each in tenths.items())
        for id, state in states.items():
            if state == "serves" and id in before:
                assert tenths.get(id, TENTHS) >= before[id], "it grows while it serves"
        assert "a" not in tenths, "it has no slow start"
        assert parts(weights, there.endpoints) == pytest.approx(
            parts({id: weight for id, weight in whole_weights(there).items() if id in weights}, there.endpoints)
        ) or not (shared and is_split(states))
        for pool in pools(states, split=shared and is_split(states)):
            ramping = sum(IDS.index(id) + 1 for id in pool if id in tenths)
            assert 2 * ramping <= sum(IDS.index(id) + 1 for id in pool), "the others can carry the rest"
        before = {id: tenths.get(id, TENTHS) for id, state in states.items() if state == "serves"}
    final = watch.sees(there, at + MAX_SLOW_START)
    assert final == {id: whole_weights(there)[id] for id in final}
    assert watch.next_step == float("inf")


def is_split(states: Mapping[str, str]) -> bool:
    return len({RELEASES[id] for id, state in states.items() if state != "gone"}) > 1


def pools(states: Mapping[str, str], *, split: bool) -> Iterator[list[str]]:
    serving = [id for id, state in states.items() if state == "serves"]
    for release in ("v1", "v2") if split else (None,):
        yield [id for id in serving if release in (None, RELEASES[id])]


# ---------------------------------------------------------------------------------------------------- every data plane


def ramping(second: int, *, olds: int = 3) -> Watch:
    old = [made(f"old-{number}", number) for number in range(1, olds + 1)]
    new = made("new", 200)
    watch = watching(seen(*old))
    watch.sees(seen(*old, new), 200.0)
    watch.sees(seen(*old, new), 200.0 + second)
    return watch


@pytest.mark.parametrize("plane", ["ipvs", "nftables", "user space"])
@pytest.mark.parametrize(("second", "tenths"), [(0, 1), (3, 3), (9, 9), (10, 10)])
def test_each_data_plane_gives_a_new_endpoint_its_part_exactly(plane: str, second: int, tenths: int) -> None:
    server = ramping(second).server
    new, cycle = RealKey("10.2.0.200", 80), 30 + tenths
    found: Counter[RealKey] = Counter()
    if plane == "ipvs":  # the kernel divides weights by their greatest common divisor itself: ip_vs_wrr.c
        found.update({real: each.weight for real, each in server.real_servers.items()})
    elif plane == "nftables":
        choice = choose_balancer(WEB_KEY, server)
        assert choice is not None
        assert choice.selector == "numgen inc"
        for real, count in choice.runs:
            found[real] += count
    else:
        scheduler = RealServerScheduler(real_servers=server.real_servers)
        picks = [scheduler.pick("192.0.2.1", 0.0) for _ in range(cycle)]
        found.update(real for real in picks if real is not None)
    assert Fraction(found[new], found.total()) == Fraction(tenths, cycle)


def test_with_many_endpoints_nftables_divides_at_random() -> None:
    assert 30 * TENTHS > MAX_SLOTS
    choice = choose_balancer(WEB_KEY, ramping(3, olds=30).server)
    assert choice is not None
    assert choice.selector == "numgen random"


def test_the_proxy_in_user_space_forgets_the_credit_of_larger_weights() -> None:
    during, after = ramping(5).server, ramping(10).server
    scheduler = RealServerScheduler(real_servers=during.real_servers)
    for _ in range(17):
        scheduler.pick("192.0.2.1", 0.0)
    scheduler.real_servers = after.real_servers
    found = Counter(scheduler.pick("192.0.2.1", 0.0) for _ in range(40))
    assert max(found.values()) - min(found.values()) <= 2


# ---------------------------------------------------------------------------------------------- what operators are told


def snapshot(watch: Watch, there: ClusterView) -> WorkerSnapshot:
    assert watch.last is not None
    return WorkerSnapshot(
        WorkerFacts("1", "w9", "fake", "a test"),
        there,
        probed=there.health,
        plan=watch.plan,
        slow_starts=watch.last.slow_starts,
        programmed=watch.plan.table,
    )


def test_the_status_and_explain_say_that_an_endpoint_ramps_and_until_when() -> None:
    there = seen(*OLD, NEW)
    watch = ramping(3)
    status = worker_status(observed := snapshot(watch, there))
    rows = {row.id: row for row in status.services[0].endpoints}
    assert (rows["new"].weight, rows["new"].slow_start_percent) == (1, 30)
    assert rows["new"].slow_start_until == "2026-11-30T00:56:50+00:00"
    assert rows["old-1"].slow_start_percent is None
    steps = {step.id: step for step in explain("web.test", DetailedSnapshot(observed, "test")).ways[0].endpoints}
    assert steps["new"].slow_start == ("slow start: 30 % of its weight, all of it at 2026-11-30T00:56:50+00:00")
    assert steps["old-1"].slow_start is None


def test_a_ramp_is_no_difference_between_workers() -> None:
    digest = TableDigest()
    found = set()
    for second in (0, 3, 9, 10):
        watch = ramping(second)
        assert watch.last is not None
        found.add(digest(watch.plan, watch.last.shared.settled))
    assert len(found) == 1
