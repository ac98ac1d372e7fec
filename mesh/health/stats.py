"""Counters of the prober for the metrics. They start at 0 with the process."""

from collections import Counter
from dataclasses import dataclass, field

from mesh.model.probe import ProbeKind
from mesh.util.histogram import Histogram


@dataclass(slots=True)
class ProbeStats:
    """Results and durations of all checks, and the numbers of running and waiting ones."""

    verdicts: Counter[tuple[ProbeKind, bool]] = field(default_factory=Counter)
    """Completed checks by (kind, whether the check succeeded)."""
    seconds: Histogram = field(default_factory=Histogram)
    """Duration of the checks."""
    in_flight: int = 0
    """Checks that are running."""
    waiting: int = 0
    """Checks that are due but wait for a place."""

    def copy(self) -> "ProbeStats":
        """Return a copy of the current state, to be read in another thread."""
        return ProbeStats(self.verdicts.copy(), self.seconds.copy(), self.in_flight, self.waiting)
