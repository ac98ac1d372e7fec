"""The state machine against the rules as they are written, told in the plainest way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model import Health, Probe, ProbeKind
from mesh.probes.health import HISTORY, PRESUMED_HEALTHY, State, Transition, Verdict, observe

PROBE = Probe(ProbeKind.TCP, None)  # 2 successes, 3 failures
OK = Verdict(True, "connected", 0.001)
BAD = Verdict(False, "refused", 0.002)


def run(state: State, outcomes: str, probe: Probe = PROBE) -> tuple[State, str]:
    """Feed `+` and `-`; the second value is the health after each, `s`, `h` or `u`."""
    healths = ""
    for now, outcome in enumerate(outcomes):
        before = state.health
        state, transition = observe(state, OK if outcome == "+" else BAD, probe, float(now))
        assert (transition is None) == (state.health is before)
        healths += state.health[0]
    return state, healths


@pytest.mark.parametrize(
    ("start", "outcomes", "healths"),
    [
        pytest.param(State(), "+", "h", id="the first success of a starting endpoint counts at once"),
        pytest.param(State(), "-----+", "sssssh", id="a starting endpoint that fails stays starting"),
        pytest.param(PRESUMED_HEALTHY, "--+--+---", "hhhhhhhhu", id="failures must come in a row"),
        pytest.param(PRESUMED_HEALTHY, "---+-++", "hhuuuuh", id="successes must come in a row on the way back"),
        pytest.param(State(), "+---++---", "hhhuuhhhu", id="there and back again"),
        pytest.param(PRESUMED_HEALTHY, "+", "h", id="presumed and confirmed"),
    ],
)
def test_health_follows_runs(start: State, outcomes: str, healths: str) -> None:
    assert run(start, outcomes)[1] == healths


def test_a_transition_says_what_brought_it_about() -> None:
    state, _ = run(PRESUMED_HEALTHY, "--")
    _, transition = observe(state, BAD, PROBE, 12.5)
    assert transition == Transition(Health.HEALTHY, Health.UNHEALTHY, replace(BAD, at=12.5), 3, 3)
    assert str(transition) == "unhealthy: refused (3 of 3)"
    _, transition = observe(State(), OK, PROBE, 0.0)
    assert str(transition) == "healthy: connected (1 of 1)"


def test_thresholds_may_change_in_the_middle_of_a_run() -> None:
    state, _ = run(PRESUMED_HEALTHY, "--")
    patient, _ = observe(state, BAD, replace(PROBE, unhealthy_threshold=5), 2.0)
    assert patient.health is Health.HEALTHY
    assert run(patient, "-", replace(PROBE, unhealthy_threshold=5))[1] == "h"
    assert run(patient, "-", replace(PROBE, unhealthy_threshold=1))[1] == "u"


def test_the_last_verdicts_are_kept_with_their_time() -> None:
    state, _ = run(State(), "-" * 7 + "+" * 8)
    assert [verdict.at for verdict in state.history] == [float(now) for now in range(15)][-HISTORY:]
    assert [verdict.ok for verdict in state.history] == [False] * 2 + [True] * 8
    assert state.history[-1] == replace(OK, at=14.0)


def expected(start: Health, outcomes: list[bool], healthy: int, unhealthy: int) -> Health:
    """The rules again, over the whole list: looks back from every verdict instead of counting forward."""
    health = start
    for end in range(1, len(outcomes) + 1):
        seen = outcomes[:end]
        if health is Health.STARTING and seen[-1]:
            health = Health.HEALTHY
        elif health is Health.HEALTHY and end >= unhealthy and not any(seen[-unhealthy:]):
            health = Health.UNHEALTHY
        elif health is Health.UNHEALTHY and end >= healthy and all(seen[-healthy:]):
            health = Health.HEALTHY
    return health


@given(
    st.sampled_from([State(), PRESUMED_HEALTHY]),
    # biased, so that long runs of both kinds appear
    st.lists(st.tuples(st.booleans(), st.integers(1, 5))).map(lambda runs: [ok for ok, n in runs for _ in range(n)]),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_health_is_what_the_rules_say(start: State, outcomes: list[bool], healthy: int, unhealthy: int) -> None:
    probe = replace(PROBE, healthy_threshold=healthy, unhealthy_threshold=unhealthy)
    state = start
    for count, ok in enumerate(outcomes, 1):
        before = state.health
        state, transition = observe(state, OK if ok else BAD, probe, float(count))
        assert state.health is expected(start.health, outcomes[:count], healthy, unhealthy)
        assert len(state.history) == min(count, HISTORY)
        if transition is None:
            assert state.health is before
        else:
            assert (transition.before, transition.after) == (before, state.health)
            assert before is not state.health
            assert transition.run == transition.threshold
