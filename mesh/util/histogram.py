"""A histogram of durations."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets in seconds, for what a worker waits for."""


@dataclass(slots=True)
class Histogram:
    """Counts durations by bucket. It is mutable and belongs to the code that counts."""

    bounds: Sequence[float] = DURATION_BUCKETS
    """Upper bounds of the buckets, inclusive, in seconds."""
    counts: list[int] = field(default_factory=list)
    """The count of each bucket, not cumulative; the last bucket counts durations above all bounds."""
    total: float = 0.0
    """The sum of all durations in seconds."""

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def copy(self) -> "Histogram":
        """Return a copy, for a reader in another thread."""
        return Histogram(self.bounds, list(self.counts), self.total)
