"""A timer wheel that says when each endpoint is due for its next check.

One timer per endpoint would wake the event loop once per check, which costs as much as the check itself. The wheel
collects what is due within the same 100 ms in one slot: the loop wakes once per slot and starts all of its checks. A
check starts at its due time or up to one slot later, never earlier.

Slots are created when a key is added to them, so an interval of an hour costs no more than one of a second. Times are
those of the caller's clock, in seconds; nothing here reads a clock.
"""

import hashlib
import math
from heapq import heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K")

SLOT_SECONDS = 0.1
"""Length of a slot in seconds."""
_GRAIN = 1e-6
"""Rounding error to tolerate in the division of floating-point times, as a fraction of a slot."""


class TimerWheel(Generic[K]):
    """Holds keys with their due time, each key once. A key that came due has left the wheel and must be added again."""

    def __init__(self, slot: float = SLOT_SECONDS) -> None:
        self._slot = slot
        self._slots: dict[int, dict[K, None]] = {}
        self._where: dict[K, int] = {}
        self._order: list[int] = []
        """A heap of the keys of `_slots`. A slot whose keys were removed stays until its time."""

    def __contains__(self, key: object) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def add(self, key: K, due: float) -> None:
        """Add a key, or move it if it is there already."""
        self.remove(key)
        number = math.ceil(due / self._slot - _GRAIN)
        if number not in self._slots:
            self._slots[number] = {}
            heappush(self._order, number)
        self._slots[number][key] = None
        self._where[key] = number

    def remove(self, key: K) -> None:
        """Remove a key; nothing happens if it is not there."""
        number = self._where.pop(key, None)
        if number is not None:
            del self._slots[number][key]

    def due(self, now: float) -> list[K]:
        """Remove and return every key whose slot has come, in the order of the slots.

        Each key is returned once, however long ago the last call was.
        """
        current = math.floor(now / self._slot + _GRAIN)
        keys: list[K] = []
        while self._order and self._order[0] <= current:
            keys.extend(self._slots.pop(heappop(self._order)))
        for key in keys:
            del self._where[key]
        return keys

    def next_due(self) -> float | None:
        """Return when `due` will next return a key, or None if the wheel is empty."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heappop(self._order)]
        return self._order[0] * self._slot if self._order else None


def slot_end(time: float) -> float:
    """Return the end of the slot that contains the time: that is when the wheel acts on it."""
    return math.ceil(time / SLOT_SECONDS - _GRAIN) * SLOT_SECONDS


def first_due(id: str, now: float, delay: float, interval: float) -> float:
    """Return when an endpoint that appears `now` is due for the first time.

    That is after its delay plus up to a tenth of its interval, always the same for the same ID: of a hundred endpoints
    that appear together, not all are probed at the same moment, now and in every later interval.
    """
    share = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=4).digest()) / 2**32
    return now + delay + share * interval / 10


def next_due(due: float, interval: float, now: float) -> float:
    """Return the first time after `now` that is a whole number of intervals after `due`. `interval` must be above 0.

    It is counted from the previous due time, not from the end of the check, so that the rhythm does not drift. Checks
    that were missed, because the check took long or the process was suspended, are not made up for.
    """
    missed = max(0, math.floor((now - due) / interval))
    return due + (missed + 1) * interval
