"""No part of the daemon floods the log: of lines that are alike, some come at once and then a few each second. Pure.

A thousand endpoints that fail together, or one that flaps for a week, say the same thing again and again; what they
push out is the one line that matters. What was left out is counted, and told with the next line of its kind.
"""

from collections import OrderedDict
from dataclasses import dataclass

BURST = 100
"""Lines alike that come at once."""
RATE = 5.0
"""Lines alike for each second after that."""
KINDS = 500
"""How many kinds of lines are known at a time; the one that was quiet the longest is forgotten."""


@dataclass(slots=True)
class _LineKind:
    room: float
    """Lines that may still come."""
    since: float
    left_out: int = 0


class LogRateLimit:
    """Says of each line whether it comes. Kinds are any hashable value, such as the text before it is filled in."""

    def __init__(self, burst: int = BURST, rate: float = RATE) -> None:
        self._burst = burst
        self._rate = rate
        self._kinds: OrderedDict[object, _LineKind] = OrderedDict()

    def left_out(self, kind: object, now: float) -> int | None:
        """None: this line shall not come. Else how many of its kind were left out since the last that came.

        `now`: seconds of a clock that never goes back.
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
