"""What the prober keeps of each endpoint that it asks. There may be ten thousand: only what is needed."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.health.checks.batch import PlainCheck
from mesh.health.history import CheckHistory
from mesh.health.state_machine import HealthState, is_held_back
from mesh.health.timer_wheel import SLOT_SECONDS
from mesh.model.probe import Probe
from mesh.model.service import Address, EndpointKey, Health


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """An endpoint and how to ask it."""

    probe: Probe
    address: Address
    port: int
    begins: Health = Health.STARTING
    """What is presumed when it is new. What was serving before this process came is healthy until it fails."""
    aside: bool = False
    """An operator works on it: it is not asked."""
    instead_of: str | None = None
    """The worker in whose place it is asked; None: it is an own endpoint."""

    @property
    def place(self) -> tuple[Address, int]:
        """Where it is asked."""
        return self.address, self.port


@dataclass(slots=True, eq=False)
class TargetState:
    """A target and where it stands. It is in the wheel, in the queue or in flight: in exactly one of them, or aside."""

    # 13 attributes: one row of the prober's table. There are ten thousand, so that it is one object and not several.

    key: EndpointKey
    target: ProbeTarget
    state: HealthState
    due: float = 0.0
    begun: float = float("-inf")
    """When it was last asked."""
    queued: bool = False
    slow: bool = False
    """Whether it hung until its timeout the last time."""
    failed: bool = False
    """Whether its last check was a failure."""
    flew_slow: bool = False
    flight: asyncio.Task[None] | PlainCheck | None = None
    asked: ProbeTarget | None = None
    request: bytes = b""
    """What is sent, once it was needed."""
    history: CheckHistory = field(default_factory=CheckHistory)

    @property
    def name(self) -> str:
        """The endpoint in log lines."""
        _, id = self.key
        return id if self.target.instead_of is None else f"{id} of {self.target.instead_of}"

    @property
    def interval(self) -> float:
        """Seconds between two checks, as it stands now."""
        probe = self.target.probe
        return probe.starting_interval if self.state.health is Health.STARTING else probe.interval

    @property
    def standing(self) -> tuple[Health, bool, bool]:
        """What others are told of it: its health, whether it is held back, whether its last check was a failure."""
        return self.state.health, is_held_back(self.state, self.target.probe), self.failed


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """What others are told of all that is watched."""

    health: Mapping[EndpointKey, Health]
    held_back: frozenset[EndpointKey]
    """Those that answer and are not believed yet, since they fell too often."""
    failing: frozenset[EndpointKey]
    """Those whose last check was a failure."""

    @classmethod
    def of(cls, watched: Mapping[EndpointKey, TargetState]) -> "TargetHealth":
        """Of these, now."""
        stands = {key: each.standing for key, each in watched.items()}
        return cls(
            {key: health for key, (health, _, _) in stands.items()},
            frozenset(key for key, (_, held_back, _) in stands.items() if held_back),
            frozenset(key for key, (_, _, failed) in stands.items() if failed),
        )


@dataclass(slots=True)
class ProberCounters:
    """What the prober has done since it began."""

    checks: int = 0
    """Checks that have begun."""
    late: int = 0
    """Of them, those that began more than a slot after their time."""
    failures: int = 0
    """Checks that have ended without a success."""

    def began(self, lateness: float) -> None:
        """Count a check that begins, so many seconds after its slot."""
        self.checks += 1
        self.late += lateness > SLOT_SECONDS

    def ended(self, ok: bool) -> None:
        """Count a check that has ended."""
        self.failures += not ok
