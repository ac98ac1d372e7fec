"""Answers queries for names that are not own: from the cache, or by asking upstreams on behalf of the client.

A query is sent upstream in our own form, with an ID and source port of ours, so that all clients that ask the same
share one exchange and one response. Responses are cached. If no upstream answers, a stale response is better than none
(RFC 8767). The number of outstanding queries is bounded, in total and per client: beyond the bound, clients get
SERVFAIL at once, and own names are answered as before.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshdns import bulkhead
from meshdns.acl import ClientQuota, Network
from meshdns.authoritative import DnsQuery, Rcode
from meshdns.cache import ForwardCache
from meshdns.forward_fastpath import FastpathCache
from meshdns.log_codes import LogCode
from meshdns.loop_detection import LoopDetector, own_address_matcher
from meshdns.message import (
    BLOCKED_TTL,
    NO_REACHABLE_AUTHORITY,
    PROHIBITED,
    STALE_ANSWER,
    UpstreamReply,
    cache_key,
    leads_to_own_name,
    settle_reply,
    stale_reply,
    write_response,
)
from meshdns.rate_limit import ClientRate
from meshdns.rdata import RecordType, decode_name
from meshdns.rebinding import PRIVATE_NETWORKS, AnswerFilter
from meshdns.upstream_query import (
    FAILURE_RCODES,
    FirstTryTimer,
    HedgingDelays,
    QueryNetwork,
    ReplyRules,
    UpstreamQuery,
)
from meshdns.upstream_sockets import UpstreamSockets
from meshdns.upstreams import Address, Upstreams
from meshdns.zone import Zone

log = logging.getLogger("vipmesh")

MAX_OUTSTANDING = 1024
"""Maximum outstanding queries."""
CLIENT_SHARE = 4
"""One client may have at most 1/`CLIENT_SHARE` of the outstanding queries."""
STALE_AFTER = 1.8
"""Seconds after which a waiting client gets a stale response, if there is one (RFC 8767, section 5)."""

LOG_INTERVAL = 60.0
"""Minimum seconds between two warnings of the same kind about what upstreams send."""

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
    limited: int = 0
    """Queries refused because their client sent too many in a second."""
    unwanted: int = 0
    """Packets from upstreams that answer no query of ours: late, broken or forged ones."""
    blocked: int = 0
    """Responses refused because an upstream answered with an address that it must not answer with."""
    completed: int = 0
    """Responses of upstreams whose CNAME records led to own names."""


@dataclass(frozen=True, slots=True)
class ForwardLimits:
    """What clients may ask for, and what upstreams may answer."""

    outstanding: int = MAX_OUTSTANDING
    """Maximum outstanding queries."""
    share: int | None = None
    """Maximum outstanding queries of one client; None: 1/`CLIENT_SHARE` of `outstanding`."""
    rate: int = 0
    """Maximum queries per second of one client that are not answered from the cache; 0 for no limit."""
    refused: Sequence[Network] = ()
    """Networks whose addresses upstreams must not answer with, beside loopback: the VIP pools."""
    refuse_private: bool = False
    """Whether private addresses are refused as well, except from upstreams of a domain of their own."""


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
    `outstanding`. `limits` replaces both. `cache`, `patience` and `ways` default to the usual ones.
    """

    # 17 attributes: the parts of a forwarder, each of which is a class of its own.

    def __init__(
        self,
        upstreams: Upstreams | Sequence[Address] = (),
        *,
        cache: ForwardCache | None = None,
        patience: HedgingDelays | None = None,
        outstanding: int = MAX_OUTSTANDING,
        share: int | None = None,
        ways: UpstreamNetwork | None = None,
        limits: ForwardLimits | None = None,
    ) -> None:
        self._upstreams = upstreams if isinstance(upstreams, Upstreams) else Upstreams(upstreams)
        self._cache = ForwardCache() if cache is None else cache
        self._patience = patience or HedgingDelays()
        limits = limits or ForwardLimits(outstanding, share)
        self._shares = ClientQuota(limits.outstanding, limits.share or max(1, limits.outstanding // CLIENT_SHARE))
        self._rate = ClientRate(limits.rate)
        self._ways: UpstreamNetwork = ways or UpstreamSockets(self._count_unwanted)
        self._timer = FirstTryTimer(self._patience.first)
        self._zone: Zone | None = None
        always = ReplyRules(AnswerFilter(limits.refused), self._completes)
        private = (*limits.refused, *PRIVATE_NETWORKS) if limits.refuse_private else limits.refused
        self._rules = ReplyRules(AnswerFilter(private), self._completes), always
        """For upstreams of all names, and for those of a domain of their own."""
        self._quiet_until = dict.fromkeys(("forged", "blocked"), 0.0)
        """When the next warning of a kind may be logged."""
        self._loops = LoopDetector(self._ways)
        self._looked = True
        """Whether loops were probed for since `start`. True before `start`: without a name server around it there is no
        loop.
        """
        self._under_way: dict[bytes, _PendingQuery] = {}
        """Exchanges by cache key."""
        self.ready = FastpathCache(self._cache, self._write)
        """Responses that the UDP transport may look up by itself."""
        self.counters = ForwardCounters()

    def start(self, listen: Sequence[Address]) -> None:
        """Begin to forward for a name server that listens on these addresses; they are never used as upstreams."""
        self._upstreams.leave_out(own_address_matcher(listen))
        self._upstreams.look(self._timer.loop.time())
        self._looked = False

    def use_zone(self, zone: Zone) -> None:
        """Complete responses that lead to own names from this zone from now on."""
        self._zone = zone
        self.ready.forget()

    def ask(self, packet: bytes, query: DnsQuery, host: str, send: SendResponse, *, tcp: bool = False) -> bytes | None:
        """Return the response to a client's query if it is available now; else None, and `send` gets it within 4.5 s.

        The response is SERVFAIL if no upstream answers or a bound on outstanding queries is reached, and REFUSED if
        there is no upstream for the name.
        """
        if query.type == RecordType.ANY and not tcp:
            # ANY is only worth asking for over TCP, where the source address is not forged (RFC 8482, section 4.4).
            return write_response(query, UpstreamReply(Rcode.NOERROR, truncated=True), 0, tcp=False)
        now = self._timer.loop.time()
        key = cache_key(query)
        known = self._cache.fresh(key, now)
        if known is not None:
            return self._answer_cached(packet, query, key, known, tcp=tcp)
        if self._loops.recognise(query.name):
            return write_response(query, UpstreamReply(Rcode.REFUSED), 0, tcp=tcp, error=PROHIBITED)
        if not tcp:
            self.ready.learn(packet, query, key)
        return self._ask_upstreams(query, key, host, send, now, tcp=tcp)

    def _answer_cached(
        self, packet: bytes, query: DnsQuery, key: bytes, known: tuple[UpstreamReply, int], *, tcp: bool
    ) -> bytes:
        """Answer from the cache, and make the response ready for the next query."""
        self.counters.cached += 1
        said = self._write(query, *known, tcp=tcp)
        if not tcp:
            self.ready.keep(packet, query, key, said)
        return said

    def ask_again(self, packet: bytes, host: str, send: SendResponse) -> bytes | None:
        """Answer a query over UDP that is in `ready.foreign`; the result is that of `ask`.

        The ID of the response is that of an earlier query.
        """
        query, key = self.ready.foreign[packet[2:]]
        now = self._timer.loop.time()
        known = self._cache.fresh(key, now)
        if known is not None:
            return self._answer_cached(packet, query, key, known, tcp=False)
        if self._loops.recognise(query.name):
            return write_response(query, UpstreamReply(Rcode.REFUSED), 0, tcp=False, error=PROHIBITED)
        return self._ask_upstreams(query, key, host, send, now, tcp=False)

    def _ask_upstreams(
        self, query: DnsQuery, key: bytes, host: str, send: SendResponse, now: float, *, tcp: bool
    ) -> bytes | None:
        """Answer a query for which the cache has no response."""
        under_way = self._under_way.get(key)
        # Do not wait where waiting is known to be in vain: the upstreams failed a moment ago, or take too long now.
        in_vain = self._cache.failing(key, now) if under_way is None else under_way.overdue
        if in_vain:
            return self._instead(query, key, now, None, tcp=tcp)
        if not self._rate.allows(host, now):
            self.counters.limited += 1
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
        self._timer.close()
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
        rules = self._rules[upstreams[0].domain != b"\0"]
        exchange = UpstreamQuery(key, upstreams, self._ways, self._patience, self._done, rules, self._timer)
        under_way = self._under_way[key] = _PendingQuery(exchange, [waiting])
        if self._cache.stale(key, now) is not None:
            under_way.timer = self._timer.loop.call_later(
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
        now = self._timer.loop.time()
        if reply is not None and (reply.aliases or reply.blocked):
            reply = self._examine(key, reply, now)
        if reply is None or (reply.rcode in FAILURE_RCODES and not reply.aliases):
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
                    each.send(self._write(each.query, good, 0, tcp=each.tcp))

    def _answer_stale(self, key: bytes) -> None:
        """Give the waiting clients a stale response; the exchange goes on, and its response serves the next clients."""
        under_way = self._under_way[key]
        under_way.overdue = True
        waiting, under_way.waiting = under_way.waiting, []
        now = self._timer.loop.time()
        for each in waiting:
            self._shares.give(each.host)
            with bulkhead.contain("a stale response"):
                each.send(self._instead(each.query, key, now, None, tcp=each.tcp))

    def _instead(self, query: DnsQuery, key: bytes, now: float, reply: UpstreamReply | None, *, tcp: bool) -> bytes:
        """Build the response when there is no good one: a stale response, else the upstreams' error, else SERVFAIL."""
        known = self._cache.stale(key, now)
        if known is not None:
            self.counters.stale += 1
            return self._write(query, stale_reply(known), 0, tcp=tcp, error=STALE_ANSWER)
        if reply is None or reply.truncated:
            reply = UpstreamReply(Rcode.SERVFAIL)
        return write_response(query, reply, 0, tcp=tcp, error=NO_REACHABLE_AUTHORITY)

    # ---------------------------------------------------------------------- refused addresses, and own names

    def _write(
        self, query: DnsQuery, reply: UpstreamReply, elapsed: int, *, tcp: bool = False, error: int | None = None
    ) -> bytes:
        """Build the response for a client, completed from the zone if the upstream's leads to an own name."""
        if reply.aliases or reply.blocked:
            reply, elapsed = settle_reply(reply, query.type, self._zone, elapsed)
        return write_response(query, reply, elapsed, tcp=tcp, error=error)

    def _completes(self, reply: UpstreamReply, key: bytes) -> bool:
        """Return whether CNAME records of a response lead to an own name."""
        return self._zone is not None and leads_to_own_name(reply, _type_of(key), self._zone)

    def _examine(self, key: bytes, reply: UpstreamReply, now: float) -> UpstreamReply:
        """Set how long a response counts that leads to an own name or has a refused address, and count it.

        An error that leads to no own name loses its CNAME records: it is an error like any other.
        """
        if self._completes(reply, key):
            self.counters.completed += 1
            return reply._replace(lifetime=min(ttl for _, ttl in reply.aliases))
        if reply.blocked:
            self.counters.blocked += 1
            if self._may_log("blocked", now):
                log.warning(
                    "dns: an upstream answered %s with an address of this host, of the VIP pool or of a private "
                    "network; the client got REFUSED. If the name is yours, give its domain servers in [dns.forward]",
                    decode_name(key[1:-4]),
                    extra=LogCode.UPSTREAM_REBINDING.extra,
                )
            return reply._replace(lifetime=BLOCKED_TTL)
        return reply._replace(aliases=()) if reply.rcode in FAILURE_RCODES else reply

    def _count_unwanted(self, address: Address, given_up: bool) -> None:
        """Count a packet that answers no query of ours; `given_up` says that there were too many on one socket."""
        self.counters.unwanted += 1
        if given_up and self._may_log("forged", self._timer.loop.time()):
            log.warning(
                "dns: many replies from %s port %s answer no question and may be forged; the questions of that moment "
                "go over TCP. Look for forged packets on the way to this upstream",
                *address,
                extra=LogCode.UPSTREAM_FORGERY.extra,
            )

    def _may_log(self, kind: str, now: float) -> bool:
        """Return whether a warning of a kind may be logged now, and note that it is."""
        if now < self._quiet_until[kind]:
            return False
        self._quiet_until[kind] = now + LOG_INTERVAL
        return True


def _type_of(key: bytes) -> int:
    """Return the record type in a cache key."""
    return int.from_bytes(key[-4:-2], "big")
