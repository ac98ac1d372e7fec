"""Cached responses of upstreams as ready blocks, for the transport that looks up a query before parsing it.

The bytes of a query behind its ID decide its response until the next TTL countdown, that is for the rest of a second.
After that the response is written again. This needs no parsing, since the parsed form of each query is remembered.
"""

import asyncio
from collections.abc import Callable

from meshdns import bulkhead
from meshdns.authoritative import DnsQuery
from meshdns.cache import ForwardCache
from meshdns.message import UpstreamReply, write_response
from meshdns.response_block import encode_block

MAX_QUESTIONS = 8192
"""How many parsed queries are remembered; when there are more, all are forgotten."""
MAX_FOREIGN = 8192
"""How many parsed queries for names that are not own are remembered beside those; when there are more, all are
forgotten.
"""
MAX_ANSWER_BYTES = 1232
"""Maximum bytes of a response."""


class FastpathCache(dict[bytes, bytes | None]):
    """UDP responses as blocks with ID 0, by query without its ID. `ready[key]` is None for an unknown query."""

    def __init__(
        self, cache: ForwardCache, write: Callable[[DnsQuery, UpstreamReply, int], bytes] | None = None
    ) -> None:
        """`write` builds a UDP response of a query, a reply and its age in seconds; None: `message.write_response`."""
        super().__init__()
        self._cache = cache
        self._write = write or _write_udp
        self._meaning: dict[bytes, tuple[DnsQuery, bytes]] = {}
        """The parsed query and its cache key, by query without its ID."""
        self.foreign: dict[bytes, tuple[DnsQuery, bytes]] = {}
        """The same for queries that were forwarded: their names are not own until `forget` is called. Their IDs are
        those of earlier packets.
        """
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop, once there is an entry."""
        self._tick: asyncio.TimerHandle | None = None
        """The timer that ends the current second; None while no entry is stored."""

    def keep(self, packet: bytes, query: DnsQuery, key: bytes, said: bytes) -> None:
        """Store a cached response to a query.

        Responses that are too large are left out, and so are queries with EDNS options such as cookies: their bytes
        differ each time.
        """
        # Behind header and question: nothing, or an OPT record without options (11 bytes).
        if len(said) > MAX_ANSWER_BYTES or len(packet) - 12 - len(query.question) not in (0, 11):
            return
        if len(self._meaning) >= MAX_QUESTIONS:
            self.forget()
        self._meaning[packet[2:]] = query._replace(id=0), key
        self._put(packet[2:], b"\0\0" + said[2:])

    def learn(self, packet: bytes, query: DnsQuery, key: bytes) -> None:
        """Remember that a query has to be forwarded, so that it need not be parsed again.

        Queries with EDNS options are left out, as in `keep`.
        """
        if len(packet) - 12 - len(query.question) in (0, 11):
            if len(self.foreign) >= MAX_FOREIGN:
                self.foreign.clear()
            self.foreign[packet[2:]] = query, key

    def forget(self) -> None:
        """Drop every entry, so that each query is checked again for whether its name is own."""
        self.clear()
        self._meaning.clear()
        self.foreign.clear()

    def close(self) -> None:
        """Stop the timer."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def __missing__(self, question: bytes) -> bytes | None:
        meaning = self._meaning.get(question)
        if meaning is None or self._loop is None:
            return None
        query, key = meaning
        known = self._cache.fresh(key, self._loop.time())
        if known is None:
            del self._meaning[question]
            return None
        return self._put(question, self._write(query, *known))

    def _put(self, question: bytes, said: bytes) -> bytes:
        """Store a block, and set the timer that clears it when its TTLs count down."""
        if self._tick is None:
            self._loop = asyncio.get_running_loop()
            # The cache counts whole seconds of the loop's clock, so all TTLs step down at the next full second.
            self._tick = self._loop.call_at(
                int(self._loop.time()) + 1, bulkhead.callback(self._next_second, "the cache")
            )
        self[question] = whole = encode_block(said)
        return whole

    def _next_second(self) -> None:
        """Drop all blocks: every TTL has stepped down by one."""
        self._tick = None
        self.clear()


def _write_udp(query: DnsQuery, reply: UpstreamReply, elapsed: int) -> bytes:
    return write_response(query, reply, elapsed, tcp=False)
