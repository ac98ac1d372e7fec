"""What the policy of autoscaling decides from, and what it decides. Frozen values."""

import math
from dataclasses import dataclass, field
from enum import StrEnum


class ScalingMeasure(StrEnum):
    """What is measured of each instance."""

    CPU = "cpu"
    """Per cent of the base."""
    MEMORY = "memory"
    """Per cent of the base."""
    CONNECTIONS = "connections"
    """Open connections."""
    CONNECTION_RATE = "connection_rate"
    """New connections in a second."""


class ScalingReason(StrEnum):
    """Why the number of instances changes, or does not."""

    LOAD = "load"
    SCHEDULE = "schedule"
    """A service without a measure has the minimum of its schedule."""
    BOUNDS = "bounds"
    """It has fewer or more instances than the bounds allow."""
    IN_RANGE = "in range"
    FEW_SAMPLES = "few samples"
    """There are not three samples since the last change, or too few instances are measured."""
    COOLDOWN = "cooldown"
    SET_ASIDE = "set aside"
    """A person, or a deploy, changed the number of instances."""
    ROLLOUT = "rollout"
    DRAIN = "drain"
    PENDING = "pending"
    """The engine has no place for an instance that it has already."""
    MISSING = "missing samples"
    """Not every instance was measured, so nothing is removed."""
    WOULD_EXCEED = "would exceed"
    """With fewer instances the average would be over the maximum again."""
    CLOCK = "clock"
    """The clock was set, so that the schedule may say something else."""


@dataclass(frozen=True, slots=True)
class InstanceSample:
    """What one instance used in one interval."""

    values: dict[ScalingMeasure, float] = field(default_factory=dict)
    """What could not be measured is absent."""
    throttled: float = 0.0
    """The share of periods, 0..1, in which it had to wait since its limit of CPU was used up."""
    is_starting: bool = False
    """Whether its load is that of its start: younger than its first successful probe, or than 30 s without a probe."""


@dataclass(frozen=True, slots=True)
class ServiceSample:
    """What all instances of a service used in one interval."""

    at: float
    """Seconds of the monotonic clock of the one who decides."""
    instances: tuple[InstanceSample, ...]
    """Those that workers told of."""


@dataclass(frozen=True, slots=True)
class ScalingSubject:
    """A service as its engine has it now."""

    service: str
    instances: int
    """How many the engine shall keep."""
    pending: str = ""
    """Why an instance has no place, in the engine's words; empty if each has one."""
    is_rolling_out: bool = False
    is_draining: bool = False
    """Whether an operator drains one of its instances, or a worker that has some."""
    cpu_base: str = "of one core"
    """What CPU is a per cent of: `of the limit`, `of the reservation`, `of one core`."""
    memory_base: str = "of the worker's memory"


@dataclass(frozen=True, slots=True)
class ScalingClock:
    """The time of one decision."""

    now: float
    """Seconds of a monotonic clock."""
    wall: float
    """Seconds since the epoch: for schedules alone."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What a decision leaves for the next one. The first one begins with `ScalingState()`."""

    instances: int | None = None
    """How many there were after the last decision; None: there was none."""
    changed_at: float = -math.inf
    """When the number changed last. Samples from before it do not count."""
    added_at: float = -math.inf
    """When instances were added last, or the first decision was made."""
    set_aside_until: float = -math.inf
    clock_offset: float = 0.0
    """The wall clock less the monotonic one."""
    clock_set_at: float = -math.inf
    """When the wall clock was set."""
    low_since: float | None = None
    """Since when the target has wanted fewer instances, without interruption."""
    low_most: int = 0
    """The most that it has wanted since then."""


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """How many instances a service gets, and why."""

    service: str
    before: int
    wanted: int
    """The same as `before` if nothing changes."""
    reason: ScalingReason
    why: str
    """`CPU 101 % of the limit over 70 % in 3 samples, 2 of 2 tasks`."""
    bounds: tuple[int, int]
    """The fewest and the most instances at this time."""
    values: dict[ScalingMeasure, float] = field(default_factory=dict)
    """The averages of the last samples."""

    @property
    def line(self) -> str:
        """The decision as a line: `web: 2 -> 4: CPU 101 % ...`, or `web: 2: ...` if nothing changes."""
        change = f"{self.before}" if self.wanted == self.before else f"{self.before} -> {self.wanted}"
        return f"{self.service}: {change}: {self.why}"
