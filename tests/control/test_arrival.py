"""Whether requests from each network reach each service, by what was seen of connections."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.arrival import (
    CONFIRMATIONS,
    FORGET_AFTER,
    ArrivalCheck,
    ArrivalObservation,
    ArrivalPair,
    Arrivals,
    ArrivalState,
    ArrivalTracker,
    add_observations,
    arrival_problems,
    retain_current,
)
from mesh.model.codes import Code
from mesh.model.problem import Problem

PAIR = ArrivalPair("demo/web", "172.18.0.0/16")
OTHER = ArrivalPair("demo/db", "172.18.0.0/16")
NOW = 1_796_000_000.0


def seen(arrived: bool, pair: ArrivalPair = PAIR, check: ArrivalCheck = ArrivalCheck.CONNECTION) -> ArrivalObservation:
    return ArrivalObservation(pair, check, arrived, "" if arrived else "no answer within 2 s", "" if arrived else "fix")


def after(*observations: ArrivalObservation) -> Arrivals:
    """The results after these observations, one second apart."""
    arrivals = Arrivals()
    for second, observation in enumerate(observations):
        arrivals = add_observations(arrivals, [observation], NOW + second)
    return arrivals


@pytest.mark.parametrize(
    ("observed", "state"),
    [
        ([], ArrivalState.NEVER_TRIED),
        ([True], ArrivalState.ARRIVES),
        ([False], ArrivalState.NEVER_TRIED),
        ([False, False], ArrivalState.NOT_ARRIVING),
        ([True, False], ArrivalState.ARRIVES),
        ([True, False, False], ArrivalState.NOT_ARRIVING),
        ([False, True, False], ArrivalState.ARRIVES),
        ([False, False, True], ArrivalState.ARRIVES),
    ],
)
def test_a_single_failure_does_not_count_and_one_answer_does(observed: Sequence[bool], state: ArrivalState) -> None:
    assert after(*map(seen, observed)).state(PAIR) is state


def test_a_state_has_the_time_at_which_it_began() -> None:
    record = after(*map(seen, [True, False, False, False])).records[PAIR, ArrivalCheck.CONNECTION]
    assert (record.since, record.seen, record.failures) == (NOW + 2, NOW + 3, 3)


def test_neither_check_hides_what_the_other_has_found() -> None:
    arrivals = after(seen(False), seen(False), seen(True, check=ArrivalCheck.CONNTRACK))
    assert arrivals.state(PAIR) is ArrivalState.NOT_ARRIVING
    assert arrivals.count() == {
        ArrivalState.ARRIVES: 0,
        ArrivalState.NOT_ARRIVING: 1,
        ArrivalState.NEVER_TRIED: 0,
    }


def test_results_of_removed_services_and_old_results_are_dropped() -> None:
    arrivals = after(seen(True), seen(True, OTHER))
    assert retain_current(arrivals, {"demo/web", "demo/db"}, NOW + 5) is arrivals
    assert retain_current(arrivals, {"demo/db"}, NOW + 5).pairs == (OTHER,)
    assert retain_current(arrivals, {"demo/web", "demo/db"}, NOW + FORGET_AFTER).pairs == (OTHER,)


def test_a_problem_names_service_network_time_reason_and_remedy() -> None:
    (problem,) = arrival_problems(after(seen(False), seen(False), seen(True, OTHER)))
    assert problem.code is Code.REQUESTS_DO_NOT_ARRIVE
    assert problem.owner == "demo/web"
    assert str(problem) == (
        "warning: service demo/web: requests from the network 172.18.0.0/16 have not arrived since "
        "2026-11-30 00:53:21+00:00: no answer within 2 s; fix"
    )


def test_a_problem_without_a_known_remedy_names_the_test() -> None:
    failed = ArrivalObservation(ArrivalPair("demo/web", "host"), ArrivalCheck.CONNTRACK, arrived=False)
    (problem,) = arrival_problems(after(failed, failed))
    assert "requests from this worker itself have not arrived" in problem.reason
    assert "`vipmesh test`" in problem.remedy


def test_a_lasting_problem_keeps_its_text_so_that_the_log_has_it_once() -> None:
    failures = [seen(False)] * CONFIRMATIONS
    assert list(arrival_problems(after(*failures))) == list(arrival_problems(after(*failures, *failures)))


def test_the_tracker_reports_after_each_change_and_only_then() -> None:
    reports: list[tuple[Problem, ...]] = []
    tracker = ArrivalTracker(reports.append)
    tracker.observe([], NOW)
    assert reports == []
    tracker.observe([seen(False), seen(False)], NOW)
    assert [len(problems) for problems in reports] == [1]
    tracker.retain({"demo/web"}, NOW)
    assert len(reports) == 1
    tracker.retain(set(), NOW)
    assert [len(problems) for problems in reports] == [1, 0]


OBSERVATIONS = st.lists(
    st.builds(
        seen,
        st.booleans(),
        st.sampled_from([PAIR, OTHER]),
        st.sampled_from(list(ArrivalCheck)),
    ),
    max_size=12,
)


@given(OBSERVATIONS)
def test_the_state_depends_on_the_last_observations_of_each_check_alone(observed: list[ArrivalObservation]) -> None:
    """An oracle that reads the whole history: failing if a check has failed often enough at its end."""
    arrivals = after(*observed)
    for pair in (PAIR, OTHER):
        histories = [[o.arrived for o in observed if (o.pair, o.check) == (pair, check)] for check in ArrivalCheck]
        fails = [len(h) >= CONFIRMATIONS and not any(h[-CONFIRMATIONS:]) for h in histories]
        expected = (
            ArrivalState.NOT_ARRIVING
            if any(fails)
            else ArrivalState.ARRIVES
            if any(any(h) for h in histories)
            else ArrivalState.NEVER_TRIED
        )
        assert arrivals.state(pair) is expected
        failing = dict(arrivals.failing(pair.owner))
        assert (pair in failing) == (expected is ArrivalState.NOT_ARRIVING)
