"""What verdicts mean: the state machine of one endpoint, pure: (state, verdict, time) -> (state, events).

A single verdict is noise: a lost packet, a pause of the garbage collector. Traffic follows runs of verdicts:

1. starting -> healthy at the first success. Until then the endpoint gets nothing, so that waiting for a second success
   would only keep traffic from something that works;
2. starting -> unhealthy at the first failure after the initial delay and the start-up time are over;
3. healthy -> unhealthy after `unhealthy_threshold` failures in a row: a fall;
4. unhealthy -> healthy after `healthy_threshold` successes in a row. From the third fall within `FLAP_WINDOW_INTERVALS`
   intervals on, each further one doubles how many it takes, up to `MAX_THRESHOLD_FACTOR` times as many: what comes and
   goes would take a part of the connections down with it each time;
5. what is set aside by hand is not judged at all; brought back, it starts anew and has to prove itself.

A drain changes none of this: what drains is asked on, so that its health is known when it comes back, and whether it
gets connections is for the plan. Both counts belong to the probe and may change at any time; the run that has been
counted so far stays. Times are those of the caller's clock, in seconds, which never goes back.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from typing_extensions import override

from mesh.model.probe import Probe
from mesh.model.service import Health

FLAP_WINDOW_INTERVALS = 60
"""Intervals for which a fall is remembered: five minutes at the default of five seconds."""
FREE_FALLS = 2
"""Falls in that time that have no consequence: a failure, and a restart."""
MAX_THRESHOLD_FACTOR = 8
"""How many times as many successes it may take at most."""
_KEPT = FREE_FALLS + MAX_THRESHOLD_FACTOR.bit_length() - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check."""

    ok: bool
    reason: str
    """Why, in a few words: `status 200`, `refused`, `no answer in 2 s`."""
    duration: float
    """Seconds from the start of the check to its end."""
    at: float = 0.0
    """When it was observed, by the caller's clock; `observe_verdict` fills it in."""


@dataclass(frozen=True, slots=True)
class HealthState:
    """One endpoint between two checks."""

    health: Health = Health.STARTING
    run: int = 0
    """How many verdicts in a row, up to the last one, have spoken against `health`."""
    begun: float = 0.0
    """When it appeared, or was brought back."""
    falls: tuple[float, ...] = ()
    """When it fell, the last few times."""
    aside: bool = False
    """Somebody works on it."""


@dataclass(frozen=True, slots=True)
class HealthTransition:
    """A change of health, and the run of verdicts that brought it about."""

    before: Health
    after: Health
    verdict: Verdict
    """The last one of the run."""
    run: int
    threshold: int

    @override
    def __str__(self) -> str:
        counted = f"{self.run} of {self.threshold}"
        if (self.before, self.after) == (Health.STARTING, Health.UNHEALTHY):
            counted = "its time to start is over"
        return f"{self.after}: {self.verdict.reason} ({counted})"


@dataclass(frozen=True, slots=True)
class FlapHold:
    """It answers as often as its threshold asks, and has fallen too often to be believed yet."""

    falls: int
    seconds: float
    """In which it fell so often."""
    threshold: int
    """The successes in a row that it takes now."""

    @override
    def __str__(self) -> str:
        return f"held back: it fell {self.falls} times in {self.seconds:g} s, and has to answer {self.threshold} times"


HealthEvent: TypeAlias = HealthTransition | FlapHold


def observe_verdict(
    state: HealthState, verdict: Verdict, probe: Probe, now: float
) -> tuple[HealthState, tuple[HealthEvent, ...]]:
    """The state after one more verdict, and what has come of it."""
    up = state.health is Health.HEALTHY
    if state.aside or (verdict.ok and up and not state.run):
        return state, ()
    if state.health is Health.STARTING and not verdict.ok:
        return _not_started(state, verdict, probe, now)
    run = state.run + 1 if verdict.ok != up else 0
    threshold = verdicts_needed(state, probe, now)
    if run >= threshold:
        after = Health.UNHEALTHY if up else Health.HEALTHY
        falls = (*state.falls, now)[-_KEPT:] if up else state.falls
        change = HealthTransition(state.health, after, replace(verdict, at=now), run, threshold)
        return replace(state, health=after, run=0, falls=falls), (change,)
    if not up and run == probe.healthy_threshold:
        held = FlapHold(len(_recent(state, probe, now)), FLAP_WINDOW_INTERVALS * probe.interval, threshold)
        return replace(state, run=run), (held,)
    return replace(state, run=run), ()


def _not_started(
    state: HealthState, verdict: Verdict, probe: Probe, now: float
) -> tuple[HealthState, tuple[HealthEvent, ...]]:
    if now - state.begun < probe.initial_delay + probe.startup:
        return state, ()
    change = HealthTransition(state.health, Health.UNHEALTHY, replace(verdict, at=now), 1, 1)
    return replace(state, health=Health.UNHEALTHY, run=0), (change,)


def verdicts_needed(state: HealthState, probe: Probe, now: float) -> int:
    """How many verdicts in a row it takes to change the health."""
    match state.health:
        case Health.STARTING:
            return 1
        case Health.HEALTHY:
            return probe.unhealthy_threshold
        case Health.UNHEALTHY:
            surplus = max(0, len(_recent(state, probe, now)) - FREE_FALLS)
            return int(probe.healthy_threshold * min(MAX_THRESHOLD_FACTOR, 2**surplus))


def is_held_back(state: HealthState, probe: Probe) -> bool:
    """Whether nothing but its falls keeps it from being healthy."""
    return state.health is Health.UNHEALTHY and not state.aside and state.run >= probe.healthy_threshold


def suspend_health(state: HealthState) -> HealthState:
    """Somebody works on it: no verdict counts until `resume_health`."""
    return replace(state, aside=True)


def resume_health(now: float) -> HealthState:
    """The work is done: it starts anew, and its falls are forgotten."""
    return HealthState(begun=now)


def _recent(state: HealthState, probe: Probe, now: float) -> tuple[float, ...]:
    return tuple(fall for fall in state.falls if now - fall <= FLAP_WINDOW_INTERVALS * probe.interval)
