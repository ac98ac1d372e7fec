"""Detects upstreams that forward queries back to this server.

An upstream that is one of our own addresses is found by comparing addresses. An upstream that forwards to us, directly
or through others, is found by sending it a random name that is known nowhere else: if a query for that name arrives
here, there is a loop, and the upstream is not used until such a query no longer comes back. All upstreams are probed
with the first forwarded query and when they change. They are probed again when a query arrives from elsewhere while the
same query is under way, since that is how a loop shows.
"""

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from meshdns import bulkhead
from meshdns.log_codes import LogCode
from meshdns.message import build_upstream_query
from meshdns.upstream_query import QueryNetwork
from meshdns.upstreams import Address, Upstream

log = logging.getLogger("vipmesh")

LOOP_TIMEOUT = 3.0
"""Seconds within which a probe must come back to prove a loop."""
CHECK_INTERVAL = 30.0
"""Seconds between two probes of the same loop, and between two rounds of probes on suspicion."""

_HINFO_IN = b"\0\x0d\0\1"
"""Type HINFO and class IN: a type that clients do not ask for."""
_RD = 1


class LoopDetector:
    """Probes upstreams for loops and recognises the probes that come back."""

    def __init__(self, ways: QueryNetwork) -> None:
        self._ways = ways
        self._sent: dict[bytes, Upstream] = {}
        """The upstream that each outstanding probe was sent to, by the probe's wire name."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._quiet_until = 0.0
        """The loop time in seconds before which no suspicion leads to probes."""

    def look(self, upstreams: Iterable[Upstream]) -> None:
        """Probe these upstreams, each with a name below the domain that it is asked about."""
        for upstream in upstreams:
            name = b"".join(b"\x10" + secrets.token_hex(8).encode() for _ in range(2)) + upstream.domain
            if len(name) > 255:
                continue  # there is no room for a name below this domain
            self._sent[name] = upstream
            try:
                cancel = self._ways.ask(
                    upstream.address, build_upstream_query(bytes((_RD,)) + name + _HINFO_IN), lambda _: True
                )
            except OSError:
                # The upstream cannot be reached now; a probe that cannot leave proves nothing, and is dropped after
                # `LOOP_TIMEOUT`.
                cancel = _nothing
            self._later(LOOP_TIMEOUT, partial(self._settle, name, cancel))

    def suspect(self, upstreams: Iterable[Upstream]) -> None:
        """Probe these upstreams because a query looks like a loop, at most once in `CHECK_INTERVAL` seconds."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + CHECK_INTERVAL
            self.look(upstreams)

    def recognise(self, name: bytes) -> bool:
        """Return whether a lower-case wire name belongs to one of our probes; if so, mark its upstream as looping."""
        upstream = self._sent.pop(name, None) if self._sent else None
        if upstream is None:
            return False
        if not upstream.looping:
            log.error(
                "dns: upstream %s asks us what we ask it: a loop; it is left alone. "
                "Set [dns] upstream to servers that do not forward to this one",
                upstream,
                extra=LogCode.UPSTREAM_LOOP.extra,
            )
        upstream.looping = True
        self._later(CHECK_INTERVAL, lambda: self.look([upstream]))
        return True

    def close(self) -> None:
        """Stop probing."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._sent.clear()

    def _settle(self, name: bytes, cancel: Callable[[], None]) -> None:
        """End a probe: if it has not come back, its upstream does not loop (any more)."""
        cancel()
        upstream = self._sent.pop(name, None)
        if upstream is not None and upstream.looping:
            log.info("dns: upstream %s does not lead back here any more", upstream)
            upstream.looping = False

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        """Call a function after some seconds, unless `close` is called before."""

        def work() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, bulkhead.callback(work, "loop detection"))
        self._timers.add(timer)


def own_address_matcher(listen: Sequence[Address]) -> Callable[[Address], bool]:
    """Return a function that says whether an address reaches the server that listens on these addresses."""
    own = {(_plain(host), port) for host, port in listen}
    wildcards = {(ipaddress.ip_address(host).version, port) for host, port in listen if host in ("0.0.0.0", "::")}

    def is_own(address: Address) -> bool:
        host, port = _plain(address[0]), address[1]
        if (host, port) in own:
            return True
        return (ipaddress.ip_address(host).version, port) in wildcards and _is_local(host)

    return is_own


def _plain(host: str) -> str:
    """Strip the interface from an address, and map "any address" to loopback, where connecting to it leads (ip(7))."""
    host = host.partition("%")[0]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _is_local(host: str) -> bool:
    """Return whether this host has an address. Binding a socket is the cheapest way to find out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind((host, 0))
    except OSError:
        return False
    return True


def _nothing() -> None:
    return None
