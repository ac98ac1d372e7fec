"""Counters of the prober, for the metrics. They begin at 0 with the process."""

from collections import Counter
from dataclasses import dataclass, field

from mesh.model.probe import ProbeKind
from mesh.util.histogram import Histogram


@dataclass(slots=True)
class ProbeStats:
    """Of the prober."""

    verdicts: Counter[tuple[ProbeKind, bool]] = field(default_factory=Counter)
    """How many checks came to which end: (kind, whether the endpoint works)."""
    seconds: Histogram = field(default_factory=Histogram)
    """How long each check took."""
    in_flight: int = 0
    waiting: int = 0
    """Due, but there is no room."""

    def copy(self) -> "ProbeStats":
        """As they are now, for whoever reads them in another thread."""
        return ProbeStats(self.verdicts.copy(), self.seconds.copy(), self.in_flight, self.waiting)
