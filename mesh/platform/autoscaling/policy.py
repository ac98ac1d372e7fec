"""Decides how many instances a service gets: one function of labels, samples, state and clock. Pure.

Its rules:

- Three samples in a row within a minute have to agree, all of them since the number changed last. For a target two are
  enough to add, or one far over it; and to remove it must have wanted fewer for as long as the cooldown.
- Instances are added without a cooldown. They are removed when the cooldown after the last addition is over.
- Instances that start, or of which nothing was heard, count as idle for adding, so that the load of a start adds no
  further ones. For removing, one that starts counts as full, and one of which nothing was heard forbids it.
- Instances are not removed if the rest would be over the maximum again.
- Of several measures the one that wants more counts.
- Nothing changes during a rollout, after a change by a person for the time of a cooldown, and while an instance has no
  place. Nothing is removed during a drain, and after the clock was set for the time of a cooldown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mesh.model.auto_scaling import AutoScaling
from mesh.platform.autoscaling.measures import SAMPLES, MeasureWish, excess, measure_rules, wish_of
from mesh.platform.autoscaling.model import (
    ScalingClock,
    ScalingDecision,
    ScalingMeasure,
    ScalingReason,
    ScalingState,
    ScalingSubject,
    ServiceSample,
)
from mesh.platform.autoscaling.schedule import bounds_at

WINDOW = 60.0
"""Seconds: older samples do not count."""
_CLOCK_JUMP = 30.0
"""Seconds by which the wall clock may differ from the monotonic one between two decisions."""


@dataclass(frozen=True, slots=True)
class _ScalingVerdict:
    """How many instances there shall be, and why."""

    wanted: int
    reason: ScalingReason
    why: str


@dataclass(frozen=True, slots=True)
class _Moment:
    """What one decision is made from."""

    policy: AutoScaling
    subject: ScalingSubject
    recent: Sequence[ServiceSample]
    """The last samples that count, three at most."""
    state: ScalingState
    clock: ScalingClock


def decide(
    policy: AutoScaling,
    subject: ScalingSubject,
    samples: Sequence[ServiceSample],
    state: ScalingState,
    clock: ScalingClock,
) -> tuple[ScalingDecision, ScalingState]:
    """Return what to do with a service now, and the state for the next decision.

    `samples` are in the order of their time. Whoever cannot carry a change out keeps the state of before, not the
    one that is returned: then the next decision is made as if this one had not been.
    """
    state = _observe(policy, subject, state, clock)
    recent = [each for each in samples if max(clock.now - WINDOW, state.changed_at) < each.at <= clock.now][-SAMPLES:]
    bounds = bounds_at(policy, clock.wall)
    rules = tuple(measure_rules(policy))
    wishes = {rule.measure: wish_of(rule, policy, subject, recent) for rule in rules}
    if policy.target_cpu is not None:
        state = _with_low_time(state, subject, wishes[ScalingMeasure.CPU].wanted, recent)
    verdict = _wanted(policy, subject, bounds, wishes, state)
    moment = _Moment(policy, subject, recent, state, clock)
    held = _held(moment, verdict)
    if held is None and verdict.wanted < subject.instances:
        held = _held_removal(moment, verdict)
    final = verdict if held is None else held
    decision = ScalingDecision(
        subject.service,
        subject.instances,
        final.wanted,
        final.reason,
        final.why,
        bounds,
        {measure: wish.value for measure, wish in wishes.items() if wish.value is not None},
    )
    return decision, _after(decision, state, clock)


def _observe(policy: AutoScaling, subject: ScalingSubject, state: ScalingState, clock: ScalingClock) -> ScalingState:
    """Return the state with what others did since the last decision: a person to the service, or to the clock."""
    offset = clock.wall - clock.now
    if state.instances is None:
        # Another daemon may have added instances a moment ago.
        return replace(
            state, instances=subject.instances, added_at=clock.now, changed_at=clock.now - WINDOW, clock_offset=offset
        )
    if abs(offset - state.clock_offset) > _CLOCK_JUMP:
        state = replace(state, clock_set_at=clock.now)
    state = replace(state, clock_offset=offset)
    if state.instances == subject.instances:
        return state
    return replace(
        state,
        instances=subject.instances,
        changed_at=clock.now,
        set_aside_until=clock.now + policy.cooldown,
        low_since=None,
    )


def _with_low_time(
    state: ScalingState, subject: ScalingSubject, wanted: int, recent: Sequence[ServiceSample]
) -> ScalingState:
    """Return the state with the time for which a target has wanted fewer instances, and the most that it wanted."""
    if wanted >= subject.instances:
        return replace(state, low_since=None)
    if state.low_since is None:
        return replace(state, low_since=recent[-2].at, low_most=wanted)
    return replace(state, low_most=max(state.low_most, wanted))


def _wanted(
    policy: AutoScaling,
    subject: ScalingSubject,
    bounds: tuple[int, int],
    wishes: dict[ScalingMeasure, MeasureWish],
    state: ScalingState,
) -> _ScalingVerdict:
    """Return how many instances load, schedule and bounds want."""
    now, (low, high) = subject.instances, bounds
    if not low <= now <= high:
        name, bound = ("min_instances", low) if now < low else ("max_instances", high)
        return _ScalingVerdict(bound, ScalingReason.BOUNDS, f"{name} is {bound}")
    if not wishes:
        if now == low:
            return _ScalingVerdict(now, ScalingReason.IN_RANGE, f"the schedule says {low}")
        return _ScalingVerdict(low, ScalingReason.SCHEDULE, f"the schedule says {low}")
    largest = _largest(policy, wishes)
    wanted, why = largest.wanted, largest.why
    if state.low_since is not None and wanted < now and policy.target_cpu is not None:
        wanted = min(now, max(wanted, state.low_most))
    if wanted > high:
        why += f"; max_instances is {high}"
    elif wanted < low:
        why += f"; min_instances is {low}"
    return _ScalingVerdict(min(max(wanted, low), high), largest.reason, why)


def _largest(policy: AutoScaling, wishes: dict[ScalingMeasure, MeasureWish]) -> MeasureWish:
    """Return the wish for the most instances.

    A measure that only adds has no say in whether instances are removed, but for the average that they would leave.
    """
    removes = {rule.measure for rule in measure_rules(policy) if rule.minimum is not None or rule.target is not None}
    removing = [wish for measure, wish in wishes.items() if measure in removes]
    adding = [wish for wish in wishes.values() if wish not in removing]
    largest = max(removing or adding, key=lambda wish: wish.wanted)
    more = max(adding, key=lambda wish: wish.wanted, default=largest)
    return more if more.wanted > largest.wanted and more.reason is ScalingReason.LOAD else largest


def _held(moment: _Moment, verdict: _ScalingVerdict) -> _ScalingVerdict | None:
    """Return why nothing changes at all; None if it may."""
    subject, now = moment.subject, moment.subject.instances
    if subject.is_rolling_out:
        return _ScalingVerdict(now, ScalingReason.ROLLOUT, "a rollout has not ended")
    left = moment.state.set_aside_until - moment.clock.now
    if left > 0:
        why = f"{now} was set by a person or a deploy; set aside for another {left:.0f} s"
        return _ScalingVerdict(now, ScalingReason.SET_ASIDE, why)
    if subject.pending and verdict.wanted != now:
        return _ScalingVerdict(now, ScalingReason.PENDING, f"a task has no place ({subject.pending}); {verdict.why}")
    return None


def _held_removal(moment: _Moment, verdict: _ScalingVerdict) -> _ScalingVerdict | None:
    """Return why nothing is removed; None if something is."""
    subject, now = moment.subject, moment.subject.instances
    missing = [now - len(sample.instances) for sample in moment.recent if len(sample.instances) < now]
    if missing or len(moment.recent) < SAMPLES:
        count = max(missing, default=now)
        return _ScalingVerdict(now, ScalingReason.MISSING, f"nothing is heard of {count} of {now} tasks; {verdict.why}")
    if subject.is_draining:
        return _ScalingVerdict(now, ScalingReason.DRAIN, f"a drain has not ended; {verdict.why}")
    waits = _waits(moment, verdict)
    if waits is not None:
        return _ScalingVerdict(now, waits[0], f"{waits[1]}; {verdict.why}")
    if verdict.reason is ScalingReason.LOAD:
        for rule in measure_rules(moment.policy):
            if too_much := excess(rule, subject, moment.recent, verdict.wanted):
                return _ScalingVerdict(now, ScalingReason.WOULD_EXCEED, f"{too_much}; {verdict.why}")
    return None


def _waits(moment: _Moment, verdict: _ScalingVerdict) -> tuple[ScalingReason, str] | None:
    """Return what a removal waits for; None if for nothing."""
    state, since = moment.state, moment.clock.now - moment.policy.cooldown
    if (left := state.added_at - since) > 0:
        return ScalingReason.COOLDOWN, f"cooldown for another {left:.0f} s"
    if (left := state.clock_set_at - since) > 0:
        return ScalingReason.CLOCK, f"the clock was set; nothing is removed for another {left:.0f} s"
    is_by_load = verdict.reason is ScalingReason.LOAD
    if is_by_load and state.low_since is not None and (left := state.low_since - since) > 0:
        return ScalingReason.COOLDOWN, f"the load is not low for long enough, another {left:.0f} s"
    return None


def _after(decision: ScalingDecision, state: ScalingState, clock: ScalingClock) -> ScalingState:
    """Return the state after a decision that is carried out."""
    if decision.wanted == decision.before:
        return state
    added = clock.now if decision.wanted > decision.before else state.added_at
    return replace(state, instances=decision.wanted, changed_at=clock.now, added_at=added, low_since=None)
