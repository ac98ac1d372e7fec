"""Answers queries for names that are not own: from the cache, or by asking upstreams on behalf of the client.

A query is sent upstream in our own form, with an ID and source port of ours, so that all clients that ask the same
share one exchange and one response. Responses are cached. If no upstream answers, a stale response is better than none
(RFC 8767). The number of outstanding queries is bounded, in total and per client: beyond the bound, clients get
SERVFAIL at once, and own names are answered as before.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshdns import bulkhead
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
"""Maximum outstanding queries."""
CLIENT_SHARE = 4
"""One client may have at most 1/`CLIENT_SHARE` of the outstanding queries."""
STALE_AFTER = 1.8
"""Seconds after which a waiting client gets a stale response, if there is one (RFC 8767, section 5)."""

SendResponse = Callable[[bytes], None]
"""Sends a response to the client that asked."""


class UpstreamNetwork(QueryNetwork, Protocol):
    """The network as a forwarder uses it: `upstream_sockets.UpstreamSockets`, except in tests."""

    async def close(self) -> None:
        """Close all sockets; no more responses are delivered."""
        ...


@dataclass(slots=True)
class ForwardCounters:
    """How queries for other names were handled since the start."""

    cached: int = 0
    """Answered from the cache, not counting responses that a transport looked up in `Forwarder.ready` itself."""
    asked: int = 0
    """Exchanges with upstreams."""
    shared: int = 0
    """Queries that joined an exchange under way."""
    failed: int = 0
    """Exchanges that ended without an answer."""
    stale: int = 0
    """Queries answered with a stale response."""
    capped: int = 0
    """Queries refused because a bound on outstanding queries was reached."""


@dataclass(slots=True, eq=False)
class _WaitingClient:
    """One client that waits for an exchange."""

    query: DnsQuery
    host: str
    tcp: bool
    send: SendResponse


@dataclass(slots=True, eq=False)
class _PendingQuery:
    """One exchange and the clients that wait for it."""

    exchange: UpstreamQuery
    waiting: list[_WaitingClient] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    """Fires when the clients get a stale response; None if there is none to give."""
    overdue: bool = False
    """Whether that time has passed: from then on every client gets the stale response at once."""


class Forwarder:
    """Resolves names that are not own. Without upstreams it answers REFUSED.

    `outstanding` is the maximum of outstanding queries, `share` that of one client; None takes the usual part of
    `outstanding`. `cache`, `patience` and `ways` default to the usual ones.
    """

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
        """Whether loops were probed for since `start`. True before `start`: without a name server around it there is no
        loop.
        """
        self._under_way: dict[bytes, _PendingQuery] = {}
        """Exchanges by cache key."""
        self.ready = FastpathCache(self._cache)
        """Responses that the UDP transport may look up by itself."""
        self.counters = ForwardCounters()

    def start(self, listen: Sequence[Address]) -> None:
        """Begin to forward for a name server that listens on these addresses; they are never used as upstreams."""
        self._upstreams.leave_out(own_address_matcher(listen))
        self._upstreams.look(asyncio.get_running_loop().time())
        self._looked = False

    def ask(self, packet: bytes, query: DnsQuery, host: str, send: SendResponse, *, tcp: bool = False) -> bytes | None:
        """Return the response to a client's query if it is available now; else None, and `send` gets it within 4.5 s.

        The response is SERVFAIL if no upstream answers or a bound on outstanding queries is reached, and REFUSED if
        there is no upstream for the name.
        """
        if query.type == RecordType.ANY and not tcp:
            # ANY is only worth asking for over TCP, where the source address is not forged (RFC 8482, section 4.4).
            return write_response(query, UpstreamReply(Rcode.NOERROR, truncated=True), 0, tcp=False)
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
        # Do not wait where waiting is known to be in vain: the upstreams failed a moment ago, or take too long now.
        in_vain = self._cache.failing(key, now) if under_way is None else under_way.overdue
        if in_vain:
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
        """Return a future of the response to a client's query, as `ask` describes it."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def send(said: bytes) -> None:
            if not answer.done():  # the client may have closed its connection
                answer.set_result(said)

        said = self.ask(packet, query, host, send, tcp=tcp)
        if said is not None:
            answer.set_result(said)
        return answer

    async def close(self) -> None:
        """End all exchanges; waiting clients get SERVFAIL or a stale response."""
        for key, under_way in list(self._under_way.items()):
            under_way.exchange.close()
            self._done(key, None)
        self._loops.close()
        self.ready.close()
        await self._ways.close()

    # ---------------------------------------------------------------------------------------------- under way

    def _begin(self, key: bytes, waiting: _WaitingClient, now: float) -> bytes | None:
        """Start an exchange for the first client that asks; returns a response only if there is no upstream to ask."""
        query = waiting.query
        if self._upstreams.look(now) or not self._looked:
            # Loops are probed for with the first forwarded query, not at start: a server that forwards nothing must
            # not send anything.
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
            under_way.timer = loop.call_later(
                STALE_AFTER, bulkhead.callback(self._answer_stale, "stale responses"), key
            )
        self.counters.asked += 1
        exchange.start()
        return None

    def _join(self, under_way: _PendingQuery, waiting: _WaitingClient) -> None:
        """Add a client to an exchange under way."""
        self.counters.shared += 1
        # The same query from another host while ours is under way may be our own, coming back through a loop.
        if all(each.host != waiting.host for each in under_way.waiting):
            self._loops.suspect(self._upstreams.all())
        under_way.waiting.append(waiting)

    def _done(self, key: bytes, reply: UpstreamReply | None) -> None:
        """End an exchange: cache the response and send it to every waiting client.

        `reply` is None if no upstream answered.
        """
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
            with bulkhead.contain("a forwarded response"):
                # A truncated response is of no use to a client that has come over TCP already.
                if good is None or (good.truncated and each.tcp):
                    each.send(self._instead(each.query, key, now, reply, tcp=each.tcp))
                else:
                    each.send(write_response(each.query, good, 0, tcp=each.tcp))

    def _answer_stale(self, key: bytes) -> None:
        """Give the waiting clients a stale response; the exchange goes on, and its response serves the next clients."""
        under_way = self._under_way[key]
        under_way.overdue = True
        waiting, under_way.waiting = under_way.waiting, []
        now = asyncio.get_running_loop().time()
        for each in waiting:
            self._shares.give(each.host)
            with bulkhead.contain("a stale response"):
                each.send(self._instead(each.query, key, now, None, tcp=each.tcp))

    def _instead(self, query: DnsQuery, key: bytes, now: float, reply: UpstreamReply | None, *, tcp: bool) -> bytes:
        """Build the response when there is no good one: a stale response, else the upstreams' error, else SERVFAIL."""
        known = self._cache.stale(key, now)
        if known is not None:
            self.counters.stale += 1
            return write_response(query, stale_reply(known), 0, tcp=tcp, error=STALE_ANSWER)
        if reply is None or reply.truncated:
            reply = UpstreamReply(Rcode.SERVFAIL)
        return write_response(query, reply, 0, tcp=tcp, error=NO_REACHABLE_AUTHORITY)
