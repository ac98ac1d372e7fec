"""The policy of autoscaling: each rule, and what holds for any load."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.auto_scaling import AutoScaling, ScalingBand, ScalingSchedule, ScheduledBounds
from mesh.platform.autoscaling.model import (
    InstanceSample,
    ScalingClock,
    ScalingDecision,
    ScalingMeasure,
    ScalingReason,
    ScalingState,
    ScalingSubject,
    ServiceSample,
)
from mesh.platform.autoscaling.policy import decide

CPU, MEMORY = ScalingMeasure.CPU, ScalingMeasure.MEMORY
BAND = AutoScaling(ScalingBand(70, 30), step=2)
TARGET = AutoScaling(target_cpu=50)
LIMIT = "of the limit"
WALL = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()  # a Tuesday
INTERVAL = 10.0
SETTLED = ScalingState(instances=2, clock_offset=WALL - 1000.0)
"""Of a service whose number did not change for long."""
NOW = 1000.0


def instances(*cpu: float, starting: int = 0) -> tuple[InstanceSample, ...]:
    """Instances with this CPU, and some that start and are fully busy."""
    busy = InstanceSample({CPU: 1000.0}, is_starting=True)
    return tuple(InstanceSample({CPU: each}) for each in cpu) + (busy,) * starting


def in_a_row(*each: tuple[InstanceSample, ...], until: float = NOW) -> list[ServiceSample]:
    """Samples every 10 s, the last one now."""
    return [ServiceSample(until - INTERVAL * (len(each) - 1 - at), found) for at, found in enumerate(each)]


def steady(*cpu: float, starting: int = 0) -> list[ServiceSample]:
    """Three samples that are alike."""
    return in_a_row(*[instances(*cpu, starting=starting)] * 3)


def made(
    policy: AutoScaling,
    samples: Sequence[ServiceSample],
    count: int = 2,
    *,
    state: ScalingState | None = None,
    now: float = NOW,
    wall: float = WALL,
    subject: ScalingSubject | None = None,
) -> ScalingDecision:
    """The decision about a service with so many instances."""
    found = ScalingSubject("web", count, cpu_base=LIMIT, memory_base=LIMIT) if subject is None else subject
    before = replace(SETTLED, instances=found.instances) if state is None else state
    return decide(policy, found, samples, before, ScalingClock(now, wall))[0]


# ------------------------------------------------------------------------------------------------ thresholds


def test_three_samples_over_the_maximum_add_a_step_and_the_line_says_why() -> None:
    found = made(BAND, steady(101, 101))
    assert (found.wanted, found.reason) == (4, ScalingReason.LOAD)
    assert found.line == "web: 2 -> 4: CPU 101 % of the limit over 70 % in 3 samples, 2 of 2 tasks"
    assert found.values == {CPU: 101.0}


def test_three_samples_under_the_minimum_remove_a_step() -> None:
    found = made(BAND, steady(5, 5, 5, 5), 4)
    assert found.line == "web: 4 -> 2: CPU 5 % of the limit under 30 % in 3 samples, 4 of 4 tasks"


@pytest.mark.parametrize("samples", [in_a_row(instances(90, 90)), in_a_row(instances(90, 90), instances(90, 90))])
def test_fewer_samples_decide_nothing(samples: list[ServiceSample]) -> None:
    found = made(BAND, samples)
    assert (found.wanted, found.reason) == (2, ScalingReason.FEW_SAMPLES)
    assert found.line == f"web: 2: {len(samples)} of 3 samples since the last change"


def test_no_sample_at_all_decides_nothing() -> None:
    assert made(BAND, []).wanted == 2


def test_one_sample_of_three_that_is_not_over_the_maximum_stops_it() -> None:
    found = made(BAND, in_a_row(instances(90, 90), instances(60, 60), instances(90, 90)))
    assert (found.wanted, found.reason) == (2, ScalingReason.IN_RANGE)


def test_samples_older_than_a_minute_do_not_count() -> None:
    samples = steady(90, 90)
    assert made(BAND, samples, now=NOW + 39).wanted == 4
    assert made(BAND, samples, now=NOW + 41, wall=WALL + 41).wanted == 2


def test_samples_from_before_the_last_change_do_not_count() -> None:
    state = replace(SETTLED, changed_at=NOW - 15)
    found = made(BAND, steady(90, 90), state=state)
    assert (found.wanted, found.why) == (2, "2 of 3 samples since the last change")


def test_samples_from_the_future_do_not_count() -> None:
    assert made(BAND, in_a_row(*[instances(90, 90)] * 3, until=NOW + 5)).wanted == 2


@pytest.mark.parametrize("cpu", [70, 30, 50])
def test_at_a_threshold_and_between_both_nothing_changes(cpu: float) -> None:
    found = made(BAND, steady(cpu, cpu))
    assert found.line == f"web: 2: CPU {cpu} % of the limit, between 30 % and 70 %"


def test_a_removal_that_would_bring_the_average_over_the_maximum_is_skipped() -> None:
    policy = AutoScaling(ScalingBand(70, 40), step=2)
    found = made(policy, steady(39, 39, 39, 39), 4)
    assert (found.wanted, found.reason) == (4, ScalingReason.WOULD_EXCEED)
    assert found.why.startswith("2 would bring CPU 78 % of the limit, over 70 % again")


def test_a_removal_that_would_bring_another_measure_over_its_maximum_is_skipped() -> None:
    both = InstanceSample({CPU: 5.0, MEMORY: 60.0})
    found = made(replace(BAND, memory=ScalingBand(95)), in_a_row(*[(both,) * 4] * 3), 4)
    assert (found.wanted, found.reason) == (4, ScalingReason.WOULD_EXCEED)
    assert "memory 120 % of the limit" in found.why


def test_without_a_minimum_nothing_is_removed() -> None:
    assert made(AutoScaling(ScalingBand(70)), steady(1, 1, 1, 1), 4).wanted == 4


def test_the_share_of_time_in_which_the_limit_was_used_up_is_told() -> None:
    waiting = InstanceSample({CPU: 99.0}, throttled=0.4)
    found = made(BAND, in_a_row(*[(waiting, waiting)] * 3))
    assert found.why.endswith("2 of 2 tasks, throttled in 40 % of periods")


# ----------------------------------------------------------------------------------------------- several measures


def test_of_two_measures_the_larger_wish_counts() -> None:
    policy = replace(BAND, memory=ScalingBand(95, 40))
    high = InstanceSample({CPU: 5.0, MEMORY: 97.0})
    middle = InstanceSample({CPU: 5.0, MEMORY: 60.0})
    low = InstanceSample({CPU: 5.0, MEMORY: 10.0})
    assert made(policy, in_a_row(*[(high, high)] * 3)).wanted == 4
    assert made(policy, in_a_row(*[(middle,) * 4] * 3), 4).wanted == 4
    assert made(policy, in_a_row(*[(low,) * 4] * 3), 4).wanted == 2


def test_a_measure_that_only_adds_does_not_keep_instances() -> None:
    policy = replace(BAND, memory=ScalingBand(95))
    found = made(policy, in_a_row(*[(InstanceSample({CPU: 5.0, MEMORY: 30.0}),) * 4] * 3), 4)
    assert found.wanted == 2


def test_a_measure_that_the_kernel_does_not_count_adds_nothing_and_removes_nothing() -> None:
    policy = replace(BAND, memory=ScalingBand(95, 40))
    found = made(policy, steady(5, 5, 5, 5), 4)
    assert (found.wanted, found.reason) == (4, ScalingReason.FEW_SAMPLES)
    assert made(policy, steady(90, 90)).wanted == 4


@pytest.mark.parametrize(
    ("policy", "measure", "text"),
    [
        (AutoScaling(max_connections=500), ScalingMeasure.CONNECTIONS, "720 open connections of each task over 500"),
        (
            AutoScaling(max_connection_rate=100),
            ScalingMeasure.CONNECTION_RATE,
            "720 new connections of each task in a second over 100",
        ),
    ],
)
def test_connections_are_a_measure(policy: AutoScaling, measure: ScalingMeasure, text: str) -> None:
    found = made(policy, in_a_row(*[(InstanceSample({measure: 720.0}),) * 2] * 3))
    assert found.line == f"web: 2 -> 3: {text} in 3 samples, 2 of 2 tasks"
    few = made(policy, in_a_row(*[(InstanceSample({measure: 10.0}),) * 2] * 3))
    assert few.wanted == 1, "below half of the maximum"
    enough = made(policy, in_a_row(*[(InstanceSample({measure: 60.0 if "rate" in measure else 300.0}),) * 2] * 3))
    assert enough.wanted == 2


# --------------------------------------------------------------------------------------------- target tracking


@pytest.mark.parametrize(("cpu", "wanted"), [(90, 8), (56, 5), (54, 4), (46, 4), (500, 8)])
def test_a_target_adds_at_once_what_brings_the_average_to_it(cpu: float, wanted: int) -> None:
    """`ceil(4 * cpu / 50)` beyond a tolerance of 10 %, and at most as many as there are, or four."""
    assert made(TARGET, steady(cpu, cpu, cpu, cpu), 4).wanted == wanted


def test_a_target_needs_two_samples_or_one_far_over_it() -> None:
    assert made(TARGET, in_a_row(instances(60, 60), instances(60, 60))).wanted == 3
    assert made(TARGET, in_a_row(instances(60, 60))).wanted == 2
    found = made(TARGET, in_a_row(instances(90, 90)))
    assert found.line == "web: 2 -> 4: CPU 90 % of the limit for a target of 50 % in 1 sample, 2 of 2 tasks"


def test_a_target_removes_what_it_did_not_want_for_the_cooldown() -> None:
    state = replace(SETTLED, instances=4, low_since=NOW - 301, low_most=3)
    assert made(TARGET, steady(10, 10, 10, 10), 4, state=state).wanted == 3
    soon = made(TARGET, steady(10, 10, 10, 10), 4, state=replace(state, low_since=NOW - 290))
    assert (soon.wanted, soon.reason) == (4, ScalingReason.COOLDOWN)
    assert "another 10 s" in soon.why


def test_a_moment_at_the_target_begins_the_wait_again() -> None:
    state = replace(SETTLED, instances=4, low_since=NOW - 400, low_most=3)
    subject = ScalingSubject("web", 4)
    _, after = decide(TARGET, subject, steady(50, 50, 50, 50), state, ScalingClock(NOW, WALL))
    assert after.low_since is None


# ---------------------------------------------------------------------------- instances that start or are missing


def test_instances_that_start_count_as_idle_when_instances_are_added() -> None:
    assert made(BAND, steady(100, 100, starting=2), 4).wanted == 4, "50 % of four"
    assert made(BAND, steady(100, 100, 100, starting=1), 4).wanted == 6, "75 % of four"


def test_instances_that_start_count_as_full_when_instances_are_removed() -> None:
    assert made(BAND, steady(5, 5, 5, starting=1), 4).wanted == 2
    found = made(BAND, steady(5, 5, starting=2), 4)
    assert (found.wanted, found.reason) == (4, ScalingReason.IN_RANGE)


def test_missing_instances_count_as_idle_when_instances_are_added() -> None:
    assert made(BAND, steady(100, 100), 4).wanted == 4
    assert made(BAND, steady(100, 100, 100), 4).wanted == 6


def test_missing_instances_forbid_a_removal() -> None:
    policy = AutoScaling(ScalingBand(100, 90), step=1)
    found = made(policy, steady(1, 1, 1), 4)
    assert (found.wanted, found.reason) == (4, ScalingReason.MISSING)
    assert found.why.startswith("nothing is heard of 1 of 4 tasks")


def test_less_than_half_measured_decides_nothing() -> None:
    found = made(BAND, steady(500, 500), 5)
    assert (found.wanted, found.reason) == (5, ScalingReason.FEW_SAMPLES)
    assert "2 of 5 tasks" in found.why


def test_instances_that_end_do_not_make_the_rest_look_busier() -> None:
    assert made(BAND, steady(60, 60, 60, 60), 2).wanted == 2


# ------------------------------------------------------------------------------------------------------- holds


def test_nothing_is_removed_before_the_cooldown_after_an_addition_is_over() -> None:
    state = replace(SETTLED, instances=4, added_at=NOW - 200)
    found = made(BAND, steady(5, 5, 5, 5), 4, state=state)
    assert (found.wanted, found.reason) == (4, ScalingReason.COOLDOWN)
    assert found.why.startswith("cooldown for another 100 s")
    assert made(BAND, steady(5, 5, 5, 5), 4, state=replace(state, added_at=NOW - 300)).wanted == 2


def test_an_addition_waits_for_no_cooldown() -> None:
    assert made(BAND, steady(90, 90), state=replace(SETTLED, added_at=NOW - 31, changed_at=NOW - 31)).wanted == 4


@pytest.mark.parametrize(
    ("subject", "reason", "adds"),
    [
        (ScalingSubject("web", 4, is_rolling_out=True), ScalingReason.ROLLOUT, False),
        (ScalingSubject("web", 4, is_draining=True), ScalingReason.DRAIN, True),
        (ScalingSubject("web", 4, pending="no suitable node"), ScalingReason.PENDING, False),
    ],
)
def test_a_rollout_a_drain_and_a_task_without_a_place_hold(
    subject: ScalingSubject, reason: ScalingReason, *, adds: bool
) -> None:
    low = made(BAND, steady(5, 5, 5, 5), subject=subject)
    assert (low.wanted, low.reason) == (4, reason)
    high = made(BAND, steady(90, 90, 90, 90), subject=subject)
    assert high.wanted == (6 if adds else 4)


def test_the_reason_of_the_engine_is_told() -> None:
    subject = ScalingSubject("web", 2, pending="no suitable node (insufficient resources on 3 nodes)")
    assert "no suitable node (insufficient resources on 3 nodes)" in made(BAND, steady(90, 90), subject=subject).why


def test_a_number_that_a_person_set_stays_for_the_cooldown() -> None:
    subject = ScalingSubject("web", 7, cpu_base=LIMIT)
    first, state = decide(BAND, subject, steady(*[5.0] * 7), SETTLED, ScalingClock(NOW, WALL))
    assert (first.wanted, first.reason) == (7, ScalingReason.SET_ASIDE)
    later = NOW + 299
    samples = in_a_row(*[instances(*[5.0] * 7)] * 3, until=later)
    held, state = decide(BAND, subject, samples, state, ScalingClock(later, WALL + 299))
    assert (held.wanted, held.reason) == (7, ScalingReason.SET_ASIDE)
    end = NOW + 301
    samples = in_a_row(*[instances(*[5.0] * 7)] * 3, until=end)
    assert decide(BAND, subject, samples, state, ScalingClock(end, WALL + 301))[0].wanted == 5


# ------------------------------------------------------------------------------------------ bounds and schedules


def test_the_bounds_cut_a_wish_and_the_line_says_so() -> None:
    most = made(replace(BAND, max_instances=3), steady(90, 90))
    assert (most.wanted, most.bounds) == (3, (1, 3))
    assert most.line.endswith("; max_instances is 3")
    least = made(replace(BAND, min_instances=3), steady(5, 5, 5, 5), 4)
    assert least.wanted == 3
    assert least.line.endswith("; min_instances is 3")


def test_a_number_outside_of_the_bounds_is_brought_to_them() -> None:
    low = made(replace(BAND, min_instances=3), [])
    assert (low.wanted, low.line) == (3, "web: 2 -> 3: min_instances is 3")
    high = made(replace(BAND, max_instances=3), steady(*[90.0] * 5), 5)
    assert (high.wanted, high.line) == (3, "web: 5 -> 3: max_instances is 3")


SCHEDULE = ScalingSchedule((ScheduledBounds("0 8 * * 1-5", 4, None), ScheduledBounds("0 18 * * 1-5", 1, 3)))


@pytest.mark.parametrize(
    ("at", "bounds"),
    [
        (datetime(2026, 12, 1, 12, tzinfo=UTC), (4, 10)),
        (datetime(2026, 12, 1, 8, tzinfo=UTC), (4, 10)),
        (datetime(2026, 12, 1, 7, 59, 59, tzinfo=UTC), (1, 3)),
        (datetime(2026, 12, 5, 12, tzinfo=UTC), (1, 3)),  # Saturday
    ],
)
def test_the_entry_of_the_schedule_that_fired_last_holds(at: datetime, bounds: tuple[int, int]) -> None:
    assert made(replace(BAND, schedule=SCHEDULE), [], wall=at.timestamp()).bounds == bounds


def test_of_entries_that_fire_together_the_later_one_holds() -> None:
    entries = (ScheduledBounds("0 8 * * *", 2, None), ScheduledBounds("0 8 * * 2", 5, None))
    assert made(AutoScaling(schedule=ScalingSchedule(entries)), []).bounds == (5, 10)


def test_a_schedule_goes_by_its_time_zone() -> None:
    schedule = replace(SCHEDULE, timezone="America/New_York")
    assert made(replace(BAND, schedule=schedule), []).bounds == (1, 3), "7:00 in New York"


def test_a_schedule_alone_sets_the_number() -> None:
    only = AutoScaling(schedule=SCHEDULE)
    assert made(only, []).line == "web: 2 -> 4: min_instances is 4"
    evening = datetime(2026, 12, 1, 19, tzinfo=UTC).timestamp()
    state = replace(SETTLED, instances=3, clock_offset=evening - NOW)
    found = made(only, steady(5, 5, 5), 3, state=state, wall=evening)
    assert found.line == "web: 3 -> 1: the schedule says 1"


# ------------------------------------------------------------------------------------------------------ failures


def test_a_daemon_that_takes_over_removes_nothing_before_a_cooldown() -> None:
    found, state = decide(BAND, ScalingSubject("web", 4), steady(5, 5, 5, 5), ScalingState(), ScalingClock(NOW, WALL))
    assert (found.wanted, found.reason) == (4, ScalingReason.COOLDOWN)
    assert state.instances == 4


def test_a_decision_that_was_not_carried_out_is_made_again_and_not_twice() -> None:
    clock, subject = ScalingClock(NOW, WALL), ScalingSubject("web", 2)
    first, after = decide(BAND, subject, steady(90, 90), SETTLED, clock)
    again, _ = decide(BAND, subject, steady(90, 90), SETTLED, clock)
    assert first == again
    carried_out, _ = decide(BAND, replace(subject, instances=4), steady(90, 90), after, clock)
    assert carried_out.wanted == 4


@pytest.mark.parametrize("jump", [-86400.0, -60.0, 60.0, 86400.0])
def test_a_clock_that_was_set_removes_nothing_for_a_cooldown(jump: float) -> None:
    found = made(BAND, steady(5, 5, 5, 5), 4, wall=WALL + jump)
    assert (found.wanted, found.reason) == (4, ScalingReason.CLOCK)


def test_a_clock_that_is_corrected_a_little_is_not_set() -> None:
    assert made(BAND, steady(5, 5, 5, 5), 4, wall=WALL + 2).wanted == 2


# ----------------------------------------------------------------------------------------------------- properties

LOADS = st.floats(0, 5000)
POLICIES = st.one_of(
    st.builds(
        lambda low, gap, step, least, more: AutoScaling(
            ScalingBand(low + gap, low), step=step, min_instances=least, max_instances=least + more
        ),
        st.integers(1, 120),
        st.integers(1, 80),
        st.integers(1, 7),
        st.integers(1, 5),
        st.integers(0, 8),
    ),
    st.builds(
        lambda target, least, more: AutoScaling(
            target_cpu=target, min_instances=least, max_instances=least + more, cooldown=60
        ),
        st.integers(5, 150),
        st.integers(1, 5),
        st.integers(0, 8),
    ),
)


def run(
    policy: AutoScaling,
    load: Callable[[int], float],
    rounds: int,
    *,
    starts: int = 0,
    begin: int = 2,
    own_load: float = 0.0,
) -> list[int]:
    """The number of instances in each round. New ones take no load for `starts` rounds, but use `own_load`."""
    born: list[int] = [-1000] * begin
    state, samples, counts = SETTLED, list[ServiceSample](), list[int]()
    for at in range(rounds):
        serving = [each for each in born if at - each >= starts]
        share = load(at) / max(1, len(serving))
        usage = tuple(
            InstanceSample({CPU: share}) if at - each >= starts else InstanceSample({CPU: own_load}, is_starting=True)
            for each in born
        )
        now = NOW + at * INTERVAL
        samples = [*samples[-10:], ServiceSample(now, usage)]
        state = replace(state, instances=len(born)) if at == 0 else state
        decision, state = decide(
            policy, ScalingSubject("web", len(born)), samples, state, ScalingClock(now, WALL + at * INTERVAL)
        )
        born = [*born, *[at] * (decision.wanted - len(born))][: decision.wanted]
        counts.append(decision.wanted)
    return counts


@pytest.mark.timeout(600)
@settings(max_examples=40, deadline=None)
@given(POLICIES, LOADS, st.integers(0, 6), st.integers(1, 12))
def test_a_constant_load_never_makes_it_flap(policy: AutoScaling, load: float, starts: int, begin: int) -> None:
    counts = run(policy, lambda _: load, 120, starts=starts, begin=begin)
    changes = [later - earlier for earlier, later in pairwise(counts) if later != earlier]
    turns = sum((one > 0) != (other > 0) for one, other in pairwise(changes))
    assert turns == 0, counts
    assert len(set(counts[-30:])) == 1, "and it settles"


@pytest.mark.timeout(600)
@settings(max_examples=40, deadline=None)
@given(POLICIES, st.lists(LOADS, min_size=1, max_size=20), st.integers(0, 6), st.integers(1, 12))
def test_the_bounds_hold_for_any_load(policy: AutoScaling, loads: list[float], starts: int, begin: int) -> None:
    counts = run(policy, lambda at: loads[at // 5 % len(loads)], 100, starts=starts, begin=begin)
    low, high = policy.min_instances, policy.max_instances
    for before, after in pairwise([begin, *counts]):
        assert low <= after <= high or after == before, counts
    assert low <= counts[-1] <= high


@given(POLICIES, st.lists(st.floats(0, 500), min_size=1, max_size=8), st.floats(0, 300), st.integers(0, 3))
def test_more_load_never_means_fewer_instances(
    policy: AutoScaling, cpu: list[float], more: float, starting: int
) -> None:
    count = len(cpu) + starting
    low = made(policy, steady(*cpu, starting=starting), count)
    high = made(policy, steady(*(each + more for each in cpu), starting=starting), count)
    assert high.wanted >= low.wanted


@given(POLICIES, st.lists(st.floats(0, 500), min_size=1, max_size=8), st.integers(1, 8))
def test_missing_samples_never_remove_instances(policy: AutoScaling, cpu: list[float], missing: int) -> None:
    count = len(cpu) + missing
    state = replace(SETTLED, instances=count, low_since=NOW - 10_000)
    assert made(policy, steady(*cpu), count, state=state).wanted >= count


@pytest.mark.timeout(600)
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.floats(0, 1000))
def test_the_load_of_a_start_adds_no_further_instances(starts: int, step: int, own_load: float) -> None:
    """One that starts takes no load and is busy with itself, however long that lasts."""
    policy = AutoScaling(ScalingBand(70, 30), step=step, max_instances=40)
    counts = run(policy, lambda _: 160.0, starts + 30, starts=starts, own_load=own_load)
    assert max(counts) <= 2 + step, "160 % of one instance are 80 % of two, and below 70 % with one more"


def test_a_missing_worker_changes_nothing_whoever_it_is() -> None:
    """Half of the workers unheard of, the store away: samples are missing or too old."""
    for samples in ([], steady(5, 5), in_a_row(*[instances(5, 5, 5, 5)] * 3, until=NOW - 61)):
        assert made(BAND, samples, 4).wanted == 4
