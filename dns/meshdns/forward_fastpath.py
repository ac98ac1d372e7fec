"""Cached answers as they go out, in blocks, for transports that look up before they think.

The octets of a question behind its ID decide its answer, as long as no TTL has stepped down: for the rest of a second.
Then the answer is written anew, which takes no parsing, since what the octets mean is remembered.
"""

import asyncio

from meshdns.authoritative import DnsQuery
from meshdns.cache import ForwardCache
from meshdns.message import write_response
from meshdns.response_block import encode_block

MAX_QUESTIONS = 8192
"""Questions that are remembered; when more come, all are forgotten."""
MAX_ANSWER_BYTES = 1232
"""Octets of an answer."""


class FastpathCache(dict[bytes, bytes | None]):
    """Answers over UDP as blocks with ID 0, by a question without its ID; `ready[...]` is None for an unknown one."""

    def __init__(self, cache: ForwardCache) -> None:
        super().__init__()
        self._cache = cache
        self._meaning: dict[bytes, tuple[DnsQuery, bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tick: asyncio.TimerHandle | None = None

    def keep(self, packet: bytes, query: DnsQuery, key: bytes, said: bytes) -> None:
        """Remember an answer from the cache; not for who asks differently each time, as with cookies."""
        if len(said) > MAX_ANSWER_BYTES or len(packet) - 12 - len(query.question) not in (0, 11):
            return
        if len(self._meaning) >= MAX_QUESTIONS:
            self.forget()
        self._meaning[packet[2:]] = query._replace(id=0), key
        self._put(packet[2:], b"\0\0" + said[2:])

    def forget(self) -> None:
        """Nothing that is known is to be used again without a look at whose name it is."""
        self.clear()
        self._meaning.clear()

    def close(self) -> None:
        """End the clock."""
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
        return self._put(question, write_response(query, *known, tcp=False))

    def _put(self, question: bytes, said: bytes) -> bytes:
        if self._tick is None:
            self._loop = asyncio.get_running_loop()
            self._tick = self._loop.call_at(int(self._loop.time()) + 1, self._next_second)
        self[question] = whole = encode_block(said)
        return whole

    def _next_second(self) -> None:
        """All TTLs have stepped down."""
        self._tick = None
        self.clear()
