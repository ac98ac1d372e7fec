"""Upstreams that lead back to us.

One that is our own address is found by looking. One that forwards to us, by itself or by way of others, is found by
asking it for a name that nobody else can know: if somebody asks us for that name, the loop is closed, and the upstream
is left alone until such a question does not come back any more. All upstreams are asked with the first question that is
forwarded and when they change, and again when a question comes from elsewhere while it is under way: that is what a
loop looks like.
"""

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence

from meshdns.log_codes import LogCode
from meshdns.message import build_upstream_query
from meshdns.upstream_query import QueryNetwork
from meshdns.upstreams import Address, Upstream

log = logging.getLogger("vipmesh")

LOOP_TIMEOUT = 3.0
"""Seconds in which a question comes back if it does."""
CHECK_INTERVAL = 30.0
"""Seconds between two looks at the same loop, or two suspicions."""

_HINFO_IN = b"\0\x0d\0\1"
"""What nobody asks for in earnest."""
_RD = 1


class LoopDetector:
    """Asks, and recognises what comes back."""

    def __init__(self, ways: QueryNetwork) -> None:
        self._ways = ways
        self._sent: dict[bytes, Upstream] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._quiet_until = 0.0

    def look(self, upstreams: Iterable[Upstream]) -> None:
        """Find out about these."""
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
                cancel = _nothing
            self._later(LOOP_TIMEOUT, lambda name=name, cancel=cancel: self._settle(name, cancel))  # type: ignore[misc]

    def suspect(self, upstreams: Iterable[Upstream]) -> None:
        """A question came that is under way already: look, but not all the time."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + CHECK_INTERVAL
            self.look(upstreams)

    def recognise(self, name: bytes) -> bool:
        """Whether a lower-case wire name that we are asked for is one that we asked for to find a loop."""
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
        """Look no more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._sent.clear()

    def _settle(self, name: bytes, cancel: Callable[[], None]) -> None:
        cancel()
        upstream = self._sent.pop(name, None)
        if upstream is not None and upstream.looping:
            log.info("dns: upstream %s does not lead back here any more", upstream)
            upstream.looping = False

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        def work() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, work)
        self._timers.add(timer)


def own_address_matcher(listen: Sequence[Address]) -> Callable[[Address], bool]:
    """Whether who asks an address asks the server that listens on these."""
    own = {(_plain(host), port) for host, port in listen}
    wildcards = {(ipaddress.ip_address(host).version, port) for host, port in listen if host in ("0.0.0.0", "::")}

    def is_own(address: Address) -> bool:
        host, port = _plain(address[0]), address[1]
        if (host, port) in own:
            return True
        return (ipaddress.ip_address(host).version, port) in wildcards and _is_local(host)

    return is_own


def _plain(host: str) -> str:
    """Without interface; a connection to "any address" is one to loopback: ip(7)."""
    host = host.partition("%")[0]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _is_local(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.bind((host, 0))
    except OSError:
        return False
    return True


def _nothing() -> None:
    return None
