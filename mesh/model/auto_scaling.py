"""What the labels `auto_scaling.*` ask for: when a service gets more or fewer instances, and between which bounds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScalingBand:
    """Thresholds of one measure, in per cent. Between them nothing changes."""

    maximum: int | None = None
    """Above it instances are added; None: this measure adds none."""
    minimum: int | None = None
    """Below it instances are removed; None: this measure removes none."""


@dataclass(frozen=True, slots=True)
class ScheduledBounds:
    """Bounds that hold from the time at which a cron expression fires."""

    expression: str
    """Five fields: crontab(5)."""
    min_instances: int | None
    max_instances: int | None
    """At least one of both is not None; None: that of the label without a schedule."""


@dataclass(frozen=True, slots=True)
class ScalingSchedule:
    """Bounds by the time of day. The entry that fired last holds."""

    entries: tuple[ScheduledBounds, ...] = ()
    """In the order written: of two that fired at the same time the later one holds. Empty: no schedule."""
    timezone: str = "UTC"
    """A name of the time zone database."""


@dataclass(frozen=True, slots=True)
class AutoScaling:
    """How many instances a service has, by its load and the time of day."""

    cpu: ScalingBand = ScalingBand()
    """Per cent of the limit, else of the reservation, else of one core."""
    memory: ScalingBand = ScalingBand()
    """Per cent of the limit, else of the reservation, else of the memory of the worker."""
    target_cpu: int | None = None
    """The average CPU to keep, in the same per cent; `cpu` is empty then."""
    max_connections: int | None = None
    """Open connections of one instance."""
    max_connection_rate: int | None = None
    """New connections of one instance in a second."""
    step: int = 1
    """Instances that one decision of a threshold adds or removes, from 1."""
    min_instances: int = 1
    max_instances: int = 10
    """Both are from 1, and the maximum is not below the minimum."""
    cooldown: int = 300
    """Seconds after an addition in which nothing is removed; and after a change by a person in which nothing is done.
    """
    schedule: ScalingSchedule = ScalingSchedule()

    @property
    def has_measure(self) -> bool:
        """Whether any load adds instances."""
        maxima = (self.cpu.maximum, self.memory.maximum, self.max_connections, self.max_connection_rate)
        return self.target_cpu is not None or any(maximum is not None for maximum in maxima)
