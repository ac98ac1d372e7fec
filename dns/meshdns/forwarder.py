"""Other names: answered from the cache, or by upstreams on behalf of the client.

A question goes out in our own words, with an ID and a source port of ours, so that all who ask the same share one
exchange and one answer. What came is kept; when nothing comes, what was known before is better than nothing (RFC 8767).
Places for questions under way are bounded, in all and for each source: beyond, SERVFAIL comes at once, and own names
are answered as ever.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshdns.acl import ClientQuota
from meshdns.authoritative import DnsQuery, Rcode
from meshdns.cache import ForwardCache
from meshdns.forward_fastpath import FastpathCache
from meshdns.loop_detection import LoopDetector, own_address_matcher
from meshdns.message import (
    NO_REACHABLE_AUTHORITY,
    PROHIBITED,
    STALE_ANSWER,
    UpstreamReply,
    cache_key,
    stale_reply,
    write_response,
)
from meshdns.rdata import RecordType
from meshdns.upstream_query import FAILURE_RCODES, HedgingDelays, QueryNetwork, UpstreamQuery
from meshdns.upstream_sockets import UpstreamSockets
from meshdns.upstreams import Address, Upstreams

MAX_OUTSTANDING = 1024
"""Questions under way at a time."""
CLIENT_SHARE = 4
"""One source has at most one of so many parts of them."""
STALE_AFTER = 1.8
"""Seconds after which a client gets what was known before (RFC 8767, section 5)."""

SendResponse = Callable[[bytes], None]


class UpstreamNetwork(QueryNetwork, Protocol):
    """What a forwarder asks over: `lines`, except in tests."""

    async def close(self) -> None:
        """As `UpstreamSockets.close`."""
        ...


@dataclass(slots=True)
class ForwardCounters:
    """What became of the questions about other names since the start."""

    cached: int = 0
    """Answered from the cache; not those that the transports look up in `Forwarder.ready`."""
    asked: int = 0
    """Exchanges with upstreams."""
    shared: int = 0
    """Questions that joined an exchange under way."""
    failed: int = 0
    """Exchanges without an answer."""
    stale: int = 0
    """Answered with what was past its time."""
    capped: int = 0
    """Refused for want of a place."""


@dataclass(slots=True, eq=False)
class _WaitingClient:
    query: DnsQuery
    host: str
    tcp: bool
    send: SendResponse


@dataclass(slots=True, eq=False)
class _PendingQuery:
    exchange: UpstreamQuery
    waiting: list[_WaitingClient] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    overdue: bool = False
    """It takes so long that clients get what was known before."""


class Forwarder:
    """Resolves what is not ours. Without upstreams it refuses."""

    def __init__(
        self,
        upstreams: Upstreams | Sequence[Address] = (),
        *,
        cache: ForwardCache | None = None,
        patience: HedgingDelays | None = None,
        outstanding: int = MAX_OUTSTANDING,
        share: int | None = None,
        ways: UpstreamNetwork | None = None,
    ) -> None:
        self._upstreams = upstreams if isinstance(upstreams, Upstreams) else Upstreams(upstreams)
        self._cache = ForwardCache() if cache is None else cache
        self._patience = patience or HedgingDelays()
        self._shares = ClientQuota(outstanding, share or max(1, outstanding // CLIENT_SHARE))
        self._ways: UpstreamNetwork = ways or UpstreamSockets()
        self._loops = LoopDetector(self._ways)
        self._looked = True
        """Whether loops were looked for since the start; without a name server around it there is none to find."""
        self._under_way: dict[bytes, _PendingQuery] = {}
        self.ready = FastpathCache(self._cache)
        self.counters = ForwardCounters()

    def start(self, listen: Sequence[Address]) -> None:
        """The name server listens on these addresses: never ask them."""
        self._upstreams.leave_out(own_address_matcher(listen))
        self._upstreams.look(asyncio.get_running_loop().time())
        self._looked = False

    def ask(self, packet: bytes, query: DnsQuery, host: str, send: SendResponse, *, tcp: bool = False) -> bytes | None:
        """The answer to a client's question, if there is one now; else `send` gets it within 4.5 s.

        SERVFAIL if no upstream answers or there is no place, REFUSED if there is nobody to ask.
        """
        if query.type == RecordType.ANY and not tcp:
            return write_response(
                query, UpstreamReply(Rcode.NOERROR, truncated=True), 0, tcp=False
            )  # RFC 8482, section 4.4
        now = asyncio.get_running_loop().time()
        key = cache_key(query)
        known = self._cache.fresh(key, now)
        if known is not None:
            self.counters.cached += 1
            said = write_response(query, *known, tcp=tcp)
            if not tcp:
                self.ready.keep(packet, query, key, said)
            return said
        if self._loops.recognise(query.name):
            return write_response(query, UpstreamReply(Rcode.REFUSED), 0, tcp=tcp, error=PROHIBITED)
        under_way = self._under_way.get(key)
        if self._cache.failing(key, now) if under_way is None else under_way.overdue:
            return self._instead(query, key, now, None, tcp=tcp)
        if not self._shares.take(host):
            self.counters.capped += 1
            return self._instead(query, key, now, None, tcp=tcp)
        waiting = _WaitingClient(query, host, tcp, send)
        if under_way is not None:
            self._join(under_way, waiting)
            return None
        return self._begin(key, waiting, now)

    def resolve(self, packet: bytes, query: DnsQuery, host: str, *, tcp: bool = False) -> "asyncio.Future[bytes]":
        """The same, to be awaited."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def send(said: bytes) -> None:
            if not answer.done():  # whoever waited may have gone away
                answer.set_result(said)

        said = self.ask(packet, query, host, send, tcp=tcp)
        if said is not None:
            answer.set_result(said)
        return answer

    async def close(self) -> None:
        """End what is under way: those who wait get SERVFAIL."""
        for key, under_way in list(self._under_way.items()):
            under_way.exchange.close()
            self._done(key, None)
        self._loops.close()
        self.ready.close()
        await self._ways.close()

    # ---------------------------------------------------------------------------------------------- under way

    def _begin(self, key: bytes, waiting: _WaitingClient, now: float) -> bytes | None:
        query = waiting.query
        if self._upstreams.look(now) or not self._looked:
            # Not before there is something to ask: who forwards nothing sends nothing.
            self._looked = True
            self._loops.look(self._upstreams.all())
        upstreams = self._upstreams.for_name(query.name, now)
        if not upstreams:
            self._shares.give(waiting.host)
            return write_response(query, UpstreamReply(Rcode.REFUSED), 0, tcp=waiting.tcp, error=PROHIBITED)
        exchange = UpstreamQuery(key, upstreams, self._ways, self._patience, self._done)
        under_way = self._under_way[key] = _PendingQuery(exchange, [waiting])
        if self._cache.stale(key, now) is not None:
            loop = asyncio.get_running_loop()
            under_way.timer = loop.call_later(STALE_AFTER, self._answer_stale, key)
        self.counters.asked += 1
        exchange.start()
        return None

    def _join(self, under_way: _PendingQuery, waiting: _WaitingClient) -> None:
        self.counters.shared += 1
        if all(each.host != waiting.host for each in under_way.waiting):
            self._loops.suspect(self._upstreams.all())
        under_way.waiting.append(waiting)

    def _done(self, key: bytes, reply: UpstreamReply | None) -> None:
        under_way = self._under_way.pop(key)
        if under_way.timer is not None:
            under_way.timer.cancel()
        now = asyncio.get_running_loop().time()
        if reply is None or reply.rcode in FAILURE_RCODES:
            self.counters.failed += 1
            self._cache.failed(key, now)
            good = None
        else:
            self._cache.put(key, reply, now)
            good = reply
        for each in under_way.waiting:
            self._shares.give(each.host)
            if good is None or (good.truncated and each.tcp):
                each.send(self._instead(each.query, key, now, reply, tcp=each.tcp))
            else:
                each.send(write_response(each.query, good, 0, tcp=each.tcp))

    def _answer_stale(self, key: bytes) -> None:
        """The upstreams take their time: whoever waits gets what was known, and the exchange goes on for the next."""
        under_way = self._under_way[key]
        under_way.overdue = True
        waiting, under_way.waiting = under_way.waiting, []
        now = asyncio.get_running_loop().time()
        for each in waiting:
            self._shares.give(each.host)
            each.send(self._instead(each.query, key, now, None, tcp=each.tcp))

    def _instead(self, query: DnsQuery, key: bytes, now: float, reply: UpstreamReply | None, *, tcp: bool) -> bytes:
        """What a client gets without an answer: what was known before, or what the upstreams said, or SERVFAIL."""
        known = self._cache.stale(key, now)
        if known is not None:
            self.counters.stale += 1
            return write_response(query, stale_reply(known), 0, tcp=tcp, error=STALE_ANSWER)
        if reply is None or reply.truncated:
            reply = UpstreamReply(Rcode.SERVFAIL)
        return write_response(query, reply, 0, tcp=tcp, error=NO_REACHABLE_AUTHORITY)
