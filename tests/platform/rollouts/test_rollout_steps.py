"""The steps of a rollout: what follows from what is seen, from verdicts, and from what operators ask for."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view, encode_rollout
from mesh.model.release_rollout import ReleaseRollout, RolloutPhase, guarded_shares, rollout_given
from mesh.model.release_rules import DEFAULT_STEPS
from mesh.model.release_shares import WHOLE, ReleaseShares
from mesh.model.service import ReleaseRules, ReleaseStep, ReleaseStrategy
from mesh.platform.rollouts.judge import JudgeOutcome, JudgeVerdict
from mesh.platform.rollouts.rollout_sight import rollout_problem, turn
from mesh.platform.rollouts.rollout_steps import (
    CONFIRM_SECONDS,
    GONE_SECONDS,
    MAX_PASSED,
    RolloutSight,
    RolloutWish,
    RolloutWishError,
    SeenRelease,
    advance,
    ask,
)
from mesh.platform.rollouts.rollout_writes import rollout_shares

OWNER = "shop/web"
START, WARM, STEP, HOLD, CONFIRM, DONE, ABORTED = RolloutPhase
STEPS = (ReleaseStep(100, 300), ReleaseStep(1000, 600), ReleaseStep(5000, is_held=True))
RULES = ReleaseRules(ReleaseStrategy.PROGRESSIVE, STEPS)
BY_NAME = {"v1": RULES, "v2": RULES}
GOOD = JudgeVerdict(JudgeOutcome.GOOD, ("2 instances for 20 s, 0 ends",))
BAD = JudgeVerdict(JudgeOutcome.BAD, ("1 instance in a restart loop",))
UNKNOWN = JudgeVerdict(JudgeOutcome.UNKNOWN, ("3 connections of 20",))
BASE = ReleaseRollout(OWNER, "v1")
BEGUN = ReleaseRollout(OWNER, "v2", "v1", START)


def seen(verdict: JudgeVerdict = GOOD, rules: ReleaseRules | None = RULES, **serving: int) -> RolloutSight:
    """Two instances of each release, of which so many serve."""
    releases = {name: SeenRelease(2, count, rules) for name, count in (serving or {"v1": 2, "v2": 2}).items()}
    return RolloutSight(OWNER, releases, verdict)


def on(rollout: ReleaseRollout, sight: RolloutSight, passed: float = 1.0) -> ReleaseRollout:
    after = advance(rollout, sight, passed)
    assert after is not None
    return after


def wait(rollout: ReleaseRollout, sight: RolloutSight, seconds: float) -> Iterator[ReleaseRollout]:
    for _ in range(int(seconds)):
        rollout = on(rollout, sight)
        yield rollout


def test_a_progressive_rollout_to_its_end() -> None:
    rollout = on(BASE, seen())
    assert (rollout.phase, rollout.new, rollout.old) == (START, "v2", "v1")
    rollout = on(on(rollout, seen(v1=2, v2=1)), seen(v1=2, v2=1))
    assert rollout.phase is WARM
    assert rollout.reason == "1 of 2 instances serve"
    rollout = on(rollout, seen())
    assert (rollout.phase, rollout.points) == (STEP, 100)
    *_, early = wait(rollout, seen(), 299)
    assert early.points == 100
    rollout = on(early, seen())
    assert rollout.points == 1000
    *_, rollout = wait(rollout, seen(), 600)
    assert (rollout.phase, rollout.points) == (STEP, 5000)
    *_, rollout = wait(rollout, seen(), 100_000 / 10)
    assert (rollout.phase, rollout.points) == (HOLD, 5000), "a hold ends by an operator alone"
    rollout = ask(rollout, RolloutWish.PROMOTE, "anna", BY_NAME)
    assert (rollout.phase, rollout_given(rollout)) == (CONFIRM, {"v2": WHOLE})
    assert rollout.reason == "promote by anna"
    *_, rollout = wait(rollout, seen(), CONFIRM_SECONDS)
    assert rollout.phase is DONE
    assert rollout.current == "v2"
    assert on(rollout, seen()) == rollout
    assert on(rollout, seen(v2=2)).old is None, "the old instances were stopped"


def test_a_release_whose_instances_have_ended_is_bad_at_once_unless_nothing_else_serves() -> None:
    begun = replace(BEGUN, phase=STEP, points=100)
    assert on(begun, seen(BAD, v1=2)).phase is ABORTED
    assert on(begun, seen(BAD, v2=2)).phase is STEP, "there is nothing to go back to"


@pytest.mark.parametrize("phase", [START, WARM, STEP, HOLD, CONFIRM])
@pytest.mark.parametrize("is_paused", [False, True])
def test_a_bad_verdict_takes_everything_back_in_one_pass(phase: RolloutPhase, is_paused: bool) -> None:
    rollout = on(replace(BEGUN, phase=phase, points=5000, is_paused=is_paused), seen(BAD))
    assert rollout.phase is ABORTED
    assert rollout_given(rollout) == {"v2": 0}
    assert rollout.reason == "1 instance in a restart loop"
    assert on(rollout, seen()) == rollout, "it does not begin again"
    assert on(rollout, seen(v1=2)) == replace(BASE, reason="v2 was aborted, and is gone")
    assert on(rollout, seen(v1=2, v2=2, v3=2)).new == "v3", "the next one begins"


def test_what_is_neither_good_nor_bad_is_aborted_at_the_deadline() -> None:
    rollout = replace(BEGUN, phase=STEP, points=100, undecided=3598.0)
    rollout = on(rollout, seen(UNKNOWN))
    assert rollout.phase is STEP
    rollout = on(rollout, seen(UNKNOWN))
    assert rollout.phase is ABORTED
    assert rollout.reason == "it was neither good nor bad for 3600 s: 3 connections of 20"
    assert on(replace(BEGUN, phase=WARM, undecided=3600.0), seen(v1=2, v2=0)).phase is ABORTED
    assert on(replace(BEGUN, phase=STEP, undecided=100.0), seen(GOOD)).undecided == 0


def test_pauses_take_no_time() -> None:
    rollout = ask(replace(BEGUN, phase=STEP, points=100, elapsed=299.0), RolloutWish.PAUSE, "anna", BY_NAME)
    *_, rollout = wait(rollout, seen(), 1000)
    assert (rollout.points, rollout.elapsed) == (100, 299.0)
    rollout = ask(rollout, RolloutWish.RESUME, "anna", BY_NAME)
    assert on(rollout, seen()).points == 1000


@pytest.mark.parametrize("jump", [1e9, -1e9, 3600.0])
def test_a_clock_that_jumps_skips_no_step(jump: float) -> None:
    rollout = on(replace(BEGUN, phase=STEP, points=100), seen(), jump)
    assert rollout.points == 100
    assert 0 <= rollout.elapsed <= MAX_PASSED


def test_a_release_that_is_gone_ends_the_rollout_after_a_while() -> None:
    begun = replace(BEGUN, phase=STEP, points=100, undecided=3000.0)
    [*_, early] = wait(begun, seen(v1=2), GONE_SECONDS - 1)
    assert early.phase is STEP
    assert on(early, seen()).absent == 0
    assert on(early, seen(v1=2)).phase is ABORTED
    [*_, early] = wait(begun, seen(v2=2), GONE_SECONDS - 1)
    assert (early.phase, early.points) == (STEP, 100), "an old release that is away for a moment promotes nobody"
    assert on(early, seen(v2=2)).phase is DONE
    assert on(begun, RolloutSight(OWNER)) == begun, "a view without endpoints says nothing"


def test_undo_is_a_rollout_of_the_former_release() -> None:
    done = replace(BEGUN, phase=DONE)
    undone = ask(done, RolloutWish.UNDO, "anna", BY_NAME)
    assert (undone.phase, undone.new, undone.old) == (START, "v1", "v2")
    assert ask(replace(BEGUN, phase=STEP), RolloutWish.UNDO, "anna", BY_NAME).phase is ABORTED


@pytest.mark.parametrize(
    ("rollout", "wish"),
    [
        (BASE, RolloutWish.PROMOTE),
        (BASE, RolloutWish.UNDO),
        (BASE, RolloutWish.ABORT),
        (replace(BEGUN, phase=ABORTED), RolloutWish.RESUME),
        (replace(BEGUN, phase=ABORTED), RolloutWish.UNDO),
        (replace(BEGUN, phase=WARM), RolloutWish.PROMOTE),
        (replace(BEGUN, phase=STEP), RolloutWish.RESUME),
    ],
)
def test_wishes_that_make_no_sense_are_refused(rollout: ReleaseRollout, wish: RolloutWish) -> None:
    with pytest.raises(RolloutWishError, match="; "):
        ask(rollout, wish, "anna", BY_NAME)


def test_releases_without_a_strategy_have_no_rollout() -> None:
    assert advance(None, seen(rules=None, v1=2)) is None
    assert advance(None, seen()) is None, "of two at first sight none is the old one"
    assert advance(None, seen(v1=2)) == replace(BASE, reason="it is the only release")
    assert advance(BASE, seen(rules=None)) is None


@pytest.mark.parametrize("strategy", [*ReleaseStrategy])
def test_each_strategy_has_steps_that_end(strategy: ReleaseStrategy) -> None:
    rules = ReleaseRules(strategy, DEFAULT_STEPS[strategy])
    sight, shares, rollout = seen(rules=rules), set(), BEGUN
    for _ in range(3000):
        rollout = on(rollout, sight)
        if rollout.phase is HOLD:
            rollout = ask(rollout, RolloutWish.PROMOTE, "anna", {"v2": rules})
        shares.add(rollout.points)
    assert rollout.phase is DONE
    assert shares == {0, WHOLE, *(step.points for step in rules.steps)}


_LOOKS = st.lists(
    st.tuples(
        st.sampled_from([GOOD, BAD, UNKNOWN]),
        st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 2)),
        st.floats(-1e6, 1e6),
        st.sampled_from([None, None, None, *RolloutWish]),
    ),
    max_size=60,
)


@given(_LOOKS)
def test_no_release_gets_more_than_its_step(looks: list[tuple[JudgeVerdict, Mapping[str, int], float, object]]) -> None:
    rollout: ReleaseRollout | None = BASE
    permitted = {0, WHOLE, *(step.points for step in STEPS)}
    for verdict, serving, passed, wish in looks:
        before = rollout
        releases = {name: SeenRelease(2, count, RULES) for name, count in serving.items()}
        rollout = advance(rollout, RolloutSight(OWNER, releases, verdict), passed)
        if rollout is None:
            return
        if before is not None and before.is_running:
            assert rollout.step <= before.step + 1
            if before.phase is HOLD and "v1" in serving:
                assert rollout.phase in (HOLD, ABORTED)
            if verdict is BAD and rollout.new in serving:
                assert rollout_given(rollout) == {rollout.new: 0}
        if isinstance(wish, RolloutWish):
            with suppress(RolloutWishError):
                rollout = ask(rollout, wish, "anna", {"v1": RULES, "v2": RULES, "v3": RULES})
        assert rollout.points in permitted
        if rollout.phase is STEP:
            assert rollout.points == STEPS[rollout.step].points
        # Another daemon reads the same from the store, and goes on.
        view, problems = build_view(encode_rollout(rollout))
        assert not problems
        rollout = view.rollouts[OWNER]
        assert sum(rollout_shares(rollout, serving).given.values()) <= WHOLE


def test_a_release_that_the_rollout_does_not_know_yet_gets_nothing() -> None:
    assert guarded_shares(None, None, {"v1", "v2"}) is None
    assert guarded_shares(BASE, None, {"v1"}) is None
    held = guarded_shares(BASE, None, {"v1", "v2"})
    assert held is not None
    assert held.given == {"v2": 0}
    assert held.are_in_force({"v1", "v2"})
    shares = ReleaseShares(OWNER, {"v2": 100}, ("v1", "v2"))
    step = replace(BEGUN, phase=STEP, points=100)
    assert guarded_shares(step, shares, {"v1", "v2"}) is shares
    third = guarded_shares(step, shares, {"v1", "v2", "v3"})
    assert third is not None
    assert third.given == {"v2": 100, "v3": 0}
    assert guarded_shares(BASE, None, {"v2"}) is None, "without the old one there is nobody else"


def test_the_former_release_stays_out_of_the_next_rollout() -> None:
    rollout = ReleaseRollout(OWNER, "v3", "v2", STEP, points=100, steps=3)
    assert rollout_shares(rollout, {"v1", "v2", "v3"}).given == {"v1": 0, "v3": 100}


def test_whose_turn_it_is() -> None:
    workers = ["w1", "w2", "w3"]
    assert [turn(name, workers, "", 0.0) for name in workers] == [True, False, False]
    assert [turn(name, workers, "w3", 0.0) for name in workers] == [False, False, True]
    assert [turn(name, workers, "w3", 31.0) for name in workers] == [True, False, True], "w3 does nothing any more"
    assert turn("w9", [], "", 0.0), "of a view without workers, this one is there"


def test_what_is_reported() -> None:
    assert rollout_problem(BASE) is None
    aborted = rollout_problem(replace(BEGUN, phase=ABORTED, reason="1 instance in a restart loop"))
    assert aborted is not None
    assert str(aborted.code) == "VM943"
    stuck = replace(BEGUN, phase=STEP, undecided=300.0)
    problem = rollout_problem(stuck)
    assert problem is not None
    assert str(problem.code) == "VM944"
    assert rollout_problem(replace(stuck, is_paused=True)) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"points": 10_001},
        {"step": -1},
        {"steps": 21},
        {"elapsed": -1.0},
        {"old": "v2"},
        {"reason": "x" * 201},
        {"phase": "begin"},
        {"old": None},
        {"owner": "shop/other"},
    ],
)
def test_records_that_are_not_valid_are_reported_and_left_out(broken: Mapping[str, object]) -> None:

    record = msgspec.to_builtins(replace(BEGUN, phase=STEP)) | dict(broken)
    view, problems = build_view({record_key("claims", "rollouts", OWNER): msgspec.json.encode(record)})
    assert not view.rollouts
    assert [str(problem.code) for problem in problems] == ["VM407"]
