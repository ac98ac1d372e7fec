"""Limits similar log lines: a burst of them passes, then a few each second. Pure.

When a thousand endpoints fail together, or one flaps for a week, similar lines would push out the one line that
matters. Suppressed lines are counted, and the count is logged with the next line of their kind.
"""

from collections import OrderedDict
from dataclasses import dataclass

BURST = 100
"""Similar lines that pass at once."""
RATE = 5.0
"""Similar lines per second that pass after that."""
KINDS = 500
"""Maximum kinds of lines that are tracked; beyond it, the kind that was quiet for longest is forgotten."""


@dataclass(slots=True)
class _LineKind:
    """The token bucket of one kind of lines."""

    room: float
    """Lines that may still pass."""
    since: float
    """The time of the last line, in seconds."""
    left_out: int = 0
    """Lines suppressed since the last one that passed."""


class LogRateLimit:
    """A token bucket for each kind of log lines.

    A kind is any hashable value, such as the message before its arguments are filled in.
    """

    def __init__(self, burst: int = BURST, rate: float = RATE) -> None:
        self._burst = burst
        self._rate = rate
        self._kinds: OrderedDict[object, _LineKind] = OrderedDict()

    def left_out(self, kind: object, now: float) -> int | None:
        """Return how many lines of this kind were suppressed since the last that passed.

        The result is None if this line is suppressed too. `now` is in seconds of a monotonic clock.
        """
        known = self._kinds.pop(kind, None) or _LineKind(self._burst, now)
        self._kinds[kind] = known
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        known.room = min(self._burst, known.room + (now - known.since) * self._rate)
        known.since = now
        if known.room < 1:
            known.left_out += 1
            return None
        known.room -= 1
        missed, known.left_out = known.left_out, 0
        return missed
