"""A histogram of durations that grows in place."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of what a worker waits for."""


@dataclass(slots=True)
class Histogram:
    """How often which duration was seen. It grows in place: it belongs to whoever counts."""

    bounds: Sequence[float] = DURATION_BUCKETS
    counts: list[int] = field(default_factory=list)
    """In each bucket alone; the last one has what is above all bounds."""
    total: float = 0.0
    """Of all that was seen."""

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def copy(self) -> "Histogram":
        """As it is now, for whoever reads it in another thread."""
        return Histogram(self.bounds, list(self.counts), self.total)
