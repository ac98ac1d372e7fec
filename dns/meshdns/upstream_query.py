"""One query under way to upstreams: decides when to ask which upstream, and which response counts.

A client gives up after 5 s, so a query ends before that. The first upstream gets a short time for itself; then the next
one is asked as well, and so on. Each is listened to until the end, and the first good response wins, however late. A
lost packet or a dead server therefore costs the time of one try and not that of a timeout. If an upstream answers
SERVFAIL or REFUSED or cannot be reached, the next one is asked at once. Such an error is final if all upstreams return
one, and for a single upstream if it returns one twice. NXDOMAIN is an answer, not an error.

Some servers and firewalls drop queries with EDNS, and others do not repeat the case of a question. Such an upstream is
asked again in a form that it understands within the same query, and from then on for a while. A response whose question
differs in case alone may be forged, so the question is then repeated over TCP; only an upstream without TCP is asked in
lower case over UDP, from another port and with another ID.

The code uses callbacks and not tasks, which would add to the cost of every forwarded query.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from meshdns import bulkhead
from meshdns.authoritative import Rcode
from meshdns.message import (
    UpstreamReply,
    build_upstream_query,
    is_in_other_case,
    parse_matching_reply,
    parse_reply,
)
from meshdns.rebinding import AnswerFilter
from meshdns.upstreams import Address, Upstream

FORGERY_SUSPECTED = b""
"""Passed to `heard` in place of a packet: too many unwanted replies came, and no more are listened to."""

_NOISE_BYTES = 8192

FAILURE_RCODES = frozenset((Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED))
"""Response codes that do not answer the question; another upstream may do better."""


@dataclass(frozen=True, slots=True)
class HedgingDelays:
    """When the tries of a query begin, in seconds."""

    first: float = 0.4
    """How long the first upstream has for itself."""
    next: float = 1.0
    """How long each further one has before the next is asked."""
    tries: int = 4
    """Maximum tries; more if there are more upstreams."""
    budget: float = 4.5
    """How long all tries take together."""

    def start(self, number: int) -> float:
        """Return when a try begins, counted from the beginning of the first; tries are numbered from 0.

        A try begins earlier if one before it fails.
        """
        return 0.0 if number == 0 else self.first + (number - 1) * self.next


class QueryNetwork(Protocol):
    """The network as a query needs it: `upstream_sockets.UpstreamSockets`, except in tests."""

    def ask(self, address: Address, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        """Send a query without its ID over UDP.

        Each packet that comes back with its ID is passed to `heard`, until `heard` returns True. `heard` gets None if
        the upstream cannot be reached, and `FORGERY_SUSPECTED` if too many unwanted replies came. Returns a function
        that ends the waiting. Raises OSError.
        """
        ...

    def ask_tcp(self, address: Address, question: bytes, heard: Callable[[bytes | None], None]) -> Callable[[], None]:
        """Send a query without its ID over TCP; `heard` gets the response, or None if there was none.

        Returns a function that ends the waiting.
        """
        ...


@dataclass(slots=True, eq=False)
class _QueryAttempt:
    """One try: one upstream that was asked at one time."""

    upstream: Upstream
    began: float
    """When it began, in seconds of the event loop's clock."""
    edns: bool = True
    """Whether the query has an OPT record."""
    without: bool = False
    """Whether it has none to find out whether the upstream answers then."""
    sure: bool = False
    """Whether an answer then proves that the upstream does not answer queries with one."""
    doubted: bool = False
    """Whether a response in another case came, so that the question is repeated in a way that is hard to forge."""
    ended: bool = False
    """Whether its outcome is known."""
    cancel: Callable[[], None] | None = None
    """Ends the waiting for a response; None if nothing is waited for."""


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """Which responses count, beside those that answer the question."""

    refuse: AnswerFilter | None = None
    """Recognises addresses that upstreams must not answer with; None: there are none."""
    completes: Callable[[UpstreamReply, bytes], bool] | None = None
    """Returns whether a response to a query, given by its cache key, leads to an own name, so that an error of the
    upstream behind it does not count; None: none does.
    """


_NO_RULES = ReplyRules()
_EDNS_REJECTED = frozenset((Rcode.FORMERR, Rcode.NOTIMP, Rcode.BADVERS))
"""Response codes of servers that do not know EDNS (RFC 6891, section 7)."""


class _RandomNoise:
    """Yields unpredictable bytes, made many at a time."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return random bytes that were not returned before."""
        at = self._at
        end = self._at = at + size
        if end > len(self._data):
            self._data = secrets.token_bytes(_NOISE_BYTES)
            at, self._at = 0, size
            end = size
        return self._data[at:end]


_noise = _RandomNoise()


def _call_both(first: Callable[[], None], second: Callable[[], None]) -> None:
    first()
    second()


class FirstTryTimer:
    """Wakes queries whose first upstream has had its time, with one timer for all of them.

    All wait for equally long, so the next one to wake is the first in the queue. Nearly all end before that.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._queue: deque[UpstreamQuery] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop. It is looked up once: each look-up is a system call, getpid(2), as Python 3.11 makes it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def add(self, query: "UpstreamQuery") -> None:
        """Wake a query that has just begun, unless it ends before."""
        queue = self._queue
        while queue and not queue[0].waits_for_first:
            queue.popleft()
        queue.append(query)
        if self._timer is None:
            self._set(query)

    def close(self) -> None:
        """Wake no more queries."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, query: "UpstreamQuery") -> None:
        wake = bulkhead.callback(self._wake, "queries whose first upstream is silent")
        self._timer = self.loop.call_at(query.began + self._seconds, wake)

    def _wake(self) -> None:
        # A timer of the event loop may fire a little early.
        due = self.loop.time() - self._seconds + 1e-6
        queue = self._queue
        try:
            while queue and (not queue[0].waits_for_first or queue[0].began <= due):
                query = queue.popleft()
                if query.waits_for_first:
                    query.wake()
        finally:
            # Also after a query that raised: the others, and those to come, wait for this timer.
            self._timer = None
            if queue:
                self._set(queue[0])


class UpstreamQuery:
    """Asks upstreams one query until there is a result.

    `start` begins it. `done` is called once, with the key and the response, or None if no upstream answered in time.
    `key` is the cache key of the query (`message.cache_key`), and `upstreams` is not empty. `timer` wakes it after
    `patience.first` seconds; None: it has a timer of its own.
    """

    # 14 attributes and 7 parameters: one is made for each forwarded query, so its parts are not wrapped in objects.

    __slots__ = (
        "_done",
        "_last",
        "_loop",
        "_patience",
        "_question",
        "_rules",
        "_timer",
        "_timers",
        "_tries",
        "_upstreams",
        "_ways",
        "began",
        "key",
        "waits_for_first",
    )

    def __init__(  # noqa: PLR0917 (as `Forwarder` calls it, for each query)
        self,
        key: bytes,
        upstreams: Sequence[Upstream],
        ways: QueryNetwork,
        patience: HedgingDelays,
        done: Callable[[bytes, UpstreamReply | None], None],
        rules: ReplyRules = _NO_RULES,
        timers: FirstTryTimer | None = None,
    ) -> None:
        self.key = key
        self._question = key[1:]
        self._upstreams = upstreams
        self._ways = ways
        self._patience = patience
        self._done: Callable[[bytes, UpstreamReply | None], None] | None = done
        self._rules = rules
        self._loop = asyncio.get_running_loop() if timers is None else timers.loop
        self.began = self._loop.time()
        """When it began, in seconds of the event loop's clock."""
        self._tries: list[_QueryAttempt] = []
        self._last: UpstreamReply | None = None
        """The response if no better one arrives: an error, or a truncated one. None for none."""
        self._timer: asyncio.TimerHandle | None = None
        self._timers = timers
        self.waits_for_first = False
        """Whether it waits for `timers`."""

    def start(self) -> None:
        """Ask the first upstream. It nearly always answers, so this has to be cheap."""
        upstream = self._upstreams[0]
        here = _QueryAttempt(upstream, self.began)
        if upstream.doubtful:
            self._adapt(here)
        self._tries.append(here)
        self._send(here, edns=here.edns)
        # An upstream that was silent before gets another chance, but the client must not wait for it alone.
        if upstream.failures and upstream.on_trial(self.began) and len(self._upstreams) > 1:
            self._try_next()
        elif self._done is not None:
            if self._timers is None:
                self._timer = self._loop.call_at(self.began + self._patience.first, self._try_in_time)
            else:
                self.waits_for_first = True
                self._timers.add(self)

    @property
    def _most(self) -> int:
        """Maximum tries."""
        return max(self._patience.tries, len(self._upstreams))

    def wake(self) -> None:
        """Go on, because the first upstream has had its time."""
        self.waits_for_first = False
        self._try_in_time()

    def close(self) -> None:
        """End the query without calling `done`."""
        self._done = None
        self._end()

    # ------------------------------------------------------------------------------------------------- the tries

    def _try_in_time(self) -> None:
        with bulkhead.contain("a query to upstreams") as tried:
            self._try_next()
        if tried.failed:
            self._finish(None)

    def _try_next(self) -> None:
        """Ask the next upstream, or end the query if its time is over."""
        now = self._loop.time()
        if self._done is None:
            return
        # A timer of the event loop may fire a little early.
        if now - self.began >= self._patience.budget - 1e-6:
            for silent in {each.upstream: each for each in self._tries if not each.ended}.values():
                self._fell_silent(silent, now)
            self._finish(self._last)
        elif len(self._tries) < self._most:
            here = _QueryAttempt(self._upstreams[len(self._tries) % len(self._upstreams)], now)
            self._adapt(here)
            self._tries.append(here)
            self._send(here, edns=here.edns)
            self._set_timer()
        else:
            self._set_timer()

    def _adapt(self, here: _QueryAttempt) -> None:
        """Decide whether a try has an OPT record.

        After silence, every other query to an upstream goes without, unless it is known to answer those with EDNS.
        """
        upstream = here.upstream
        if not upstream.takes_edns(here.began):
            here.edns = False
        elif not upstream.edns_works:
            silent = [each for each in self._tries if each.upstream is upstream and not each.ended]
            here.without = silent[-1].edns if silent else upstream.edns_suspected
            here.sure = bool(silent)
            here.edns = not here.without

    def _set_timer(self) -> None:
        """Set the timer to when the next try begins, or to the end of the query."""
        if self._done is None:
            return
        self.waits_for_first = False
        if self._timer is not None:
            self._timer.cancel()
        number, end = len(self._tries), self.began + self._patience.budget
        at = min(end, self.began + self._patience.start(number)) if number < self._most else end
        self._timer = self._loop.call_at(max(at, self._loop.time()), self._try_in_time)

    def _send(self, here: _QueryAttempt, *, edns: bool, lower: bool = False) -> None:
        """Send a query of one try over UDP, in random case unless `lower` is set or the upstream does not keep it."""
        key, upstream = self.key, here.upstream
        if lower or (upstream.lower_until and not upstream.keeps_case(self._loop.time())):
            lower, noise = True, b""
        else:
            noise = _noise.take(len(key) - 1)
        packet = build_upstream_query(key, edns=edns, noise=noise)
        # Behind the rest of the header: 10 bytes without the ID.
        sent = packet[10 : 9 + len(key)]
        heard = partial(self._heard, here, sent, edns, lower)
        before = here.cancel
        try:
            cancel = self._ways.ask(upstream.address, packet, heard)
        except OSError:
            # Not at once: `_unreachable` may call `done` before the caller has returned from `start`.
            self._loop.call_soon(bulkhead.callback(self._unreachable, "an unreachable upstream"), here)
            return
        here.cancel = cancel if before is None else partial(_call_both, before, cancel)

    def _heard(self, here: _QueryAttempt, sent: bytes, edns: bool, lower: bool, packet: bytes | None) -> bool:
        """Process a packet for the question `sent`; returns whether it was waited for.

        `packet` is None if the upstream cannot be reached, and `FORGERY_SUSPECTED` if no more is listened to.
        """
        if not packet:
            if packet is None:
                self._unreachable(here)
            else:
                self._over_tcp(here, None)
            return True
        if packet[12 : 12 + len(sent)] == sent:
            reply = parse_matching_reply(packet, sent, self._rules.refuse)
        elif not lower and is_in_other_case(packet, sent):
            self._doubt(here, sent)
            return False
        else:
            reply = parse_reply(packet, self._question, self._rules.refuse)
        if reply is None:
            return False  # forged or malformed: the real response may still arrive
        if reply.truncated:
            self._over_tcp(here, reply)
        elif edns and reply.rcode in _EDNS_REJECTED:
            here.edns, here.without, here.sure = False, True, True
            here.cancel = None
            self._send(here, edns=False, lower=lower)
        else:
            upstream = here.upstream
            if upstream.doubtful or not upstream.edns_works:
                self._learn(here, reply, edns=edns, lower=lower)
            self._judge(here, reply)
        return True

    def _learn(self, here: _QueryAttempt, reply: UpstreamReply, *, edns: bool, lower: bool) -> None:
        """Remember in which form the upstream answers queries."""
        upstream, now = here.upstream, self._loop.time()
        if edns:
            upstream.accepted_edns()
        elif here.without and reply.rcode not in FAILURE_RCODES:
            upstream.answered_without_edns(now, sure=here.sure)
        if not lower:
            upstream.kept_case()
        elif here.doubted:
            upstream.changed_case(now, sure=False)

    def _doubt(self, here: _QueryAttempt, sent: bytes) -> None:
        """Repeat a question over TCP because a response in another case came; without TCP, in lower case over UDP."""
        if here.doubted or here.ended or self._done is None:
            return
        here.doubted = True

        def heard(packet: bytes | None) -> None:
            reply = None if packet is None else parse_reply(packet, self._question, self._rules.refuse)
            if self._done is None or here.ended:
                return
            if reply is None or packet is None or reply.truncated:
                self._send(here, edns=here.edns, lower=True)
                return
            if packet[12 : 12 + len(sent)] != sent:
                here.upstream.changed_case(self._loop.time(), sure=True)
            self._judge(here, reply)

        packet = build_upstream_query(self.key, edns=here.edns)
        packet = packet[:10] + sent + packet[10 + len(sent) :]
        before, cancel = here.cancel, self._ways.ask_tcp(here.upstream.address, packet, heard)
        here.cancel = cancel if before is None else partial(_call_both, before, cancel)

    def _over_tcp(self, here: _QueryAttempt, cut: UpstreamReply | None) -> None:
        """Repeat a try over TCP because its response over UDP was truncated, or too many forged ones came.

        `cut` is the truncated response, or None.
        """

        def heard(packet: bytes | None) -> None:
            reply = None if packet is None else parse_reply(packet, self._question, self._rules.refuse)
            if reply is not None and not reply.truncated:
                self._judge(here, reply)
                return
            if cut is not None and (self._last is None or not self._last.truncated):
                self._last = cut  # better than an error: the client itself can ask again over TCP
            self._unreachable(here)

        question = build_upstream_query(self.key, edns=here.edns)
        here.cancel = self._ways.ask_tcp(here.upstream.address, question, heard)

    # ----------------------------------------------------------------------------------------------- the outcome

    def _judge(self, here: _QueryAttempt, reply: UpstreamReply) -> None:
        """Accept a response, or take it for an error and go on."""
        if self._done is None or here.ended:
            return
        cancel = here.cancel
        here.ended, here.cancel = True, None
        if here.doubted and cancel is not None:
            cancel()  # the question went out more than once
        here.upstream.answered()
        if reply.rcode not in FAILURE_RCODES or self._leads_on(reply):
            if len(self._tries) > 1:
                self._overtake(here)
            self._finish(reply)
            return
        if self._last is None:
            self._last = reply
        self._next_after_failure()

    def _leads_on(self, reply: UpstreamReply) -> bool:
        """Return whether an error comes behind CNAME records that lead to an own name."""
        completes = self._rules.completes
        return bool(reply.aliases) and completes is not None and completes(reply, self.key)

    def _overtake(self, here: _QueryAttempt) -> None:
        """Count a failure for each upstream that was asked before this one and is still silent."""
        slow = {each.upstream: each for each in self._tries if not each.ended and each.began < here.began}
        slow.pop(here.upstream, None)
        for each in slow.values():
            self._fell_silent(each, self._loop.time())

    def _fell_silent(self, silent: _QueryAttempt, now: float) -> None:
        """Count a failure for an upstream that did not answer in time."""
        silent.upstream.failed(now)
        if silent.edns:
            silent.upstream.suspect_edns()

    def _unreachable(self, here: _QueryAttempt) -> None:
        """End a try whose upstream cannot be reached."""
        if self._done is None or here.ended:
            return
        here.ended = True
        here.upstream.failed(self._loop.time())
        self._next_after_failure()

    def _next_after_failure(self) -> None:
        """Ask an upstream that was not asked yet at once; ask the same upstreams again only when the timer fires."""
        failures = sum(each.ended for each in self._tries)
        if len(self._tries) < len(self._upstreams):
            self._try_next()
        elif failures >= self._most or (self._last is not None and failures >= max(2, len(self._upstreams))):
            self._finish(self._last)

    def _finish(self, reply: UpstreamReply | None) -> None:
        """End the query and call `done`."""
        done, self._done = self._done, None
        self._end()
        if done is not None:
            done(self.key, reply)

    def _end(self) -> None:
        """Cancel the timer and all tries."""
        self.waits_for_first = False
        if self._timer is not None:
            self._timer.cancel()
        for each in self._tries:
            if each.cancel is not None:
                each.cancel()
                each.cancel = None  # it refers back to this try: leave no cycle for the garbage collector
        self._tries = []
