"""Caches upstreams' responses for as long as their TTLs allow. Pure: every call takes the current time.

The cache is bounded by entries and by bytes, and drops the least recently used entry first. Ages are whole seconds: a
response that arrived within a second is one second old when the next one begins. All TTLs therefore step down at the
same time, and no client keeps a record for too long.

Expired responses are kept for a day, for the case that no upstream answers (RFC 8767). Failures are remembered as well,
so that a name that cannot be resolved is not asked for again by every client (RFC 9520).

Times are seconds of the event loop's clock.
"""

from collections import OrderedDict
from dataclasses import dataclass

from meshdns.message import UpstreamReply

MAX_ENTRIES = 20_000
"""Maximum entries."""
MAX_CACHE_BYTES = 16 << 20
"""Maximum bytes of all entries."""
STALE_SECONDS = 86400
"""Seconds beyond its lifetime that a response is kept."""
MAX_ANSWER_BYTES = 16384
"""Maximum bytes of a response that is kept; a larger one is requested again each time."""
RETRY_SECONDS = 1.0
"""Seconds after a failure before the upstreams are asked again if there is no stale response."""
STALE_RETRY_SECONDS = 30.0
"""Seconds after a failure before the upstreams are asked again if there is a stale response (RFC 8767, section 5)."""
MAX_FAILURES = 4096
"""Maximum failed questions that are remembered."""

_OVERHEAD = 600
"""Measured bytes of an entry beside its records: the objects, the key, its place in the dictionary."""


@dataclass(slots=True)
class _CacheEntry:
    """A cached response."""

    reply: UpstreamReply
    came: int
    """The whole second in which it arrived."""
    cost: int
    """Its estimated bytes of memory."""


class ForwardCache:
    """Responses by `message.cache_key`, so that queries that differ in type, class, RD, CD or DO are never mixed."""

    def __init__(
        self, entries: int = MAX_ENTRIES, octets: int = MAX_CACHE_BYTES, *, stale: int = STALE_SECONDS
    ) -> None:
        self._most_entries = entries
        self._most_octets = octets
        self._stale = stale
        self._entries: OrderedDict[bytes, _CacheEntry] = OrderedDict()
        self._failed: OrderedDict[bytes, float] = OrderedDict()
        """When the upstreams may be asked again, by key."""
        self.octets = 0
        """Estimated bytes of memory of all entries."""

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, key: bytes, now: float) -> tuple[UpstreamReply, int] | None:
        """Return a response that has not expired and its age in seconds, or None."""
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
        """Return a response that may have expired, or None. It is only for when no upstream answers."""
        entry = self._entries.get(key)
        if entry is None or int(now) - entry.came >= entry.reply.lifetime + self._stale:
            return None
        self._entries.move_to_end(key)
        return entry.reply

    def put(self, key: bytes, reply: UpstreamReply, now: float) -> None:
        """Replace the entry of a key by a new response. A response that must not be cached only removes the entry."""
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
        """Remember that no upstream had an answer."""
        self._failed.pop(key, None)
        if len(self._failed) >= MAX_FAILURES:
            self._failed.popitem(last=False)
        self._failed[key] = now + (RETRY_SECONDS if self.stale(key, now) is None else STALE_RETRY_SECONDS)

    def failing(self, key: bytes, now: float) -> bool:
        """Return whether a question failed so recently that the upstreams must not be asked again yet."""
        again = self._failed.get(key)
        return again is not None and now < again

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.octets -= entry.cost
