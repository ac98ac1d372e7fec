"""What verdicts mean: the state machine of one endpoint.

A single verdict is noise: a lost packet, a pause of the garbage collector. Traffic follows runs of verdicts:

* starting -> healthy at the first success. Until then the endpoint gets nothing, however many checks fail, so that
  waiting for a second success would only keep traffic from something that works;
* healthy -> unhealthy after `unhealthy_threshold` failures in a row;
* unhealthy -> healthy after `healthy_threshold` successes in a row.

Both counts belong to the probe and may change at any time; the run that has been counted so far stays.
"""

from dataclasses import dataclass, replace

from mesh.model import Health, Probe

HISTORY = 10
"""How many verdicts of an endpoint are kept."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check."""

    ok: bool
    reason: str
    """Why, in a few words: `status 200`, `refused`, `no answer in 2 s`."""
    duration: float
    """Seconds from the start of the check to its end."""
    at: float = 0.0
    """When it was observed, seconds of the loop's clock; `observe` fills it in."""


@dataclass(frozen=True, slots=True)
class State:
    """One endpoint between two checks."""

    health: Health = Health.STARTING
    run: int = 0
    """How many verdicts in a row, up to the last one, have spoken against `health`."""
    history: tuple[Verdict, ...] = ()
    """The last verdicts, oldest first, at most `HISTORY`."""


PRESUMED_HEALTHY = State(Health.HEALTHY)
"""Where an endpoint begins that was serving before this process came: it loses traffic only by failing."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of health, and the run of verdicts that brought it about."""

    before: Health
    after: Health
    verdict: Verdict
    """The last one of the run."""
    run: int
    threshold: int

    def __str__(self) -> str:
        return f"{self.after}: {self.verdict.reason} ({self.run} of {self.threshold})"


def observe(state: State, verdict: Verdict, probe: Probe, now: float) -> tuple[State, Transition | None]:
    """The state after one more verdict, and the transition if the health has changed. `now`: the loop's clock."""
    seen = replace(verdict, at=now)
    history = (*state.history, seen)[-HISTORY:]
    up = state.health is Health.HEALTHY
    run = state.run + 1 if verdict.ok != up else 0
    threshold = _threshold(state.health, probe)
    if run < threshold:
        return State(state.health, run, history), None
    after = Health.UNHEALTHY if up else Health.HEALTHY
    return State(after, 0, history), Transition(state.health, after, seen, run, threshold)


def _threshold(health: Health, probe: Probe) -> int:
    match health:
        case Health.STARTING:
            return 1
        case Health.HEALTHY:
            return probe.unhealthy_threshold
        case Health.UNHEALTHY:
            return probe.healthy_threshold
