"""The health state machine against its documented rules, implemented in the plainest way."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.health.history import HISTORY_LENGTH, CheckHistory
from mesh.health.state_machine import (
    FLAP_WINDOW_INTERVALS,
    FREE_FALLS,
    MAX_THRESHOLD_FACTOR,
    FlapHold,
    HealthState,
    HealthTransition,
    Verdict,
    is_held_back,
    observe_verdict,
    resume_health,
    suspend_health,
    verdicts_needed,
)
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health

PROBE = Probe(ProbeKind.TCP, None)  # 2 successes, 3 failures, 5 s, 60 s to start
OK = Verdict(True, "connected", 0.001)
BAD = Verdict(False, "refused", 0.002)
HEALTHY = HealthState(Health.HEALTHY)


def run(state: HealthState, outcomes: str, probe: Probe = PROBE, apart: float = 1.0) -> tuple[HealthState, str]:
    """Feed `+` and `-`, so many seconds apart; the second value is the health after each, `s`, `h` or `u`."""
    healths = ""
    for number, outcome in enumerate(outcomes):
        before = state.health
        state, events = observe_verdict(state, OK if outcome == "+" else BAD, probe, number * apart)
        assert any(isinstance(event, HealthTransition) for event in events) == (state.health is not before)
        healths += state.health[0]
    return state, healths


@pytest.mark.parametrize(
    ("start", "outcomes", "healths"),
    [
        pytest.param(HealthState(), "+", "h", id="the first success of a starting endpoint counts at once"),
        pytest.param(HealthState(), "-----+", "sssssh", id="a starting endpoint that fails stays starting"),
        pytest.param(HEALTHY, "--+--+---", "hhhhhhhhu", id="failures must come in a row"),
        pytest.param(HEALTHY, "---+-++", "hhuuuuh", id="successes must come in a row on the way back"),
        pytest.param(HealthState(), "+---++---", "hhhuuhhhu", id="there and back again"),
        pytest.param(HEALTHY, "+", "h", id="presumed and confirmed"),
        pytest.param(suspend_health(HEALTHY), "-----", "hhhhh", id="set aside, nothing counts"),
        pytest.param(resume_health(0.0), "-+", "sh", id="brought back, it proves itself"),
    ],
)
def test_consecutive_verdicts_change_the_health(start: HealthState, outcomes: str, healths: str) -> None:
    assert run(start, outcomes)[1] == healths


def test_the_startup_period_expires() -> None:
    probe = replace(PROBE, initial_delay=3.0, startup=4.0)
    state = HealthState(begun=100.0)
    state, events = observe_verdict(state, BAD, probe, 106.9)
    assert (state.health, events) == (Health.STARTING, ())
    state, (event,) = observe_verdict(state, BAD, probe, 107.0)
    assert state.health is Health.UNHEALTHY
    assert str(event) == "unhealthy: refused (its startup time is over)"
    assert verdicts_needed(state, probe, 107.0) == 2  # it was never up: that was no fall
    assert run(state, "++")[1] == "uh"


def test_a_transition_states_its_cause() -> None:
    state, _ = run(HEALTHY, "--")
    _, events = observe_verdict(state, BAD, PROBE, 12.5)
    assert events == (HealthTransition(Health.HEALTHY, Health.UNHEALTHY, replace(BAD, at=12.5), 3, 3),)
    assert str(events[0]) == "unhealthy: refused (3 of 3)"
    _, events = observe_verdict(HealthState(), OK, PROBE, 0.0)
    assert str(events[0]) == "healthy: connected (1 of 1)"


def test_thresholds_may_change_in_the_middle_of_a_run() -> None:
    state, _ = run(HEALTHY, "--")
    patient, _ = observe_verdict(state, BAD, replace(PROBE, unhealthy_threshold=5), 2.0)
    assert patient.health is Health.HEALTHY
    assert run(patient, "-", replace(PROBE, unhealthy_threshold=5))[1] == "h"
    assert run(patient, "-", replace(PROBE, unhealthy_threshold=1))[1] == "u"


def test_a_flapping_endpoint_needs_more_successes_each_time() -> None:
    """Two falls are free, then the successes double: 2, 2, 4, 8, 16, 16."""
    state, took = HEALTHY, []
    for _ in range(6):
        state, _ = run(state, "---")
        took.append(0)
        while state.health is not Health.HEALTHY:
            state, _ = observe_verdict(state, OK, PROBE, 3.0)
            took[-1] += 1
    assert took == [2, 2, 4, 8, 16, 16]


def test_a_flap_hold_is_reported_once_and_expires() -> None:
    state, _ = run(HEALTHY, "---++---++---")
    assert not is_held_back(state, PROBE)
    state, _ = observe_verdict(state, OK, PROBE, 13.0)
    state, (event,) = observe_verdict(state, OK, PROBE, 14.0)
    assert event == FlapHold(3, 300.0, 4)
    assert str(event) == "held back: it failed 3 times in 300 s and must answer 4 times"
    assert is_held_back(state, PROBE)
    # The first fall was at 2 s, and is forgotten 300 s later: the third success is then enough.
    _, (change,) = observe_verdict(state, OK, PROBE, 302.1)
    assert (change.threshold, isinstance(change, HealthTransition)) == (2, True)


def test_recent_verdicts_are_kept_with_their_time() -> None:
    history = CheckHistory()
    assert history.verdicts() == ()
    for now, verdict in enumerate([BAD] * 7 + [OK] * 8):
        history.add(verdict, float(now))
    kept = history.verdicts()
    assert [verdict.at for verdict in kept] == [float(now) for now in range(15)][-HISTORY_LENGTH:]
    assert [(verdict.ok, verdict.reason) for verdict in kept] == [(False, "refused")] * 2 + [(True, "connected")] * 8
    assert kept[-1].duration == pytest.approx(OK.duration)


def expected(start: Health, outcomes: list[bool], probe: Probe) -> Health:
    """The rules again, over the whole list: looks back from every verdict instead of counting forward. One verdict a
    second, at 1, 2, 3..."""
    health, falls = start, list[int]()
    for end in range(1, len(outcomes) + 1):
        seen = outcomes[:end]
        recent = [fall for fall in falls if end - fall <= FLAP_WINDOW_INTERVALS * probe.interval][-6:]
        rise = probe.healthy_threshold * min(MAX_THRESHOLD_FACTOR, 2 ** max(0, len(recent) - FREE_FALLS))
        since = falls[-1] if falls else 0
        fall = probe.unhealthy_threshold
        if health is Health.STARTING and seen[-1]:
            health = Health.HEALTHY
        elif health is Health.STARTING and end >= probe.initial_delay + probe.startup:
            health = Health.UNHEALTHY
        elif health is Health.HEALTHY and end >= fall and not any(seen[-fall:]):
            health = Health.UNHEALTHY
            falls.append(end)
        elif health is Health.UNHEALTHY and end - since >= rise and all(seen[-rise:]) and end >= rise:
            health = Health.HEALTHY
    return health


@example(
    HEALTHY,
    [False] * 10 + [True] * 5 + [False] * 5 + [True] * 5 + [False] * 5 + [True] * 2,
    Probe(ProbeKind.TCP, None, healthy_threshold=1, unhealthy_threshold=1, interval=0.5, startup=0.0),
)
@given(
    st.sampled_from([HealthState(), HEALTHY]),
    # biased, so that long runs of both kinds appear
    st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=25).map(
        lambda runs: [ok for ok, n in runs for _ in range(n)]
    ),
    st.builds(
        Probe,
        st.just(ProbeKind.TCP),
        st.none(),
        healthy_threshold=st.integers(1, 4),
        unhealthy_threshold=st.integers(1, 4),
        initial_delay=st.integers(0, 3).map(float),
        startup=st.integers(0, 12).map(float),
        interval=st.sampled_from([0.1, 0.5, 5.0]),
    ),
)
def test_health_equals_that_of_the_documented_rules(start: HealthState, outcomes: list[bool], probe: Probe) -> None:
    state = start
    for count, ok in enumerate(outcomes, 1):
        before = state
        state, events = observe_verdict(state, OK if ok else BAD, probe, float(count))
        assert state.health is expected(start.health, outcomes[:count], probe)
        changes = [event for event in events if isinstance(event, HealthTransition)]
        assert len(changes) == (state.health is not before.health)
        for change in changes:
            assert (change.before, change.after) == (before.health, state.health)
            # A hold that expires between two verdicts leaves a run that is longer than what is needed by then.
            hold_expired = verdicts_needed(before, probe, float(count - 1)) > change.threshold
            assert change.run == change.threshold or (hold_expired and change.run > change.threshold)
            assert state.run == 0
        assert is_held_back(state, probe) <= (state.health is Health.UNHEALTHY)
        assert observe_verdict(suspend_health(before), OK if ok else BAD, probe, float(count)) == (
            suspend_health(before),
            (),
        )


@given(st.lists(st.booleans()), st.floats(0, 1e6))
def test_a_resumed_endpoint_starts_with_a_fresh_state(outcomes: list[bool], now: float) -> None:
    state = HealthState()
    for count, ok in enumerate(outcomes):
        state, _ = observe_verdict(state, OK if ok else BAD, PROBE, float(count))
    assert resume_health(now) == HealthState(begun=now)
    assert verdicts_needed(resume_health(now), PROBE, now) == 1
