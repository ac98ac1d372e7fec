"""One event for several waiters."""

import asyncio


class Signal:
    """Sets several events at once, for a sender that need not know who waits."""

    def __init__(self, *events: asyncio.Event) -> None:
        self._events = events

    def set(self) -> None:
        """Set all of them. Each waiter clears its own."""
        for event in self._events:
            event.set()
