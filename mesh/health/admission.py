"""Whose turn it is when more is due than may be under way at a time.

Sockets are bounded, and a worker that starts with many endpoints must not answer its own burst with timeouts. First
come, first served would let a few hundred endpoints that hang until their timeout hold up thousands that answer in a
millisecond: so those that hung the last time stand in a queue of their own, and get at most half of the room. Where
both queues wait they take turns.
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class AdmissionQueue(Generic[T]):
    """Two queues before one room."""

    def __init__(self, room: int) -> None:
        self._room = room
        """Places that are free."""
        self._room_for_slow = max(1, room // 2)
        self._quick: deque[T] = deque()
        self._slow: deque[T] = deque()
        self._slow_is_next = False

    def __len__(self) -> int:
        return len(self._quick) + len(self._slow)

    def wait(self, item: T, *, slow: bool) -> None:
        """Stand in the queue."""
        (self._slow if slow else self._quick).append(item)

    def next(self) -> tuple[T, bool] | None:
        """Who takes a place now, and whether it is one of the slow; None: nobody waits, or there is no room."""
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
        """A place is free again."""
        self._room += 1
        self._room_for_slow += slow
