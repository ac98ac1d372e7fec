"""Which endpoints of other workers are out of reach: the rule over rounds, as tables and as properties."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    peer_problems,
    ping_targets,
    withhold_unreachable,
)
from mesh.model.eligibility import takes_traffic
from mesh.model.probe import Probe, ProbeKind
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

A, R, S, M = PingResult.ANSWERED, PingResult.REFUSED, PingResult.SILENT, PingResult.MUTE
WEB = Service("shop/web", "web.test", (Route("web.test", 80, Transport.TCP, 8080),))
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
    def test_a_worker_without_power_and_its_endpoints_after_enough_rounds(self) -> None:
        known = after(WELL, seen(A, S), *[seen(A, S, S)] * MISSES_BEFORE_LOST)
        assert known.lost == {("w3", "e")}
        assert after(WELL, seen(A, S), *[seen(A, S, S)] * (MISSES_BEFORE_LOST - 1)).lost == frozenset()

    def test_a_daemon_that_is_away_costs_nothing_while_the_endpoints_answer(self) -> None:
        assert after(WELL, seen(A, R), *[seen(A, R, A)] * 9).lost == frozenset()

    def test_endpoints_that_refuse_while_no_daemon_judges_them(self) -> None:
        assert after(WELL, seen(A, R), *[seen(A, R, R)] * MISSES_BEFORE_LOST).lost == {("w3", "e")}

    def test_a_daemon_that_is_too_busy_to_say_its_name_on_a_host_that_is_there(self) -> None:
        """Its application is as busy: the kernel has no room for another connection to that one."""
        busy = after(WELL, *[seen(A, M, S)] * MAX_MUTE_ROUNDS)
        assert busy.lost == frozenset()
        assert busy.doubtful == {"w3"}
        gone = [seen(A, S, S)] * MISSES_BEFORE_LOST
        assert after(WELL, seen(A, S, S), seen(A, M, S), *gone[1:-1]).lost == frozenset(), "it counts anew"
        assert after(WELL, *[seen(A, M, S)] * 9, *gone).lost == {("w3", "e")}
        assert observe_round(busy, seen(A, M, S), ["w2", "w3"], ["w3"]).lost == {("w3", "e")}, "its lease ends as well"

    def test_a_firewall_between_the_daemons_costs_nothing(self) -> None:
        assert after(WELL, seen(A, S), *[seen(A, S, A)] * 9).lost == frozenset()

    def test_who_never_answered_is_not_suspected(self) -> None:
        assert after(*[seen(A, S, S)] * 9).lost == frozenset()

    @pytest.mark.parametrize("back", [seen(A, A), seen(A, S, A)], ids=["worker", "endpoint"])
    def test_the_first_answer_of_either_brings_it_back(self, back: PingRound) -> None:
        known = after(WELL, *[seen(A, S, S)] * 9)
        assert known.lost
        assert observe_round(known, back, ["w2", "w3"]).lost == frozenset()

    def test_a_round_in_which_nobody_could_be_asked_proves_nothing(self) -> None:
        known = after(WELL, *[seen(A, S, S)] * (MISSES_BEFORE_LOST - 1))
        assert observe_round(known, PingRound(), ["w2", "w3"]).lost == frozenset()
        assert observe_round(known, PingRound(), ["w2", "w3"]).misses == known.misses

    def test_a_worker_whose_lease_has_ended_is_forgotten(self) -> None:
        known = after(WELL, *[seen(A, S, S)] * 9)
        forgotten = observe_round(known, PingRound(), ["w2"])
        assert (forgotten.misses, forgotten.mute_rounds, forgotten.endpoints) == ({"w2": 0}, {}, {})


class TestALeaseThatHasEnded:
    def test_its_endpoints_are_asked_although_the_worker_answers(self) -> None:
        known = observe_round(after(WELL), seen(A, A), ["w2", "w3"], ["w3"])
        assert known.doubtful == {"w3"}
        assert known.answers("w3")
        for _ in range(MISSES_BEFORE_LOST - 1):
            known = observe_round(known, seen(A, A, R), ["w2", "w3"], ["w3"])
        assert known.lost == frozenset()
        known = observe_round(known, seen(A, A, R), ["w2", "w3"], ["w3"])
        assert known.lost == {("w3", "e")}
        assert [problem.subject for problem in peer_problems(known)] == ["worker w3"]
        known = observe_round(known, seen(A, A), ["w2", "w3"])
        assert known.lost == frozenset(), "it is back in the store, and judges them itself"

    def test_who_never_answered_or_answers_no_more_is_not_there(self) -> None:
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

    def test_its_stand_in_is_one_that_has_answered(self) -> None:
        view = ClusterView((WEB,), (Endpoint("e", "shop/web", "w9", "10.2.0.1"), Endpoint("f", "", "w9", "10.2.0.2")))
        tried = [choose_stand_ins(DetectorState(rounds=n), view, {"w9"})["w9"] for n in range(3)]
        assert tried == [self.E, self.F, self.E], "one after the other"
        assert choose_stand_ins(self.known({self.F: A}), view, {"w9"}) == {"w9": self.F}
        assert choose_stand_ins(self.known({("w9", "gone"): A}), view, {"w9"}, 1)["w9"] in {self.E, self.F}
        assert choose_stand_ins(self.known({self.F: A}), view, ()) == {}

    def test_its_first_miss_puts_the_worker_in_doubt_and_an_answer_of_any_ends_that(self) -> None:
        assert self.known({self.E: S}).doubtful == frozenset(), "it never answered"
        assert self.known({self.E: A}, {self.E: S}).doubtful == {"w9"}
        assert self.known({self.E: A}, {self.E: S}, {}).doubtful == {"w9"}, "nobody could be asked"
        moved = self.known({self.E: A}, {self.E: S}, {self.E: S, self.F: A})
        assert (moved.doubtful, moved.stand_ins) == (frozenset(), {"w9": self.F})

    def test_only_the_end_of_its_lease_takes_its_endpoints_away(self) -> None:
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
def test_a_majority_of_the_hosts_counts_itself_and_those_that_refuse(
    hosts: Mapping[str, PingResult], isolated: bool
) -> None:
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

    def test_who_is_cut_off_knows_it_when_the_first_row_of_misses_is_complete(self) -> None:
        known = self.rounds(lambda _: False, 10)
        assert not known.isolated
        for one in range(ISOLATION_ROUNDS):
            known = observe_round(known, PingRound(hosts={str(n): S for n in range(one * 10, one * 10 + 10)}), ())
        assert known.isolated, "although most hosts answered when they were asked last"

    def test_what_is_asked_beside_the_turns_does_not_outweigh_them(self) -> None:
        assert not self.rounds(lambda n: n % 10 < 4, 30, again=True).isolated
        assert self.rounds(lambda n: n % 10 < 6, 30, again=True).isolated

    def test_an_answer_beside_the_turn_counts_at_once(self) -> None:
        known = observe_round(DetectorState(), PingRound(hosts={"w2": S, "w3": S, "w4": A}), ())
        assert known.isolated
        assert not observe_round(known, PingRound(again={"w2": A}), ()).isolated

    def test_a_worker_that_was_too_busy_to_ask_keeps_for_a_while_what_it_knew(self) -> None:
        known = observe_round(DetectorState(), PingRound(hosts={"w2": S, "w3": S}), ())
        for _ in range(ISOLATION_ROUNDS - 1):
            known = observe_round(known, PingRound(), ())
            assert known.isolated
        assert not observe_round(known, PingRound(), ()).isolated


def endpoint(worker: str, owner: str = "shop/web", **more: object) -> Endpoint:
    return Endpoint("e", owner, worker, f"10.2.0.{worker[1:]}", **more)  # type: ignore[arg-type]  # of the test


def view(*workers: str) -> ClusterView:
    return ClusterView((WEB,), tuple(endpoint(worker) for worker in workers))


def open_to(view: ClusterView) -> list[str]:
    return [e.worker for e in view.endpoints if e.drain is None]


def test_a_daemon_that_is_gone_is_told_apart_from_a_worker_that_is() -> None:
    there = DetectorState({"w2": MISSES_BEFORE_LOST}, {("w2", "e"): 0}, unleased=frozenset({"w2"}))
    (told,) = peer_problems(there)
    assert "its daemon is gone, but its endpoints answer" in str(told)
    (told,) = peer_problems(replace(there, endpoints={("w2", "e"): MISSES_BEFORE_LOST}))
    assert "it does not answer this worker, nor do endpoints of it" in str(told)


class TestWithholding:
    def test_a_lost_endpoint_takes_no_new_connection_and_says_why(self) -> None:
        withheld = withhold_unreachable(view("w1", "w2"), {("w2", "e")}, isolated=False)
        assert [e.drain for e in withheld.endpoints] == [None, DrainReason.UNREACHABLE]

    def test_the_groups_of_other_services_stay_the_same_objects(self) -> None:
        two = ClusterView((WEB,), (endpoint("w1"), endpoint("w2"), endpoint("w1", "shop/db")))
        withheld = withhold_unreachable(two, {("w2", "e")}, isolated=False)
        assert withheld.groups["shop/db"] is two.groups["shop/db"]
        assert withheld.groups == replace(withheld).groups, "as made from its endpoints"

    def test_a_drain_that_was_asked_for_stays_what_it_is(self) -> None:
        asked = ClusterView((WEB,), (endpoint("w2", drain=DrainReason.ASKED),))
        assert withhold_unreachable(asked, {("w2", "e")}, isolated=False) == asked

    def test_an_isolated_worker_leaves_no_service_without_an_endpoint(self) -> None:
        lost = {("w2", "e"), ("w3", "e")}
        assert open_to(withhold_unreachable(view("w2", "w3"), lost, isolated=True)) == ["w2", "w3"]
        assert open_to(withhold_unreachable(view("w2", "w3"), lost, isolated=False)) == []
        assert open_to(withhold_unreachable(view("w1", "w2", "w3"), lost, isolated=True)) == ["w1"]

    def test_an_own_endpoint_that_fails_its_probe_does_not_count_as_one_left(self) -> None:
        probed = Service("shop/web", "web.test", WEB.routes, probe=Probe(ProbeKind.TCP, None))
        health = {("w1", "e"): Health.UNHEALTHY, ("w2", "e"): Health.HEALTHY}
        both = ClusterView((probed,), (endpoint("w1"), endpoint("w2")), health=health)
        assert withhold_unreachable(both, {("w2", "e")}, isolated=True) == both

    def test_nothing_lost_is_the_same_object(self) -> None:
        there = view("w1")
        assert withhold_unreachable(there, frozenset(), isolated=False) is there


@pytest.mark.parametrize(
    ("service", "of", "asked"),
    [
        (WEB, endpoint("w2"), PingTarget(RealKey("10.2.0.2", 8080), False)),
        (WEB, endpoint("w2", port=18080), PingTarget(RealKey("10.2.0.2", 18080), False)),
        (
            WEB,
            endpoint("w2", host_ports=(HostPort(Transport.TCP, 8080, 40080),)),
            PingTarget(RealKey("10.2.0.2", 40080), False),
        ),
        (
            Service("shop/web", "web.test", WEB.routes, probe=Probe(ProbeKind.HTTP, 9000)),
            endpoint("w2"),
            PingTarget(RealKey("10.2.0.2", 9000), False),
        ),
        (
            Service("shop/web", "d.test", (Route("d.test", 53, Transport.UDP, 5353),)),
            endpoint("w2"),
            PingTarget(RealKey("10.2.0.2", 5353), True),
        ),
        (
            Service(
                "shop/web",
                "d.test",
                (Route("d.test", 53, Transport.UDP, 5353),),
                (PortPublication(8080, Transport.TCP, None),),
            ),
            endpoint("w2"),
            PingTarget(RealKey("10.2.0.2", 8080), False),
        ),
    ],
    ids=["routed", "port", "host-port", "probe", "datagrams", "published"],
)
def test_where_an_endpoint_is_asked(service: Service, of: Endpoint, asked: PingTarget) -> None:
    there = ClusterView((service,), (endpoint("w1"), of))
    assert ping_targets(there, {"w2"}) == {("w2", "e"): asked}


def test_what_an_operator_is_told_does_not_change_from_round_to_round() -> None:
    told = {
        tuple(map(str, peer_problems(after(WELL, *[seen(A, S, S)] * rounds))))
        for rounds in range(MISSES_BEFORE_LOST, 9)
    }
    assert len(told) == 1
    ((line,),) = told
    assert "worker w3" in line
    alone = peer_problems(after(WELL, *[seen(S, S, S)] * MISSES_BEFORE_LOST))
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
def test_only_what_misses_enough_rounds_in_a_row_is_lost_and_its_worker_too(history: list[PingRound]) -> None:
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
def test_an_answer_of_all_brings_everything_back(history: list[PingRound]) -> None:
    known = after(*history, PingRound(dict.fromkeys(workers, A)), workers=workers)
    assert known.lost == frozenset()
    assert known.doubtful == frozenset()


@given(
    st.sets(st.sampled_from([*ENDPOINTS.values(), ("w1", "e")])),
    st.sets(st.sampled_from([*ENDPOINTS.values()])),
    st.lists(st.sampled_from(["shop/web", "shop/db"]), min_size=4, max_size=4),
    st.booleans(),
)
def test_isolated_no_service_loses_its_last_endpoint(
    there: set[EndpointKey], lost: set[EndpointKey], owners: list[str], isolated: bool
) -> None:
    services = (Service("shop/db", "db.test", (Route("db.test", 80, Transport.TCP, 80),)), WEB)
    endpoints = tuple(endpoint(worker, owner) for (worker, _), owner in zip(sorted(there), owners, strict=False))
    before = ClusterView(services, endpoints)
    withheld = withhold_unreachable(before, lost, isolated=isolated)
    for service in services:
        had = {e.key for e in before.endpoints if e.owner == service.owner}
        has = {e.key for e in withheld.endpoints if e.owner == service.owner and takes_traffic(service, e, {})}
        assert had - lost <= has, "what is not lost is left alone"
        if isolated:
            assert bool(has) == bool(had)
            assert has in (had, had - lost)
        else:
            assert has == had - lost
