"""A cache with a limit of the size of all its keys, not of their number."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SizedCache(Generic[K, V]):
    """Keeps the entries that were used last, as far as they fit. Any thread may call its methods.

    A limit of the number of entries is no limit of memory where others choose how large an entry is.
    """

    def __init__(self, room: int) -> None:
        """`room` is the limit of the sum of all sizes, in the unit of those."""
        self._room = room
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        """The values with their sizes, the one that was used last at the end."""
        self._used = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None if it is not there any more."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value, and drop those that were used the longest ago. One that is too large by itself is not kept."""
        with self._lock:
            if size > self._room or key in self._entries:
                return
            self._entries[key] = (value, size)
            self._used += size
            while self._used > self._room:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._used -= dropped
