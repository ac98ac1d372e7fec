"""Admission of checks when more are due than may run at the same time.

Sockets are limited, and a worker that starts with many endpoints must not cause timeouts by its own burst. In plain
FIFO order, a few hundred endpoints that hang until their timeout would delay thousands that answer in a millisecond. So
endpoints that hung the last time wait in a queue of their own and get at most half of the capacity. If both queues have
items, they alternate.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class AdmissionQueue(Generic[T]):
    """Two queues, quick and slow, that share a limited number of places."""

    def __init__(self, room: int) -> None:
        self._room = room
        """Free places."""
        self._room_for_slow = max(1, room // 2)
        self._quick: deque[T] = deque()
        self._slow: deque[T] = deque()
        self._slow_is_next = False

    def __len__(self) -> int:
        return len(self._quick) + len(self._slow)

    def wait(self, item: T, *, slow: bool) -> None:
        """Add an item to its queue."""
        (self._slow if slow else self._quick).append(item)

    def next(self) -> tuple[T, bool] | None:
        """Take a place for the next item: return the item and whether it is slow, or None if no item can run now."""
        if self._room <= 0:
            return None
        may_be_slow = bool(self._slow) and self._room_for_slow > 0
        if not self._quick and not may_be_slow:
            return None
        slow = may_be_slow and (self._slow_is_next or not self._quick)
        self._slow_is_next = not slow
        self._room -= 1
        self._room_for_slow -= slow
        return (self._slow if slow else self._quick).popleft(), slow

    def leave(self, *, slow: bool) -> None:
        """Free a place."""
        self._room += 1
        self._room_for_slow += slow
