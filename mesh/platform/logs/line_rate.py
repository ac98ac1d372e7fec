"""Limits the lines per second of a container: a token bucket that holds the tokens of one second. Pure."""


class LineRateLimit:
    """Says which lines are collected."""

    def __init__(self, lines_per_second: int) -> None:
        self._rate = lines_per_second
        self._tokens = float(lines_per_second)
        self._updated: float | None = None

    def admit(self, wanted: int, now: float) -> int:
        """Return how many of `wanted` lines are collected. `now` is in seconds of a monotonic clock."""
        if self._updated is not None:
            self._tokens = min(float(self._rate), self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        admitted = min(wanted, int(self._tokens))
        self._tokens -= admitted
        return admitted
