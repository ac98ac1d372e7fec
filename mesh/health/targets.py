"""The state that the prober keeps for each endpoint. There may be ten thousand, so it is small."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.health.checks.batch import PlainCheck
from mesh.health.checks.http import RequestTemplate
from mesh.health.history import CheckHistory
from mesh.health.state_machine import HealthEvent, HealthState, Verdict, is_held_back, observe_verdict
from mesh.health.timer_wheel import SLOT_SECONDS
from mesh.model.probe import Probe
from mesh.model.service import Address, EndpointKey, Health, same_run


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """An endpoint and how to probe it."""

    probe: Probe
    address: Address
    port: int
    begins: Health = Health.STARTING
    """Health to assume for a new target. An endpoint that served before this process started is healthy until it fails.
    """
    aside: bool = False
    """Whether the endpoint is in maintenance: it is not probed."""
    instead_of: str | None = None
    """The worker in whose place the endpoint is probed, or None if it is an own endpoint."""
    run: str | None = None
    """The run of the endpoint, or None if it is not known."""

    @property
    def place(self) -> tuple[Address, int]:
        """Where it is probed."""
        return self.address, self.port

    def is_same_process(self, other: "ProbeTarget") -> bool:
        """Return whether results on one of the targets count for the other."""
        return self.place == other.place and same_run(self.run, other.run)


@dataclass(slots=True, eq=False)
class CheckFlight:
    """One running check. It holds a place of the admission queue until it has landed."""

    slow: bool | None
    """Whether the place is one of the slow ones; None if it holds none: commands have places of their own."""
    work: asyncio.Task[None] | PlainCheck | None = None
    """None until it has begun, and when it has landed."""
    landed: bool = False
    """Whether its place is free again. That happens once, however the check ends."""


@dataclass(slots=True, eq=False)
class TargetState:
    """A target and its state. It is in exactly one of the wheel, the queue and a running check, or in maintenance."""

    # 12 attributes: one row of the prober's table. There are ten thousand, so that it is one object and not several.

    key: EndpointKey
    target: ProbeTarget
    state: HealthState
    due: float = 0.0
    begun: float = float("-inf")
    """Start of its last check."""
    queued: bool = False
    slow: bool = False
    """Whether its last check ran until the timeout."""
    failed: bool = False
    """Whether its last check failed."""
    flight: CheckFlight | None = None
    """The running check, or None. A check that was cancelled runs until it has ended."""
    asked: ProbeTarget | None = None
    """The target as it was when its last check started."""
    request: RequestTemplate | None = None
    """The HTTP request, which endpoints of a service share; None before the first check that needs it."""
    history: CheckHistory = field(default_factory=CheckHistory)

    @property
    def name(self) -> str:
        """The name of the endpoint in log lines."""
        _, id = self.key
        return id if self.target.instead_of is None else f"{id} of {self.target.instead_of}"

    @property
    def interval(self) -> float:
        """Seconds between two checks in the present state."""
        probe = self.target.probe
        return probe.starting_interval if self.state.health is Health.STARTING else probe.interval

    @property
    def asks_the_same(self) -> bool:
        """Whether the probe is still the one with which the last check started."""
        # Identity first: to compare the fields of an equal probe takes longer than to judge its answer.
        return self.asked is self.target or (self.asked is not None and self.asked.probe == self.target.probe)

    def observe(self, verdict: Verdict, now: float) -> tuple[bool, tuple[HealthEvent, ...]]:
        """Take in a verdict. Return whether `standing` has changed, and the events."""
        probe, failed = self.target.probe, not verdict.ok
        self.slow = failed and verdict.duration >= 0.9 * probe.timeout
        self.history.add(verdict, now)
        state, events = observe_verdict(self.state, verdict, probe, now)
        if state is self.state and failed is self.failed:
            return False, events  # as after nearly every check
        stood = self.standing
        self.state, self.failed = state, failed
        return self.standing != stood, events

    @property
    def standing(self) -> tuple[Health, bool, bool]:
        """The published state: its health, whether it is held back, whether its last check failed."""
        return self.state.health, is_held_back(self.state, self.target.probe), self.failed


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """The published health of all targets."""

    health: Mapping[EndpointKey, Health]
    held_back: frozenset[EndpointKey]
    """Targets that answer but still count as unhealthy, because they failed too often."""
    failing: frozenset[EndpointKey]
    """Targets whose last check failed."""

    @classmethod
    def of(cls, watched: Mapping[EndpointKey, TargetState]) -> "TargetHealth":
        """Collect the current health of these targets."""
        return cls(
            {key: each.state.health for key, each in watched.items()},
            frozenset(key for key, each in watched.items() if is_held_back(each.state, each.target.probe)),
            frozenset(key for key, each in watched.items() if each.failed),
        )


@dataclass(slots=True)
class ProberCounters:
    """Counters of the prober since its start."""

    checks: int = 0
    """Checks started."""
    late: int = 0
    """Checks that started more than a slot late."""
    failures: int = 0
    """Checks that ended without a success."""

    def began(self, lateness: float) -> None:
        """Count a check that starts `lateness` seconds after its slot."""
        self.checks += 1
        self.late += lateness > SLOT_SECONDS

    def ended(self, ok: bool) -> None:
        """Count a check that ended."""
        self.failures += not ok
