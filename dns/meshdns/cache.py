"""What upstreams said, for as long as they said it may be believed. Pure: the time comes with every call.

Bounded by entries and by octets; what was not asked for the longest time goes first. Seconds are whole: an answer
that came within a second is a second old when the next one begins, so that all TTLs step down at the same time and a
client never keeps anything too long.

What is past its time stays for a day, for when no upstream answers (RFC 8767). That none did is remembered too, so
that a name that cannot be resolved is not asked for by every client anew (RFC 9520).
"""

from collections import OrderedDict
from dataclasses import dataclass

from meshdns.message import UpstreamReply

MAX_ENTRIES = 20_000
MAX_CACHE_BYTES = 16 << 20
STALE_SECONDS = 86400
"""Seconds past its time that an answer is kept for bad days."""
MAX_ANSWER_BYTES = 16384
"""Octets of an answer that is kept; a larger one is asked for anew."""
RETRY_SECONDS = 1.0
"""Seconds after a failure before the upstreams are asked again, if there is nothing to show instead."""
STALE_RETRY_SECONDS = 30.0
"""The same, if there is (RFC 8767, section 5)."""
MAX_FAILURES = 4096
"""Questions whose failure is remembered."""

_OVERHEAD = 600
"""Octets of an entry beside its records: the objects, the key, its place in the dictionary. Measured."""


@dataclass(slots=True)
class _CacheEntry:
    reply: UpstreamReply
    came: int
    cost: int


class ForwardCache:
    """By `message.cache_key`, so that what differs by type, class, RD, CD or DO is never mixed."""

    def __init__(
        self, entries: int = MAX_ENTRIES, octets: int = MAX_CACHE_BYTES, *, stale: int = STALE_SECONDS
    ) -> None:
        self._most_entries = entries
        self._most_octets = octets
        self._stale = stale
        self._entries: OrderedDict[bytes, _CacheEntry] = OrderedDict()
        self._failed: OrderedDict[bytes, float] = OrderedDict()
        """When each may be tried again."""
        self.octets = 0
        """What it takes of memory, roughly."""

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, key: bytes, now: float) -> tuple[UpstreamReply, int] | None:
        """An answer that is still to be believed, and its age in seconds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = int(now) - entry.came
        if age >= entry.reply.lifetime:
            if age >= entry.reply.lifetime + self._stale:
                self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.reply, age

    def stale(self, key: bytes, now: float) -> UpstreamReply | None:
        """An answer that may be past its time: only for when there is no other."""
        entry = self._entries.get(key)
        if entry is None or int(now) - entry.came >= entry.reply.lifetime + self._stale:
            return None
        self._entries.move_to_end(key)
        return entry.reply

    def put(self, key: bytes, reply: UpstreamReply, now: float) -> None:
        """Keep an answer instead of what was known, if it may be kept."""
        self._failed.pop(key, None)
        self._drop(key)
        if reply.lifetime <= 0 or len(reply.body) > MAX_ANSWER_BYTES:
            return
        cost = _OVERHEAD + len(key) + len(reply.body) + 36 * len(reply.ttls)
        self._entries[key] = _CacheEntry(reply, int(now), cost)
        self.octets += cost
        while len(self._entries) > self._most_entries or self.octets > self._most_octets:
            self._drop(next(iter(self._entries)))

    def failed(self, key: bytes, now: float) -> None:
        """No upstream had an answer."""
        self._failed.pop(key, None)
        if len(self._failed) >= MAX_FAILURES:
            self._failed.popitem(last=False)
        self._failed[key] = now + (RETRY_SECONDS if self.stale(key, now) is None else STALE_RETRY_SECONDS)

    def failing(self, key: bytes, now: float) -> bool:
        """Whether it failed so recently that the upstreams are to be left alone."""
        again = self._failed.get(key)
        return again is not None and now < again

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.octets -= entry.cost
