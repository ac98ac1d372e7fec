"""The judge: what makes a new release good, bad, or neither, and that worse evidence never makes a better verdict."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.rollouts.judge import (
    TIME_BUCKETS,
    CheckEvidence,
    ConnectionEvidence,
    ConnectionFailure,
    JudgeLimits,
    JudgeOutcome,
    JudgeVerdict,
    ReleaseEvidence,
    bucket_bound,
    judge,
    percentile_95,
    time_bucket,
)

REFUSED, UNANSWERED, RESET = ConnectionFailure
LIMITS = JudgeLimits()
SERVES = ConnectionEvidence(100, dict.fromkeys(ConnectionFailure, 0), 5, 5)
OLD = ReleaseEvidence(60.0, 4, probes=48, probe_times={8: 48}, endpoints={"w1/a": SERVES})
NEW = ReleaseEvidence(60.0, 1, probes=12, probe_times={8: 12}, endpoints={"w1/b": SERVES})
GOOD, BAD, UNKNOWN, HOLD = JudgeOutcome
RANKS = {GOOD: 0, UNKNOWN: 1, HOLD: 2, BAD: 3}


def failing(kind: ConnectionFailure, count: int, attempts: int = 100) -> ConnectionEvidence:
    return ConnectionEvidence(attempts, {kind: count})


def test_a_release_that_does_as_the_old_one_is_good() -> None:
    verdict = judge(NEW, OLD, LIMITS)
    assert verdict.outcome is GOOD
    assert verdict.undecided_since is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out_of_memory": 1}, "1 end out of memory"),
        ({"looping": 1}, "1 instance in a restart loop"),
        ({"exits": 1}, "1 end of processes in 1 instance"),
        ({"failed_probes": 2}, "2 of 12 probes failed"),
        ({"endpoints": {"w1/b": failing(REFUSED, 10)}}, "10 of 100 connections were refused"),
        ({"endpoints": {"w1/b": failing(UNANSWERED, 10)}}, "10 of 100 connections were unanswered"),
        ({"endpoints": {"w1/b": failing(RESET, 10)}}, "10 of 100 connections were reset"),
    ],
)
def test_a_release_is_bad_by_what_the_old_one_does_not_do(change: dict[str, object], says: str) -> None:
    verdict = judge(replace(NEW, **change), OLD, LIMITS)  # type: ignore[arg-type]
    assert verdict.outcome is BAD
    assert says in verdict.reasons


def test_one_endpoint_of_many_that_fails_is_named() -> None:
    endpoints = {f"w1/{n}": SERVES for n in range(30)} | {"w2/x": failing(REFUSED, 60)}
    verdict = judge(replace(NEW, instances=31, endpoints=endpoints), OLD, LIMITS)
    assert verdict.outcome is BAD
    assert verdict.reasons == ("60 of 100 connections of w2/x were refused",)


def test_what_hits_both_judges_nobody() -> None:
    both = {"failed_probes": 12}
    assert judge(replace(NEW, **both), replace(OLD, **both), LIMITS).outcome is HOLD  # type: ignore[arg-type]


def test_most_of_the_old_release_fails_by_another_measure_and_nobody_is_judged() -> None:
    verdict = judge(replace(NEW, exits=1), replace(OLD, failed_probes=40), LIMITS)
    assert verdict.outcome is HOLD
    check = CheckEvidence("release.check.cmd", 3, 3, "exit status 1")
    assert judge(NEW, replace(OLD, failed_probes=40), LIMITS, [check]).outcome is HOLD


def test_an_old_release_that_always_fails_a_little_does_not_save_a_new_one_that_fails_otherwise() -> None:
    assert judge(replace(NEW, out_of_memory=1), replace(OLD, failed_probes=3), LIMITS).outcome is BAD


def test_few_connections_say_nothing_and_are_waited_for() -> None:
    few = replace(NEW, endpoints={"w1/b": failing(REFUSED, 3, 19)})
    verdict = judge(few, OLD, LIMITS, now=7.0)
    assert verdict == JudgeVerdict(UNKNOWN, ("16 connections of 20",), 7.0)
    assert judge(few, OLD, LIMITS, now=9.0, before=verdict).undecided_since == 7.0
    assert judge(few, OLD, replace(LIMITS, min_connections=0)).outcome is BAD


def test_one_failed_probe_is_an_accident() -> None:
    assert judge(replace(NEW, failed_probes=1), OLD, LIMITS).outcome is GOOD


def test_slower_probes_hold() -> None:
    slow = replace(NEW, probe_times={time_bucket(0.05): 12})
    assert judge(slow, OLD, LIMITS).outcome is HOLD
    assert judge(slow, replace(OLD, probe_times={time_bucket(0.04): 9}), LIMITS).outcome is GOOD
    # A millisecond and two are no difference that anybody notices.
    assert judge(replace(NEW, probe_times={4: 9}), replace(OLD, probe_times={0: 9}), LIMITS).outcome is GOOD


def test_connections_that_pile_up_hold() -> None:
    piled = replace(NEW, endpoints={"w1/b": replace(SERVES, open=60)})
    verdict = judge(piled, OLD, LIMITS)
    assert verdict.outcome is HOLD
    assert "pile up" in verdict.reasons[0]


def test_a_check_decides() -> None:
    check = CheckEvidence("release.check.url", 0)
    assert judge(NEW, OLD, LIMITS, [check]).outcome is UNKNOWN
    assert judge(NEW, OLD, LIMITS, [replace(check, runs=2)]).outcome is GOOD
    verdict = judge(NEW, OLD, LIMITS, [replace(check, runs=2, failed=1, reason="status 500")])
    assert verdict == JudgeVerdict(BAD, ("release.check.url failed 1 of 2: status 500",))


def test_what_no_plane_counts_is_said_and_shows_nothing() -> None:
    uncounted = replace(NEW, endpoints={}, uncounted=frozenset(ConnectionFailure))
    verdict = judge(uncounted, OLD, LIMITS)
    assert verdict.outcome is GOOD  # by its probe
    assert verdict.reasons[-1] == "not counted by a data plane: connections refused, reset, unanswered"
    assert judge(replace(uncounted, probes=0), OLD, LIMITS).outcome is UNKNOWN
    partly = replace(NEW, probes=0, uncounted=frozenset({REFUSED}))
    assert judge(partly, OLD, LIMITS).outcome is UNKNOWN


def test_a_bucket_holds_durations_up_to_its_bound() -> None:
    assert [time_bucket(seconds) for seconds in (0.0, 0.001, 0.0011)] == [0, 0, 1]
    assert time_bucket(1e9) == TIME_BUCKETS - 1
    assert all(time_bucket(bucket_bound(number)) == number for number in range(TIME_BUCKETS))
    assert percentile_95({}) is None
    assert percentile_95({0: 95, 8: 5}) == bucket_bound(0)
    assert percentile_95({0: 94, 8: 6}) == bucket_bound(8)


# ------------------------------------------------------------------------------------------------------ properties

COUNTS = st.integers(0, 200)
CONNECTIONS = st.builds(
    ConnectionEvidence,
    st.integers(0, 500),
    st.dictionaries(st.sampled_from(list(ConnectionFailure)), st.integers(0, 60)),
    COUNTS,
    COUNTS,
)
EVIDENCE = st.builds(
    ReleaseEvidence,
    st.floats(0, 600),
    st.integers(0, 20),
    *[st.integers(0, 5)] * 3,
    probes=COUNTS,
    failed_probes=st.integers(0, 20),
    probe_times=st.dictionaries(st.integers(0, TIME_BUCKETS - 1), COUNTS, max_size=4),
    endpoints=st.dictionaries(st.sampled_from(["w1/a", "w1/b", "w2/a"]), CONNECTIONS),
    uncounted=st.frozensets(st.sampled_from(list(ConnectionFailure))),
)
LIMITS_OF = st.builds(
    JudgeLimits, st.floats(0, 100), st.integers(0, 50), st.integers(0, 10), st.floats(0, 60), st.floats(1, 4)
)
CHECKS = st.lists(
    st.builds(CheckEvidence, st.just("release.check.cmd"), st.integers(0, 9), st.integers(0, 3)), max_size=2
)


@st.composite
def worsened(draw: st.DrawFn, evidence: ReleaseEvidence) -> ReleaseEvidence:
    """Return the same evidence with one thing worse."""
    count = draw(st.integers(1, 50))
    choices = ["exits", "looping", "out_of_memory", "probe", "slower", *sorted(evidence.endpoints)]
    match draw(st.sampled_from(choices)):
        case "probe":
            return replace(evidence, probes=evidence.probes + count, failed_probes=evidence.failed_probes + count)
        case "slower":
            later = dict.fromkeys((min(b + count, TIME_BUCKETS - 1) for b in evidence.probe_times), 0)
            for bucket, number in evidence.probe_times.items():
                later[min(bucket + count, TIME_BUCKETS - 1)] += number
            return replace(evidence, probe_times=later)
        case "exits" | "looping" | "out_of_memory" as name:
            return replace(evidence, **{name: getattr(evidence, name) + count})
        case name:
            found = evidence.endpoints[name]
            kind = draw(st.sampled_from([None, *ConnectionFailure]))
            if kind is None:
                worse = replace(found, open=found.open + count)
            else:
                failures = {**found.failures, kind: found.failures.get(kind, 0) + count}
                tried = found.attempts + (0 if kind is RESET else count)
                worse = replace(found, attempts=tried, failures=failures)
            return replace(evidence, endpoints={**evidence.endpoints, name: worse})


@given(st.data(), EVIDENCE, EVIDENCE, LIMITS_OF, CHECKS)
def test_worse_evidence_never_makes_a_better_verdict(
    data: st.DataObject, new: ReleaseEvidence, old: ReleaseEvidence, limits: JudgeLimits, checks: list[CheckEvidence]
) -> None:
    worse = data.draw(worsened(new))
    before, after = judge(new, old, limits, checks), judge(worse, old, limits, checks)
    assert RANKS[after.outcome] >= RANKS[before.outcome], (before, after)


@given(EVIDENCE, LIMITS_OF)
def test_what_both_do_alike_is_never_bad(evidence: ReleaseEvidence, limits: JudgeLimits) -> None:
    assert judge(evidence, evidence, limits).outcome is not BAD


@given(st.floats(0, 600), EVIDENCE, LIMITS_OF)
def test_without_evidence_nothing_is_good(seconds: float, old: ReleaseEvidence, limits: JudgeLimits) -> None:
    verdict = judge(ReleaseEvidence(seconds), old, limits, now=3.0)
    assert verdict.outcome is UNKNOWN
    assert verdict.undecided_since == 3.0
    ran = judge(ReleaseEvidence(seconds, 3, uncounted=frozenset(ConnectionFailure)), old, limits)
    assert ran.outcome is UNKNOWN


@given(EVIDENCE, EVIDENCE, LIMITS_OF, CHECKS)
def test_a_verdict_has_reasons(
    new: ReleaseEvidence, old: ReleaseEvidence, limits: JudgeLimits, checks: list[CheckEvidence]
) -> None:
    verdict = judge(new, old, limits, checks)
    assert verdict.reasons
    assert (verdict.undecided_since is None) == (verdict.outcome in (GOOD, BAD))
