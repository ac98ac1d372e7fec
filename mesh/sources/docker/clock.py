"""Estimates how long ago an event of the engine was. Pure.

The engine's clock may be ahead of this host's or behind it, by any time. Its responses tell its time in whole seconds,
rounded down (RFC 9110 section 6.6.1), so the difference of the two clocks is known to within a second. An event that
has just come makes it exact.
"""


class EngineClock:
    """The engine's clock, as seen by this host's monotonic clock."""

    def __init__(self, told: float | None, here: float) -> None:
        """`told`: seconds since 1970 that a response told at the time `here` of this host's monotonic clock; None if it
        told none.
        """
        self._told = told
        self._here = here
        self._ahead: float | None = None if told is None else told - here
        """The least difference that is possible."""

    def age(self, event: float, here: float) -> float:
        """Return how many seconds before `here` an event was. `event`: seconds since 1970 by the engine's clock.

        An event from before the response may seem up to a second older than it is: what must happen in time happens.
        """
        if self._told is not None and event < self._told + 1:
            return max(0.0, self._told + 1 + here - self._here - event)
        ahead = event - here
        self._ahead = ahead if self._ahead is None else max(self._ahead, ahead)
        return here + self._ahead - event
