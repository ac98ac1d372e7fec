"""Who is asked about which name, and who of them is likely to answer.

The longest domain that a name is in decides. Among the upstreams of a domain the order is the operator's, except that
one that has been silent several times in a row comes last for a while: then it gets a chance again. What looks at the
clock gets the time as an argument.
"""

import ipaddress
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from meshdns.log_codes import LogCode
from meshdns.rdata import encode_name, name_suffixes

log = logging.getLogger("vipmesh")

Address: TypeAlias = tuple[str, int]

FAILURES_BEFORE_PENALTY = 3
"""Failures in a row after which an upstream is set aside."""
PENALTY_SECONDS = 5.0
"""Seconds for which it is set aside at first; twice as many each time, up to `MAX_PENALTY_SECONDS`."""
MAX_PENALTY_SECONDS = 60.0
RELOAD_INTERVAL = 1.0
"""Seconds between looks at resolv.conf, while there is something to forward."""


@dataclass(slots=True, eq=False)
class Upstream:
    """One server and how it has behaved."""

    address: Address
    domain: bytes = b"\0"
    """The wire name of the domain that it is asked about; the root: everything."""
    failures: int = 0
    """In a row."""
    aside_until: float = 0.0
    looping: bool = False
    """It sends back to us what we ask."""

    def __str__(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def answered(self) -> None:
        """It is there."""
        if self.failures >= FAILURES_BEFORE_PENALTY:
            log.info("dns: upstream %s answers again", self)
        if self.failures:
            self.failures = 0
            self.aside_until = 0.0

    def failed(self, now: float) -> None:
        """It was silent for too long, or not there at all."""
        self.failures += 1
        if self.failures == FAILURES_BEFORE_PENALTY:
            log.warning(
                "dns: upstream %s does not answer; others are asked first",
                self,
                extra=LogCode.UPSTREAM_UNREACHABLE.extra,
            )
        if self.failures >= FAILURES_BEFORE_PENALTY:
            self.aside_until = now + min(
                MAX_PENALTY_SECONDS, PENALTY_SECONDS * 2 ** min(self.failures - FAILURES_BEFORE_PENALTY, 8)
            )

    def aside(self, now: float) -> bool:
        """Whether others are to be asked first."""
        return now < self.aside_until

    def on_trial(self, now: float) -> bool:
        """Whether it was silent and is asked again: another one is asked at the same time."""
        return self.failures >= FAILURES_BEFORE_PENALTY and not self.aside(now)


class Upstreams:
    """The upstreams of all domains. Without `given` ones those of resolv.conf answer for what no domain covers.

    resolv.conf is looked at when a question comes, at most once a second, and read when it has changed. If it is gone
    or names nobody, those that it named before stay in force.
    """

    def __init__(
        self,
        given: Iterable[Address] = (),
        by_domain: Mapping[str, Sequence[Address]] | None = None,
        *,
        resolv_conf: Path | None = None,
    ) -> None:
        """Raises ValueError for a domain that is no name."""
        self._by_domain = {
            encode_name(domain): [Upstream(address, encode_name(domain)) for address in dict.fromkeys(addresses)]
            for domain, addresses in (by_domain or {}).items()
        }
        self._default = [Upstream(address) for address in dict.fromkeys(given)]
        self._resolv_conf = None if self._default else resolv_conf
        self._is_own: Callable[[Address], bool] = lambda _: False
        self._seen: object = None
        self._look_at = 0.0
        self._complaint = ""

    def leave_out(self, is_own: Callable[[Address], bool]) -> None:
        """From now on never ask the addresses that this is true of: they are the name server itself."""
        self._is_own = is_own
        self._default = [each for each in self._default if self._is_other(each)]
        for domain, upstreams in self._by_domain.items():
            self._by_domain[domain] = [each for each in upstreams if self._is_other(each)]
        self._seen = None

    def all(self) -> list[Upstream]:
        """Each of them."""
        return [*self._default, *(each for upstreams in self._by_domain.values() for each in upstreams)]

    def look(self, now: float) -> bool:
        """Read resolv.conf if it is time and it has changed: whether upstreams are others now."""
        if self._resolv_conf is None or now < self._look_at:
            return False
        self._look_at = now + RELOAD_INTERVAL
        try:
            stat = os.stat(self._resolv_conf)
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen == self._seen:
                return False
            text = self._resolv_conf.read_text(errors="replace")
        except OSError as error:
            self._complain(f"{self._resolv_conf}: {error.strerror}")
            return False
        self._seen = seen
        return self._use([address for address in parse_resolv_conf(text) if not self._is_own(address)])

    def for_name(self, name: bytes, now: float) -> Sequence[Upstream]:
        """Whom to ask about a lower-case wire name, the likeliest first; those who loop are not asked."""
        mine = self._default
        if self._by_domain:
            mine = next((self._by_domain[each] for each in name_suffixes(name) if each in self._by_domain), mine)
        for each in mine:
            if each.looping or each.aside_until:
                return sorted((each for each in mine if not each.looping), key=lambda each: each.aside(now))
        return mine

    def _use(self, addresses: Sequence[Address]) -> bool:
        if not addresses:
            self._complain(f"{self._resolv_conf} names no server but this one")
            return False
        self._complaint = ""
        if addresses == [each.address for each in self._default]:
            return False
        known = {each.address: each for each in self._default}
        self._default = [known.get(address) or Upstream(address) for address in addresses]
        log.info("dns: other names are asked of %s, from %s", ", ".join(map(str, self._default)), self._resolv_conf)
        return True

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            kept = ", ".join(map(str, self._default)) or "nobody: they are refused"
            log.warning(
                "dns: %s; other names are asked of %s; or set [dns] upstream",
                complaint,
                kept,
                extra=LogCode.RESOLV_CONF.extra,
            )
        self._complaint = complaint

    def _is_other(self, upstream: Upstream) -> bool:
        if self._is_own(upstream.address):
            log.error(
                "dns: upstream %s is this name server itself and is not asked; take it out of [dns]",
                upstream,
                extra=LogCode.UPSTREAM_LOOP.extra,
            )
            return False
        return True


def parse_resolv_conf(text: str) -> tuple[Address, ...]:
    """The name servers of a resolv.conf(5), port 53."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        host, _, scope = words[1].partition("%")
        try:
            found.append((str(ipaddress.ip_address(host)) + (f"%{scope}" if scope else ""), 53))
        except ValueError:
            continue  # a line that the C library ignores as well
    return tuple(dict.fromkeys(found))
