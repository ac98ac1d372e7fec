"""One query under way to upstreams: decides when to ask which upstream, and which response counts.

A client gives up after 5 s, so a query ends before that. The first upstream gets a short time for itself; then the next
one is asked as well, and so on. Each is listened to until the end, and the first good response wins, however late. A
lost packet or a dead server therefore costs the time of one try and not that of a timeout. If an upstream answers
SERVFAIL or REFUSED or cannot be reached, the next one is asked at once. Such an error is final if all upstreams return
one, and for a single upstream if it returns one twice. NXDOMAIN is an answer, not an error.

The code uses callbacks and not tasks, which would add to the cost of every forwarded query.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshdns import bulkhead
from meshdns.authoritative import Rcode
from meshdns.message import UpstreamReply, build_upstream_query, parse_reply
from meshdns.upstreams import Address, Upstream

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
        the upstream cannot be reached. Returns a function that ends the waiting. Raises OSError.
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
    ended: bool = False
    """Whether its outcome is known."""
    cancel: Callable[[], None] | None = None
    """Ends the waiting for a response; None if nothing is waited for."""


class UpstreamQuery:
    """Asks upstreams one query until there is a result.

    `start` begins it. `done` is called once, with the key and the response, or None if no upstream answered in time.
    `key` is the cache key of the query (`message.cache_key`), and `upstreams` is not empty.
    """

    __slots__ = (
        "_began",
        "_done",
        "_last",
        "_loop",
        "_most",
        "_patience",
        "_question",
        "_timer",
        "_tries",
        "_upstreams",
        "_ways",
        "key",
    )

    def __init__(
        self,
        key: bytes,
        upstreams: Sequence[Upstream],
        ways: QueryNetwork,
        patience: HedgingDelays,
        done: Callable[[bytes, UpstreamReply | None], None],
    ) -> None:
        self.key = key
        self._question = key[1:]
        self._upstreams = upstreams
        self._ways = ways
        self._patience = patience
        self._done: Callable[[bytes, UpstreamReply | None], None] | None = done
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._most = max(patience.tries, len(upstreams))
        """Maximum tries."""
        self._tries: list[_QueryAttempt] = []
        self._last: UpstreamReply | None = None
        """The response if no better one arrives: an error, or a truncated one. None for none."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ask the first upstream. It nearly always answers, so this has to be cheap."""
        upstream = self._upstreams[0]
        here = _QueryAttempt(upstream, self._began)
        self._tries.append(here)
        self._send(here)
        # An upstream that was silent before gets another chance, but the client must not wait for it alone.
        if upstream.failures and upstream.on_trial(self._began) and len(self._upstreams) > 1:
            self._try_next()
        elif self._done is not None:
            self._timer = self._loop.call_at(self._began + self._patience.first, self._try_in_time)

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
        if now - self._began >= self._patience.budget - 1e-6:
            for silent in {each.upstream for each in self._tries if not each.ended}:
                silent.failed(now)
            self._finish(self._last)
        elif len(self._tries) < self._most:
            upstream = self._upstreams[len(self._tries) % len(self._upstreams)]
            here = _QueryAttempt(upstream, now)
            self._tries.append(here)
            self._send(here)
            self._set_timer()
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer to when the next try begins, or to the end of the query."""
        if self._done is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        number, end = len(self._tries), self._began + self._patience.budget
        at = min(end, self._began + self._patience.start(number)) if number < self._most else end
        self._timer = self._loop.call_at(max(at, self._loop.time()), self._try_in_time)

    def _send(self, here: _QueryAttempt) -> None:
        """Send the query of one try over UDP."""
        question = build_upstream_query(self.key, edns=here.edns)
        try:
            here.cancel = self._ways.ask(here.upstream.address, question, lambda packet: self._heard(here, packet))
        except OSError:
            # Not at once: `_unreachable` may call `done` before the caller has returned from `start`.
            self._loop.call_soon(bulkhead.callback(self._unreachable, "an unreachable upstream"), here)

    def _heard(self, here: _QueryAttempt, packet: bytes | None) -> bool:
        """Process a packet for one try; returns whether the try is over.

        `packet` is None if the upstream cannot be reached.
        """
        if packet is None:
            self._unreachable(here)
            return True
        reply = parse_reply(packet, self._question)
        if reply is None:
            return False  # forged or malformed: the real response may still arrive
        if reply.truncated:
            self._over_tcp(here, reply)
        elif reply.rcode in (Rcode.FORMERR, Rcode.NOTIMP) and here.edns:
            here.edns = False  # an old server that rejects EDNS (RFC 6891, section 7): ask again without it
            self._send(here)
        else:
            self._judge(here, reply)
        return True

    def _over_tcp(self, here: _QueryAttempt, cut: UpstreamReply) -> None:
        """Repeat a try over TCP because its response over UDP was truncated."""

        def heard(packet: bytes | None) -> None:
            reply = None if packet is None else parse_reply(packet, self._question)
            if reply is not None and not reply.truncated:
                self._judge(here, reply)
                return
            if self._last is None or not self._last.truncated:
                self._last = cut  # better than an error: the client itself can ask again over TCP
            self._unreachable(here)

        question = build_upstream_query(self.key, edns=here.edns)
        here.cancel = self._ways.ask_tcp(here.upstream.address, question, heard)

    # ----------------------------------------------------------------------------------------------- the outcome

    def _judge(self, here: _QueryAttempt, reply: UpstreamReply) -> None:
        """Accept a response, or take it for an error and go on."""
        if self._done is None or here.ended:
            return
        here.ended, here.cancel = True, None
        here.upstream.answered()
        if reply.rcode not in FAILURE_RCODES:
            if len(self._tries) > 1:
                self._overtake(here)
            self._finish(reply)
            return
        if self._last is None:
            self._last = reply
        self._next_after_failure()

    def _overtake(self, here: _QueryAttempt) -> None:
        """Count a failure for each upstream that was asked before this one and is still silent."""
        slow = {each.upstream for each in self._tries if not each.ended and each.began < here.began}
        for upstream in slow - {here.upstream}:
            upstream.failed(self._loop.time())

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
        if self._timer is not None:
            self._timer.cancel()
        for each in self._tries:
            if each.cancel is not None:
                each.cancel()
                each.cancel = None  # it refers back to this try: leave no cycle for the garbage collector
        self._tries = []
