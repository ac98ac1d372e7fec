"""How long to wait before the next attempt at something that failed. Pure.

A loop that retries sleeps for `next_pause()` after each failure and calls `reset()` after a success:

    backoff = Backoff(0.1, 5.0, jitter=0.5, random=random.random)
    while True:
        try:
            await attempt()
        except AttemptError:
            await asyncio.sleep(backoff.next_pause())
        else:
            backoff.reset()

The sleep stays in the loop, because loops differ in what may end it: cancellation, an event, a deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Counts failures in a row: the pause doubles with each of them, from `first` up to `longest`."""

    first: float
    """Seconds after the first failure."""
    longest: float | None = None
    """Seconds that no pause exceeds; None: every pause is `first`."""
    jitter: float = 0.0
    """The share of each pause that is taken off at random, from 0 to 1, so that many workers do not retry at once."""
    random: Callable[[], float] = lambda: 0.0
    """Returns a number from 0 to 1 at each call, as `random.random` does."""
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def next_pause(self) -> float:
        """Count one more failure; the seconds to wait before the next attempt."""
        pause, self._next = self._next, self._bounded(2 * self._next)
        return pause * (1 - self.jitter * self.random())

    def reset(self) -> None:
        """The last attempt succeeded: the next failure is the first again."""
        self._next = self._bounded(self.first)

    def _bounded(self, seconds: float) -> float:
        return min(seconds, self.first if self.longest is None else self.longest)
