"""The health state machine of one endpoint. Pure: (state, verdict, time) -> (state, events).

A single verdict may be noise, such as a lost packet or a garbage collection pause. Traffic follows runs of verdicts:

1. starting -> healthy at the first success. Until then the endpoint gets no traffic, so waiting for a second success
   would only delay a working endpoint;
2. starting -> unhealthy at the first failure after the initial delay and the startup time;
3. healthy -> unhealthy after `unhealthy_threshold` failures in a row, which is one fall;
4. unhealthy -> healthy after `healthy_threshold` successes in a row. From the third fall within `FLAP_WINDOW_INTERVALS`
   intervals on, each further fall doubles the number of successes needed, up to `MAX_THRESHOLD_FACTOR` times: an
   endpoint that flaps would break some connections at every fall;
5. an endpoint in maintenance is not judged. After maintenance it starts again and must prove itself.

A drain changes none of this: a draining endpoint is still probed, so that its health is known when it comes back, and
the planner decides whether it gets connections. Both thresholds belong to the probe and may change at any time; the
current run continues. Times are those of the caller's clock, in seconds, which never goes back.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from typing_extensions import override

from mesh.model.probe import Probe
from mesh.model.service import Health

FLAP_WINDOW_INTERVALS = 60
"""Intervals for which a fall is remembered: five minutes at the default interval of five seconds."""
FREE_FALLS = 2
"""Falls within that time that have no consequence: a failure, and a restart."""
MAX_THRESHOLD_FACTOR = 8
"""Upper limit of the factor on `healthy_threshold`."""
_KEPT = FREE_FALLS + MAX_THRESHOLD_FACTOR.bit_length() - 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check."""

    ok: bool
    reason: str
    """The cause in a few words: `status 200`, `refused`, `no answer in 2 s`."""
    duration: float
    """Seconds from the start of the check to its end."""
    at: float = 0.0
    """Time of the verdict by the caller's clock; 0 until `observe_verdict` or the history sets it."""


@dataclass(frozen=True, slots=True)
class HealthState:
    """The health of one endpoint between two checks."""

    health: Health = Health.STARTING
    run: int = 0
    """The number of verdicts in a row, up to the last one, that contradict `health`."""
    begun: float = 0.0
    """When the endpoint appeared, or when its maintenance ended."""
    falls: tuple[float, ...] = ()
    """Times of the last few falls."""
    aside: bool = False
    """Whether the endpoint is in maintenance."""


@dataclass(frozen=True, slots=True)
class HealthTransition:
    """A change of health, and the run of verdicts that caused it."""

    before: Health
    after: Health
    verdict: Verdict
    """The last verdict of the run."""
    run: int
    threshold: int

    @override
    def __str__(self) -> str:
        counted = f"{self.run} of {self.threshold}"
        if (self.before, self.after) == (Health.STARTING, Health.UNHEALTHY):
            counted = "its startup time is over"
        return f"{self.after}: {self.verdict.reason} ({counted})"


@dataclass(frozen=True, slots=True)
class FlapHold:
    """An endpoint reached its normal threshold of successes, but is held back because it has failed too often."""

    falls: int
    """Falls within the last `seconds`."""
    seconds: float
    """Length of the window in which the falls are counted."""
    threshold: int
    """Successes in a row that it needs now."""

    @override
    def __str__(self) -> str:
        return f"held back: it failed {self.falls} times in {self.seconds:g} s and must answer {self.threshold} times"


HealthEvent: TypeAlias = HealthTransition | FlapHold


def observe_verdict(
    state: HealthState, verdict: Verdict, probe: Probe, now: float
) -> tuple[HealthState, tuple[HealthEvent, ...]]:
    """Return the state after one more verdict, and the events that it causes."""
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
    # The run reached the normal threshold but not the raised one. `==`, not `>=`: the event is reported once per run.
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
    """Return the number of verdicts in a row that it takes to change the health."""
    match state.health:
        case Health.STARTING:
            return 1
        case Health.HEALTHY:
            return probe.unhealthy_threshold
        case Health.UNHEALTHY:
            surplus = max(0, len(_recent(state, probe, now)) - FREE_FALLS)
            return int(probe.healthy_threshold * min(MAX_THRESHOLD_FACTOR, 2**surplus))


def is_held_back(state: HealthState, probe: Probe) -> bool:
    """Return whether the endpoint would be healthy if it had not failed too often."""
    return state.health is Health.UNHEALTHY and not state.aside and state.run >= probe.healthy_threshold


def suspend_health(state: HealthState) -> HealthState:
    """Return the state in maintenance: no verdict counts until `resume_health`."""
    return replace(state, aside=True)


def resume_health(now: float) -> HealthState:
    """Return the state after maintenance: the endpoint starts again, and its falls are forgotten."""
    return HealthState(begun=now)


def _recent(state: HealthState, probe: Probe, now: float) -> tuple[float, ...]:
    return tuple(fall for fall in state.falls if now - fall <= FLAP_WINDOW_INTERVALS * probe.interval)
