"""Takes the next step of a rollout, by what is seen of its releases and by what the judge says. Pure.

There is no clock in it: `passed` is how long the daemon that acts has waited since it looked last, and counts for
`MAX_PASSED` at most. So a clock that jumps, a daemon that was suspended and another one that takes over never shorten a
step, and a hold ends by an operator alone. What the next daemon needs to go on is in the record.

Only one thing ever gives the new release more: the step that follows the present one. A verdict that it is bad takes
everything back at once, from each phase, paused or not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mesh.model.past_event import bounded_text
from mesh.model.release_rollout import MAX_ROLLOUT_TEXT, ReleaseRollout, RolloutPhase
from mesh.model.release_shares import WHOLE
from mesh.model.service import ReleaseRules, ReleaseStep
from mesh.platform.rollouts.judge import JudgeOutcome, JudgeVerdict

MAX_PASSED = 10.0
"""The most seconds that count between two looks."""
CONFIRM_SECONDS = 60.0
"""How long the new release has everything, and is judged, before the rollout is done."""
GONE_SECONDS = 60.0
"""How long no instance of a release need be seen before the rollout ends: a restart of its daemon takes less."""

_NOT_ENOUGH = JudgeVerdict(JudgeOutcome.UNKNOWN, ("nothing is known yet",))


@dataclass(frozen=True, slots=True)
class SeenRelease:
    """The instances of one release."""

    endpoints: int
    serving: int
    """Those that new connections may go to, their weights aside."""
    rules: ReleaseRules | None = None
    """What their labels say; None if they name no strategy by shares."""


@dataclass(frozen=True, slots=True)
class RolloutSight:
    """What is seen of a service."""

    owner: str
    releases: Mapping[str, SeenRelease] = field(default_factory=dict)
    verdict: JudgeVerdict = _NOT_ENOUGH
    """On the new release of a rollout that runs."""


class RolloutWish(StrEnum):
    """What an operator asks of a rollout. The values are the verbs of `vipmesh rollout`."""

    PROMOTE = "promote"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    UNDO = "undo"


class RolloutWishError(ValueError):
    """The rollout cannot do what an operator asks for. The text ends with the remedy."""


def advance(rollout: ReleaseRollout | None, seen: RolloutSight, passed: float = 0.0) -> ReleaseRollout | None:
    """Return how far the rollout of a service is after this look; None if the service has none."""
    if rollout is None:
        return _first(seen)
    if rollout.is_running:
        return _run(rollout, seen, passed)
    return _at_rest(rollout, seen, passed)


def ask(rollout: ReleaseRollout, wish: RolloutWish, by: str, rules: Mapping[str, ReleaseRules]) -> ReleaseRollout:
    """Return the rollout after an operator has asked for this. `rules` are those of each release that has some.

    Raises `RolloutWishError`.
    """
    who = f"{wish.value} by {by}"
    match wish:
        case RolloutWish.UNDO if not rollout.is_running:
            return _undone(rollout, who, rules)
        case RolloutWish.ABORT | RolloutWish.UNDO if rollout.is_running:
            return _aborted(rollout, who)
        case RolloutWish.PAUSE if rollout.is_running:
            return _said(replace(rollout, is_paused=True), who)
        case RolloutWish.RESUME if rollout.is_running and rollout.is_paused:
            return _said(replace(rollout, is_paused=False), who)
        case RolloutWish.PROMOTE if rollout.phase is RolloutPhase.CONFIRM:
            return _done(rollout, who)
        case RolloutWish.PROMOTE if rollout.phase in (RolloutPhase.STEP, RolloutPhase.HOLD) and rollout.new in rules:
            return _next(replace(rollout, is_paused=False), rules[rollout.new].steps, who)
        case RolloutWish.PROMOTE if rollout.is_running:
            raise RolloutWishError(f"{rollout.words}; wait until all its instances serve")
    state = "paused" if wish is RolloutWish.RESUME and rollout.is_running else "running"
    raise RolloutWishError(f"no rollout of {rollout.owner} is {state}: {rollout.words}; see `vipmesh rollout status`")


def by_hand(rollout: ReleaseRollout, by: str) -> ReleaseRollout:
    """Return the rollout after somebody has given other shares: it waits for an operator."""
    return _said(replace(rollout, is_paused=True), f"shares were given by {by or 'somebody'}: resume, or abort")


def _first(seen: RolloutSight) -> ReleaseRollout | None:
    """Return the record of a service whose only release names a strategy by shares. Of two, none is known as the old
    one: they share by weight.
    """
    if len(seen.releases) != 1:
        return None
    [(release, each)] = seen.releases.items()
    return None if each.rules is None else ReleaseRollout(seen.owner, release, reason="it is the only release")


def _absent(rollout: ReleaseRollout, passed: float) -> ReleaseRollout:
    return replace(rollout, absent=rollout.absent + min(max(passed, 0.0), MAX_PASSED))


def _with_time(rollout: ReleaseRollout, passed: float) -> ReleaseRollout:
    counted = 0.0 if rollout.is_paused else min(max(passed, 0.0), MAX_PASSED)
    return replace(rollout, elapsed=rollout.elapsed + counted, undecided=rollout.undecided + counted, absent=0.0)


def _at_rest(rollout: ReleaseRollout, seen: RolloutSight, passed: float) -> ReleaseRollout | None:
    """Begin a rollout with a release that is neither of the last two; forget those that are gone."""
    if not seen.releases:
        return rollout
    current = rollout.current
    others = sorted(seen.releases.keys() - {rollout.new, rollout.old})
    if current not in seen.releases:
        rollout = _absent(rollout, passed)
        return rollout if rollout.absent < GONE_SECONDS else _first(seen)
    rollout = replace(rollout, absent=0.0)
    ruled = [name for name in others if seen.releases[name].rules is not None]
    if len(ruled) < len(others) or seen.releases[current].rules is None:
        return None  # a release without a strategy counts by weight, as all releases do without rollouts
    if ruled:
        return _started(rollout.owner, ruled[0], current, "a new release was started")
    aborted = rollout.phase is RolloutPhase.ABORTED and rollout.new not in seen.releases
    if aborted:
        return ReleaseRollout(rollout.owner, current, reason=f"{rollout.new} was aborted, and is gone")
    if rollout.old is not None and rollout.phase is RolloutPhase.DONE and rollout.old not in seen.releases:
        return ReleaseRollout(rollout.owner, current, reason=f"{rollout.old} is gone")
    return rollout


def _run(rollout: ReleaseRollout, seen: RolloutSight, passed: float) -> ReleaseRollout:
    """Take the step that is due of a rollout that runs."""
    if not seen.releases:
        return rollout  # the view of a daemon that has just begun, or of a store that was lost
    new, old = seen.releases.get(rollout.new), seen.releases.get(rollout.old or "")
    # Also of instances that are gone: their ends are what is bad. Without an old release there is no way back.
    if seen.verdict.outcome is JudgeOutcome.BAD and old is not None:
        return _aborted(rollout, "; ".join(seen.verdict.reasons))
    if new is None or new.rules is None:
        rollout = _absent(rollout, passed)
        gone = rollout.absent >= GONE_SECONDS
        return _aborted(rollout, "no instance of the new release is there any more") if gone else rollout
    if old is None:
        # It goes on only while that may be an accident.
        rollout = _absent(rollout, passed)
        gone = rollout.absent >= GONE_SECONDS
        return _done(rollout, "no instance of the old release is there any more") if gone else rollout
    rollout = _with_time(rollout, passed)
    if rollout.is_paused:
        return rollout
    return _on(rollout, new, new.rules, seen.verdict)


def _on(rollout: ReleaseRollout, new: SeenRelease, rules: ReleaseRules, verdict: JudgeVerdict) -> ReleaseRollout:
    if rollout.phase is RolloutPhase.HOLD:
        return replace(rollout, undecided=0.0)
    if rollout.phase is RolloutPhase.START:
        return _said(replace(rollout, phase=RolloutPhase.WARM), rollout.reason)
    if rollout.phase is RolloutPhase.WARM:
        if new.serving >= new.endpoints > 0:
            return _next(replace(rollout, step=-1), rules.steps, f"all {new.endpoints} instances serve")
        return _unless_late(_said(rollout, f"{new.serving} of {new.endpoints} instances serve"), rules)
    if verdict.outcome is not JudgeOutcome.GOOD or not new.serving:
        reasons = verdict.reasons if new.serving else ("no instance of the new release serves",)
        return _unless_late(_said(rollout, "; ".join(reasons)), rules)
    rollout = _said(replace(rollout, undecided=0.0), "; ".join(verdict.reasons))
    if rollout.phase is RolloutPhase.CONFIRM:
        return _done(rollout, rollout.reason) if rollout.elapsed >= CONFIRM_SECONDS else rollout
    # The labels of a release can differ from one instance to the next, so a step may be gone.
    step = rules.steps[rollout.step] if rollout.step < len(rules.steps) else ReleaseStep(rollout.points)
    if step.is_held:
        return replace(rollout, phase=RolloutPhase.HOLD)
    return _next(rollout, rules.steps, rollout.reason) if rollout.elapsed >= step.seconds else rollout


def _unless_late(rollout: ReleaseRollout, rules: ReleaseRules) -> ReleaseRollout:
    if rollout.undecided < rules.deadline:
        return rollout
    return _aborted(rollout, f"it was neither good nor bad for {rules.deadline} s: {rollout.reason}")


def _started(owner: str, new: str, old: str, reason: str) -> ReleaseRollout:
    return _said(ReleaseRollout(owner, new, old, RolloutPhase.START), reason)


def _next(rollout: ReleaseRollout, steps: tuple[ReleaseStep, ...], reason: str) -> ReleaseRollout:
    """Take the next step; after the last one, the new release gets everything."""
    index = rollout.step + 1
    begun = replace(rollout, step=index, steps=len(steps), elapsed=0.0, undecided=0.0)
    if index < len(steps):
        return _said(replace(begun, phase=RolloutPhase.STEP, points=steps[index].points), reason)
    return _said(replace(begun, step=len(steps), phase=RolloutPhase.CONFIRM, points=WHOLE), reason)


def _aborted(rollout: ReleaseRollout, reason: str) -> ReleaseRollout:
    ended = replace(rollout, phase=RolloutPhase.ABORTED, points=0, undecided=0.0, absent=0.0, is_paused=False)
    return _said(ended, reason)


def _done(rollout: ReleaseRollout, reason: str) -> ReleaseRollout:
    ended = replace(rollout, phase=RolloutPhase.DONE, points=WHOLE, undecided=0.0, absent=0.0, is_paused=False)
    return _said(ended, reason)


def _undone(rollout: ReleaseRollout, reason: str, rules: Mapping[str, ReleaseRules]) -> ReleaseRollout:
    """Begin a rollout of the release before."""
    if rollout.phase is not RolloutPhase.DONE or rollout.old is None or rollout.old not in rules:
        raise RolloutWishError(f"{rollout.owner} has no release to go back to: {rollout.words}; start one")
    return _started(rollout.owner, rollout.old, rollout.new, reason)


def _said(rollout: ReleaseRollout, reason: str) -> ReleaseRollout:
    return replace(rollout, reason=bounded_text(reason, MAX_ROLLOUT_TEXT))
