"""Which endpoints of other workers are unreachable: the rule over rounds, as tables and as properties."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.cut_off import cut_off
from mesh.cluster.failure_detector import (
    ISOLATION_ROUNDS,
    MAX_MUTE_ROUNDS,
    MISSES_BEFORE_LOST,
    DetectorState,
    PingResult,
    PingRound,
    PingTarget,
    choose_stand_ins,
    observe_round,
    ping_targets,
    withhold_unreachable,
)
from mesh.model.eligibility import takes_traffic
from mesh.model.probe import Probe, ProbeKind
from mesh.model.problem import Problem
from mesh.model.service import (
    DrainReason,
    Endpoint,
    EndpointKey,
    Health,
    HostPort,
    PortPublication,
    Route,
    Service,
    Transport,
)
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from tests.builders import endpoint, service, view

A, R, S, M = PingResult.ANSWERED, PingResult.REFUSED, PingResult.SILENT, PingResult.MUTE
WEB = service("web.test", owner="shop/web", container_port=8080)
ENDPOINTS = {worker: (worker, "e") for worker in ("w2", "w3", "w4")}


def after(*rounds: PingRound, workers: Sequence[str] = ("w2", "w3")) -> DetectorState:
    known = DetectorState()
    for one in rounds:
        known = observe_round(known, one, workers)
    return known


def seen(w2: PingResult, w3: PingResult, endpoint: PingResult | None = None) -> PingRound:
    """By the first of three workers; `endpoint` is on the third."""
    hosts = {"10.1.0.2": w2, "10.1.0.3": w3}
    return PingRound({"w2": w2, "w3": w3}, hosts, {} if endpoint is None else {("w3", "e"): endpoint})


WELL = seen(A, A)


class TestWhatIsLost:
    def test_endpoints_of_a_worker_without_power_are_lost_after_enough_rounds(self) -> None:
        known = after(WELL, seen(A, S), *[seen(A, S, S)] * MISSES_BEFORE_LOST)
        assert known.lost == {("w3", "e")}
        assert after(WELL, seen(A, S), *[seen(A, S, S)] * (MISSES_BEFORE_LOST - 1)).lost == frozenset()

    def test_a_stopped_daemon_loses_no_endpoint_that_answers(self) -> None:
        assert after(WELL, seen(A, R), *[seen(A, R, A)] * 9).lost == frozenset()

    def test_endpoints_that_refuse_are_lost_while_their_daemon_is_stopped(self) -> None:
        assert after(WELL, seen(A, R), *[seen(A, R, R)] * MISSES_BEFORE_LOST).lost == {("w3", "e")}

    def test_endpoints_of_a_daemon_too_busy_to_reply_are_not_lost(self) -> None:
        """Its application is as busy: the kernel has no room for another connection to that one."""
        busy = after(WELL, *[seen(A, M, S)] * MAX_MUTE_ROUNDS)
        assert busy.lost == frozenset()
        assert busy.doubtful == {"w3"}
        gone = [seen(A, S, S)] * MISSES_BEFORE_LOST
        assert after(WELL, seen(A, S, S), seen(A, M, S), *gone[1:-1]).lost == frozenset(), "it counts anew"
        assert after(WELL, *[seen(A, M, S)] * 9, *gone).lost == {("w3", "e")}
        assert observe_round(busy, seen(A, M, S), ["w2", "w3"], ["w3"]).lost == {("w3", "e")}, "its lease ends as well"

    def test_a_firewall_between_daemons_loses_no_endpoint(self) -> None:
        assert after(WELL, seen(A, S), *[seen(A, S, A)] * 9).lost == frozenset()

    def test_a_worker_that_never_answered_is_not_suspected(self) -> None:
        assert after(*[seen(A, S, S)] * 9).lost == frozenset()

    @pytest.mark.parametrize("back", [seen(A, A), seen(A, S, A)], ids=["worker", "endpoint"])
    def test_the_first_answer_of_worker_or_endpoint_restores_it(self, back: PingRound) -> None:
        known = after(WELL, *[seen(A, S, S)] * 9)
        assert known.lost
        assert observe_round(known, back, ["w2", "w3"]).lost == frozenset()

    def test_a_round_without_pings_changes_nothing(self) -> None:
        known = after(WELL, *[seen(A, S, S)] * (MISSES_BEFORE_LOST - 1))
        assert observe_round(known, PingRound(), ["w2", "w3"]).lost == frozenset()
        assert observe_round(known, PingRound(), ["w2", "w3"]).misses == known.misses

    def test_a_worker_whose_lease_has_ended_is_forgotten(self) -> None:
        known = after(WELL, *[seen(A, S, S)] * 9)
        forgotten = observe_round(known, PingRound(), ["w2"])
        assert (forgotten.misses, forgotten.mute_rounds, forgotten.endpoints) == ({"w2": 0}, {}, {})


class TestALeaseThatHasEnded:
    def test_endpoints_are_pinged_although_their_worker_answers(self) -> None:
        known = observe_round(after(WELL), seen(A, A), ["w2", "w3"], ["w3"])
        assert known.doubtful == {"w3"}
        assert known.answers("w3")
        for _ in range(MISSES_BEFORE_LOST - 1):
            known = observe_round(known, seen(A, A, R), ["w2", "w3"], ["w3"])
        assert known.lost == frozenset()
        known = observe_round(known, seen(A, A, R), ["w2", "w3"], ["w3"])
        assert known.lost == {("w3", "e")}
        assert [problem.subject for problem in problems(known)] == ["worker w3"]
        known = observe_round(known, seen(A, A), ["w2", "w3"])
        assert known.lost == frozenset(), "it is back in the store, and judges them itself"

    def test_a_worker_that_never_answered_or_stopped_answering_is_absent(self) -> None:
        assert not DetectorState().answers("w3")
        assert after(WELL, *[seen(A, R)] * (MISSES_BEFORE_LOST - 1)).answers("w3")
        assert not after(WELL, *[seen(A, R)] * MISSES_BEFORE_LOST).answers("w3")
        assert after(WELL, *[seen(A, M)] * (MAX_MUTE_ROUNDS - 1)).answers("w3")
        assert not after(WELL, *[seen(A, M)] * MAX_MUTE_ROUNDS).answers("w3")


class TestAWorkerThatDoesNotListen:
    """Its endpoints e and f; whichever is asked in its place."""

    E, F = ("w9", "e"), ("w9", "f")

    def known(self, *rounds: dict[EndpointKey, PingResult]) -> DetectorState:
        known = DetectorState()
        for one in rounds:
            known = observe_round(known, PingRound(endpoints=one), (), non_listening={"w9"})
        return known

    def test_the_stand_in_is_an_endpoint_that_has_answered(self) -> None:
        seen = view(WEB, endpoint("e", "w9", "shop/web"), endpoint("f", "w9", "", "10.2.0.2"))
        tried = [choose_stand_ins(DetectorState(rounds=n), seen, {"w9"})["w9"] for n in range(3)]
        assert tried == [self.E, self.F, self.E], "one after the other"
        assert choose_stand_ins(self.known({self.F: A}), seen, {"w9"}) == {"w9": self.F}
        assert choose_stand_ins(self.known({("w9", "gone"): A}), seen, {"w9"}, 1)["w9"] in {self.E, self.F}
        assert choose_stand_ins(self.known({self.F: A}), seen, ()) == {}

    def test_the_first_miss_makes_the_worker_doubtful_until_any_endpoint_answers(self) -> None:
        assert self.known({self.E: S}).doubtful == frozenset(), "it never answered"
        assert self.known({self.E: A}, {self.E: S}).doubtful == {"w9"}
        assert self.known({self.E: A}, {self.E: S}, {}).doubtful == {"w9"}, "nobody could be asked"
        moved = self.known({self.E: A}, {self.E: S}, {self.E: S, self.F: A})
        assert (moved.doubtful, moved.stand_ins) == (frozenset(), {"w9": self.F})

    def test_its_endpoints_are_lost_only_when_its_lease_ends(self) -> None:
        silent = self.known({self.E: A}, {self.E: S}, *[{self.E: S, self.F: S}] * (MISSES_BEFORE_LOST - 1))
        assert silent.lost == frozenset()
        assert replace(silent, unleased=frozenset({"w9"})).lost == {self.E}, "the other one has missed one less"
        assert observe_round(silent, PingRound(), (), {"w9"}).lost == {self.E}
        assert observe_round(silent, PingRound(), ()).endpoints == {}, "it left"


@pytest.mark.parametrize(
    ("hosts", "isolated"),
    [
        ({}, False),
        ({"w2": A, "w3": A}, False),
        ({"w2": A, "w3": S}, False),
        ({"w2": R, "w3": S}, False),
        ({"w2": S, "w3": S}, True),
        ({"w2": S}, True),
        ({"w2": S, "etcd": A}, False),
        ({"w2": S, "etcd": R}, False),
        ({"w2": S, "w3": S, "w4": A}, True),
        ({"w2": S, "w3": S, "w4": A, "w5": A}, False),
    ],
)
def test_the_majority_includes_this_host_and_hosts_that_refuse(hosts: Mapping[str, PingResult], isolated: bool) -> None:
    assert observe_round(DetectorState(), PingRound(hosts=hosts), ()).isolated is isolated


class TestIsolationAmongManyWorkers:
    """Each round has the turns of a few of them."""

    def rounds(self, silent: Callable[[int], bool], count: int, *, again: bool = False) -> DetectorState:
        """So many rounds over a hundred hosts, ten in each; `again`: all that are silent are asked beside the turns."""
        known = DetectorState()
        for one in range(count):
            turn = {str(n): S if silent(n) else A for n in range(one * 10 % 100, one * 10 % 100 + 10)}
            beside = {str(n): S for n in range(100) if again and silent(n) and str(n) not in turn}
            known = observe_round(known, PingRound(hosts=turn, again=beside), ())
        return known

    def test_an_isolated_worker_detects_it_after_the_first_complete_run_of_misses(self) -> None:
        known = self.rounds(lambda _: False, 10)
        assert not known.isolated
        for one in range(ISOLATION_ROUNDS):
            known = observe_round(known, PingRound(hosts={str(n): S for n in range(one * 10, one * 10 + 10)}), ())
        assert known.isolated, "although most hosts answered when they were asked last"

    def test_extra_pings_do_not_outweigh_scheduled_pings(self) -> None:
        assert not self.rounds(lambda n: n % 10 < 4, 30, again=True).isolated
        assert self.rounds(lambda n: n % 10 < 6, 30, again=True).isolated

    def test_an_answer_to_an_extra_ping_counts_at_once(self) -> None:
        known = observe_round(DetectorState(), PingRound(hosts={"w2": S, "w3": S, "w4": A}), ())
        assert known.isolated
        assert not observe_round(known, PingRound(again={"w2": A}), ()).isolated

    def test_a_worker_too_busy_to_ping_keeps_its_state_for_a_while(self) -> None:
        known = observe_round(DetectorState(), PingRound(hosts={"w2": S, "w3": S}), ())
        for _ in range(ISOLATION_ROUNDS - 1):
            known = observe_round(known, PingRound(), ())
            assert known.isolated
        assert not observe_round(known, PingRound(), ()).isolated


def problems(state: DetectorState) -> tuple[Problem, ...]:
    return cut_off(None, state).problems


def endpoint_on(worker: str, owner: str = "shop/web", **more: Any) -> Endpoint:
    return endpoint("e", worker, owner, f"10.2.0.{worker[1:]}", **more)


def web_view(*workers: str) -> ClusterView:
    return view(WEB, *(endpoint_on(worker) for worker in workers))


def open_to(view: ClusterView) -> list[str]:
    return [e.worker for e in view.endpoints if e.drain is None]


def test_a_stopped_daemon_is_distinguished_from_a_lost_worker() -> None:
    there = DetectorState({"w2": MISSES_BEFORE_LOST}, {("w2", "e"): 0}, unleased=frozenset({"w2"}))
    (told,) = problems(there)
    assert "its daemon is gone, but its endpoints answer" in str(told)
    (told,) = problems(replace(there, endpoints={("w2", "e"): MISSES_BEFORE_LOST}))
    assert "it does not answer this worker, nor do endpoints of it" in str(told)


class TestWithholding:
    def test_a_lost_endpoint_takes_no_new_connection_and_has_a_drain_reason(self) -> None:
        withheld = withhold_unreachable(web_view("w1", "w2"), {("w2", "e")}, isolated=False)
        assert [e.drain for e in withheld.endpoints] == [None, DrainReason.UNREACHABLE]

    def test_the_groups_of_other_services_stay_the_same_objects(self) -> None:
        two = view(WEB, endpoint_on("w1"), endpoint_on("w2"), endpoint_on("w1", "shop/db"))
        withheld = withhold_unreachable(two, {("w2", "e")}, isolated=False)
        assert withheld.groups["shop/db"] is two.groups["shop/db"]
        assert withheld.groups == replace(withheld).groups, "as made from its endpoints"

    def test_a_requested_drain_keeps_its_reason(self) -> None:
        asked = view(WEB, endpoint_on("w2", drain=DrainReason.ASKED))
        assert withhold_unreachable(asked, {("w2", "e")}, isolated=False) == asked

    def test_an_isolated_worker_leaves_no_service_without_an_endpoint(self) -> None:
        lost = {("w2", "e"), ("w3", "e")}
        assert open_to(withhold_unreachable(web_view("w2", "w3"), lost, isolated=True)) == ["w2", "w3"]
        assert open_to(withhold_unreachable(web_view("w2", "w3"), lost, isolated=False)) == []
        assert open_to(withhold_unreachable(web_view("w1", "w2", "w3"), lost, isolated=True)) == ["w1"]

    def test_an_unhealthy_own_endpoint_does_not_count_as_remaining(self) -> None:
        probed = Service("shop/web", "web.test", WEB.routes, probe=Probe(ProbeKind.TCP, None))
        health = {("w1", "e"): Health.UNHEALTHY, ("w2", "e"): Health.HEALTHY}
        both = view(probed, endpoint_on("w1"), endpoint_on("w2"), health=health)
        assert withhold_unreachable(both, {("w2", "e")}, isolated=True) == both

    def test_without_losses_the_view_is_the_same_object(self) -> None:
        there = web_view("w1")
        assert withhold_unreachable(there, frozenset(), isolated=False) is there


@pytest.mark.parametrize(
    ("service", "of", "asked"),
    [
        (WEB, endpoint_on("w2"), PingTarget(RealKey("10.2.0.2", 8080), False)),
        (WEB, endpoint_on("w2", port=18080), PingTarget(RealKey("10.2.0.2", 18080), False)),
        (
            WEB,
            endpoint_on("w2", host_ports=(HostPort(Transport.TCP, 8080, 40080),)),
            PingTarget(RealKey("10.2.0.2", 40080), False),
        ),
        (
            Service("shop/web", "web.test", WEB.routes, probe=Probe(ProbeKind.HTTP, 9000)),
            endpoint_on("w2"),
            PingTarget(RealKey("10.2.0.2", 9000), False),
        ),
        (
            Service("shop/web", "d.test", (Route("d.test", 53, Transport.UDP, 5353),)),
            endpoint_on("w2"),
            PingTarget(RealKey("10.2.0.2", 5353), True),
        ),
        (
            Service(
                "shop/web",
                "d.test",
                (Route("d.test", 53, Transport.UDP, 5353),),
                (PortPublication(8080, Transport.TCP, None),),
            ),
            endpoint_on("w2"),
            PingTarget(RealKey("10.2.0.2", 8080), False),
        ),
    ],
    ids=["routed", "port", "host-port", "probe", "datagrams", "published"],
)
def test_the_ping_target_of_an_endpoint(service: Service, of: Endpoint, asked: PingTarget) -> None:
    there = view(service, endpoint_on("w1"), of)
    assert ping_targets(there, {"w2"}) == {("w2", "e"): asked}


def test_reported_problems_do_not_change_from_round_to_round() -> None:
    told = {
        tuple(map(str, problems(after(WELL, *[seen(A, S, S)] * rounds)))) for rounds in range(MISSES_BEFORE_LOST, 9)
    }
    assert len(told) == 1
    ((line,),) = told
    assert "worker w3" in line
    alone = problems(after(WELL, *[seen(S, S, S)] * MISSES_BEFORE_LOST))
    assert [problem.subject for problem in alone] == ["this worker", "worker w3"]


# ----------------------------------------------------------------------------------------------- properties

answers = st.sampled_from(PingResult)
workers = ("w2", "w3", "w4")


@st.composite
def rounds(draw: st.DrawFn) -> PingRound:
    hosts = {worker: draw(answers) for worker in workers if draw(st.booleans())}
    asked: dict[EndpointKey, PingResult] = {key: draw(answers) for key in ENDPOINTS.values() if draw(st.booleans())}
    return PingRound(hosts, dict(hosts), asked)


@given(st.lists(rounds(), max_size=12))
def test_an_endpoint_is_lost_only_after_consecutive_misses_of_it_and_its_worker(history: list[PingRound]) -> None:
    known = after(*history, workers=workers)
    for worker, id in known.lost:
        to_worker = [one.workers[worker] for one in history if worker in one.workers]
        assert PingResult.ANSWERED in to_worker
        assert PingResult.ANSWERED not in to_worker[-MISSES_BEFORE_LOST:]
        assert len(to_worker) > MISSES_BEFORE_LOST
        to_endpoint = [one.endpoints[worker, id] for one in history if (worker, id) in one.endpoints]
        assert PingResult.ANSWERED not in to_endpoint[-MISSES_BEFORE_LOST:]
        assert len(to_endpoint) >= MISSES_BEFORE_LOST


@given(st.lists(rounds(), max_size=12))
def test_answers_of_all_workers_restore_every_endpoint(history: list[PingRound]) -> None:
    known = after(*history, PingRound(dict.fromkeys(workers, A)), workers=workers)
    assert known.lost == frozenset()
    assert known.doubtful == frozenset()


@given(
    st.sets(st.sampled_from([*ENDPOINTS.values(), ("w1", "e")])),
    st.sets(st.sampled_from([*ENDPOINTS.values()])),
    st.lists(st.sampled_from(["shop/web", "shop/db"]), min_size=4, max_size=4),
    st.booleans(),
)
def test_on_an_isolated_worker_no_service_loses_its_last_endpoint(
    there: set[EndpointKey], lost: set[EndpointKey], owners: list[str], isolated: bool
) -> None:
    services = (service("db.test", owner="shop/db"), WEB)
    endpoints = tuple(endpoint_on(worker, owner) for (worker, _), owner in zip(sorted(there), owners, strict=False))
    before = ClusterView(services, endpoints)
    withheld = withhold_unreachable(before, lost, isolated=isolated)
    for declared in services:
        had = {e.key for e in before.endpoints if e.owner == declared.owner}
        has = {e.key for e in withheld.endpoints if e.owner == declared.owner and takes_traffic(declared, e, {})}
        assert had - lost <= has, "what is not lost is left alone"
        if isolated:
            assert bool(has) == bool(had)
            assert has in (had, had - lost)
        else:
            assert has == had - lost
