"""What the parts count while the daemon runs, for the metrics. The counts begin at 0 with the process."""

from collections import Counter
from dataclasses import dataclass, field

from mesh.util.histogram import Histogram


@dataclass(slots=True)
class LoopStats:
    """Of the control loop."""

    passes: int = 0
    """Those that came to their end."""
    stalls: int = 0
    """Those that ended without effect, since the data plane did not answer."""
    pass_seconds: Histogram = field(default_factory=Histogram)
    """How long each took that came to its end."""
    looked_at: float = 0.0
    """When the loop last came round, seconds since the epoch; 0: it has not begun."""
    operations: Counter[str] = field(default_factory=Counter)
    """What was done to the data plane, by kind of operation."""
    refusals: Counter[str] = field(default_factory=Counter)
    """What the data plane would not do, by kind of operation."""

    def copy(self) -> "LoopStats":
        """As they are now, for whoever reads them in another thread."""
        return LoopStats(
            self.passes,
            self.stalls,
            self.pass_seconds.copy(),
            self.looked_at,
            self.operations.copy(),
            self.refusals.copy(),
        )
