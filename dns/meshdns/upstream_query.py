"""One question under way to the upstreams: when who is asked, and which answer counts.

A client gives up after 5 s, so all ends before. The first upstream gets a short time for itself; then the next one is
asked as well, and so on, each listened to until the end: the first good answer wins, however late. A lost packet or a
dead server costs the time of the first try, not that of a timeout. An upstream that says SERVFAIL or REFUSED, or is not
there, makes room for the next at once; it is believed when all say so, and a lone upstream when it says so twice.
NXDOMAIN is an answer.

Callbacks and not tasks: a question that is forwarded costs as much as the loop takes for it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshdns.authoritative import Rcode
from meshdns.message import UpstreamReply, build_upstream_query, parse_reply
from meshdns.upstreams import Address, Upstream

FAILURE_RCODES = frozenset((Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED))
"""What is no answer to the question."""


@dataclass(frozen=True, slots=True)
class HedgingDelays:
    """When the tries begin, in seconds."""

    first: float = 0.4
    """That the first upstream has for itself."""
    next: float = 1.0
    """That each further one has."""
    tries: int = 4
    """At most, if there are fewer upstreams."""
    budget: float = 4.5
    """For all together."""

    def start(self, number: int) -> float:
        """When a try begins, counted from 0 and from the first, unless an earlier one fails before."""
        return 0.0 if number == 0 else self.first + (number - 1) * self.next


class QueryNetwork(Protocol):
    """The network, as far as an exchange needs it: `lines`."""

    def ask(self, address: Address, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        """As `Lines.ask`."""
        ...

    def ask_tcp(self, address: Address, question: bytes, heard: Callable[[bytes | None], None]) -> Callable[[], None]:
        """As `Lines.ask_tcp`."""
        ...


@dataclass(slots=True, eq=False)
class _QueryAttempt:
    upstream: Upstream
    began: float
    edns: bool = True
    ended: bool = False
    cancel: Callable[[], None] | None = None


class UpstreamQuery:
    """Starts at once; `done` is called once with the key, and with None if nobody has said anything in time."""

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
        self._tries: list[_QueryAttempt] = []
        self._last: UpstreamReply | None = None
        """What is said if nothing better comes."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ask the first upstream. Nearly always that is all: it has to be cheap."""
        upstream = self._upstreams[0]
        here = _QueryAttempt(upstream, self._began)
        self._tries.append(here)
        self._send(here)
        if upstream.failures and upstream.on_trial(self._began) and len(self._upstreams) > 1:
            self._try_next()
        elif self._done is not None:
            self._timer = self._loop.call_at(self._began + self._patience.first, self._try_next)

    def close(self) -> None:
        """End it; `done` is not called."""
        self._done = None
        self._end()

    # ------------------------------------------------------------------------------------------------- the tries

    def _try_next(self) -> None:
        now = self._loop.time()
        if self._done is None:
            return
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
        if self._done is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        number, end = len(self._tries), self._began + self._patience.budget
        at = min(end, self._began + self._patience.start(number)) if number < self._most else end
        self._timer = self._loop.call_at(max(at, self._loop.time()), self._try_next)

    def _send(self, here: _QueryAttempt) -> None:
        question = build_upstream_query(self.key, edns=here.edns)
        try:
            here.cancel = self._ways.ask(here.upstream.address, question, lambda packet: self._heard(here, packet))
        except OSError:
            self._loop.call_soon(self._unreachable, here)

    def _heard(self, here: _QueryAttempt, packet: bytes | None) -> bool:
        if packet is None:
            self._unreachable(here)
            return True
        reply = parse_reply(packet, self._question)
        if reply is None:
            return False  # forged, or garbled: the true one may still come
        if reply.truncated:
            self._over_tcp(here, reply)
        elif reply.rcode in (Rcode.FORMERR, Rcode.NOTIMP) and here.edns:
            here.edns = False  # an old server that takes EDNS for an error: RFC 6891, section 7
            self._send(here)
        else:
            self._judge(here, reply)
        return True

    def _over_tcp(self, here: _QueryAttempt, cut: UpstreamReply) -> None:
        def heard(packet: bytes | None) -> None:
            reply = None if packet is None else parse_reply(packet, self._question)
            if reply is not None and not reply.truncated:
                self._judge(here, reply)
                return
            if self._last is None or not self._last.truncated:
                self._last = cut  # a client that hears no more than that there is more can try by itself
            self._unreachable(here)

        question = build_upstream_query(self.key, edns=here.edns)
        here.cancel = self._ways.ask_tcp(here.upstream.address, question, heard)

    # ----------------------------------------------------------------------------------------------- the outcome

    def _judge(self, here: _QueryAttempt, reply: UpstreamReply) -> None:
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
        """Those who were asked before and are still silent are slow."""
        slow = {each.upstream for each in self._tries if not each.ended and each.began < here.began}
        for upstream in slow - {here.upstream}:
            upstream.failed(self._loop.time())

    def _unreachable(self, here: _QueryAttempt) -> None:
        if self._done is None or here.ended:
            return
        here.ended = True
        here.upstream.failed(self._loop.time())
        self._next_after_failure()

    def _next_after_failure(self) -> None:
        """Ask one that was not asked yet at once; ask the same ones again only when it is time."""
        failures = sum(each.ended for each in self._tries)
        if len(self._tries) < len(self._upstreams):
            self._try_next()
        elif failures >= self._most or (self._last is not None and failures >= max(2, len(self._upstreams))):
            self._finish(self._last)

    def _finish(self, reply: UpstreamReply | None) -> None:
        done, self._done = self._done, None
        self._end()
        if done is not None:
            done(self.key, reply)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for each in self._tries:
            if each.cancel is not None:
                each.cancel()
                each.cancel = None  # which knows this try: no work for the garbage collector
        self._tries = []
