"""When each endpoint is asked: a wheel of slots.

A timer per endpoint wakes the loop once per check, which costs as much as the check itself. The wheel puts what is
due within the same 100 ms into one slot: the loop wakes once per slot and starts all of it. A check starts at its due
time or up to one slot later, never earlier.

Slots are made when something falls into them, so that an interval of an hour costs no more than one of a second.
Time is whatever clock the caller has, in seconds; nothing here reads one.
"""

import hashlib
import math
from heapq import heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K")

SLOT_SECONDS = 0.1
"""Seconds."""
_GRAIN = 1e-6
"""Of a slot: what division of floating-point times may be off by."""


class TimerWheel(Generic[K]):
    """Keys and when they are due, each key once. What has come due has left the wheel; the caller adds it anew."""

    def __init__(self, slot: float = SLOT_SECONDS) -> None:
        self._slot = slot
        self._slots: dict[int, dict[K, None]] = {}
        self._where: dict[K, int] = {}
        self._order: list[int] = []
        """A heap of the keys of `_slots`; a slot whose keys were removed stays until its time."""

    def __contains__(self, key: object) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def add(self, key: K, due: float) -> None:
        """Put a key in, or move it if it is there."""
        self.remove(key)
        number = math.ceil(due / self._slot - _GRAIN)
        if number not in self._slots:
            self._slots[number] = {}
            heappush(self._order, number)
        self._slots[number][key] = None
        self._where[key] = number

    def remove(self, key: K) -> None:
        """Take a key out; not there: nothing is done."""
        number = self._where.pop(key, None)
        if number is not None:
            del self._slots[number][key]

    def due(self, now: float) -> list[K]:
        """Take out and return every key whose slot has come, in order of the slots.

        However long ago the last call was, each key is returned once.
        """
        current = math.floor(now / self._slot + _GRAIN)
        keys: list[K] = []
        while self._order and self._order[0] <= current:
            keys.extend(self._slots.pop(heappop(self._order)))
        for key in keys:
            del self._where[key]
        return keys

    def next_due(self) -> float | None:
        """When `due` will next return something; None if the wheel is empty."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heappop(self._order)]
        return self._order[0] * self._slot if self._order else None


def slot_end(time: float) -> float:
    """The end of the slot that a time falls into: when it is acted upon."""
    return math.ceil(time / SLOT_SECONDS - _GRAIN) * SLOT_SECONDS


def first_due(id: str, now: float, delay: float, interval: float) -> float:
    """When an endpoint that appears `now` is due for the first time.

    After its delay and up to a tenth of its interval more, always the same for the same id: a hundred endpoints
    that appear together are not all asked at the same moment, now and every interval after.
    """
    share = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=4).digest()) / 2**32
    return now + delay + share * interval / 10


def next_due(due: float, interval: float, now: float) -> float:
    """The due time after `due` that is still to come: a whole number of intervals later. `interval` above 0.

    Counted from the previous due time, not from the end of the check, so that the rhythm does not drift; what was
    missed, because the check took long or the process was suspended, is not made up for.
    """
    missed = max(0, math.floor((now - due) / interval))
    return due + (missed + 1) * interval
