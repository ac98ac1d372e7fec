"""Counters of the control loop, for the metrics. They begin at 0 with the process."""

from collections import Counter
from dataclasses import dataclass, field

from mesh.util.histogram import Histogram


@dataclass(slots=True)
class LoopStats:
    """Counters of the control loop."""

    passes: int = 0
    """Completed passes."""
    stalls: int = 0
    """Passes that had no effect, since the data plane did not answer."""
    pass_seconds: Histogram = field(default_factory=Histogram)
    """Durations of the completed passes."""
    looked_at: float = 0.0
    """When the last pass began, in seconds since the epoch; 0 before the first one."""
    operations: Counter[str] = field(default_factory=Counter)
    """Operations that were sent to the data plane, by kind."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Operations that the data plane refused, by kind."""

    def copy(self) -> "LoopStats":
        """A copy, to be read in another thread."""
        return LoopStats(
            self.passes,
            self.stalls,
            self.pass_seconds.copy(),
            self.looked_at,
            self.operations.copy(),
            self.refusals.copy(),
        )
