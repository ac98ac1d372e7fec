"""Selects the upstreams for a name, and tracks which of them are likely to answer.

The longest configured domain that contains a name decides. Within a domain the operator's order counts, except that an
upstream that was silent several times in a row comes last for a while; then it gets another chance. The code is given
the time by its callers.
"""

import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from typing_extensions import override

from meshdns.log_codes import LogCode
from meshdns.rdata import encode_name, name_suffixes

log = logging.getLogger("vipmesh")

Address: TypeAlias = tuple[str, int]
"""Host and port."""

FAILURES_BEFORE_PENALTY = 3
"""Failures in a row after which an upstream is set aside."""
PENALTY_SECONDS = 5.0
"""Seconds for which it is set aside the first time; each further time doubles them, up to `MAX_PENALTY_SECONDS`."""
MAX_PENALTY_SECONDS = 60.0
"""Maximum seconds for which an upstream is set aside."""
EDNS_MEMORY = 600.0
"""Seconds for which an upstream that drops or rejects queries with EDNS gets queries without."""
STRIKES_BEFORE_LOWER_CASE = 3
"""Answers in lower case alone, in a row, after which an upstream without TCP is asked in lower case at once."""
CASE_MEMORY = 600.0
"""Seconds for which an upstream that does not repeat the case of a question gets questions in lower case."""
RELOAD_INTERVAL = 1.0
"""Minimum seconds between two checks of resolv.conf; it is only checked when a query is forwarded."""


@dataclass(slots=True, eq=False)
class Upstream:
    """One upstream server and its recent behaviour."""

    address: Address
    """Host and port."""
    domain: bytes = b"\0"
    """The wire name of the domain that it is asked about; the root stands for every name."""
    failures: int = 0
    """Failures in a row."""
    aside_until: float = 0.0
    """The time until which it is set aside, in seconds of the event loop's clock; 0 if it is not."""
    looping: bool = False
    """Whether it forwards our queries back to us."""
    edns_works: bool = False
    """Whether it has answered a query with EDNS since it failed `FAILURES_BEFORE_PENALTY` times in a row."""
    edns_suspected: bool = False
    """Whether the next query goes without EDNS, because the last one with EDNS got no answer."""
    edns_strikes: int = 0
    """How often in a row silence with EDNS was followed by an answer without."""
    plain_until: float = 0.0
    """The time until which it gets queries without EDNS, in seconds of the event loop's clock; 0 if it gets others."""
    case_strikes: int = 0
    """How often in a row it answered in lower case alone."""
    lower_until: float = 0.0
    """The time until which it gets questions in lower case; 0 if it gets others."""
    doubtful: bool = False
    """Whether any of the above is out of the ordinary; one test for the path of every query."""

    @override
    def __str__(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def answered(self) -> None:
        """Record that it answered."""
        if self.failures >= FAILURES_BEFORE_PENALTY:
            log.info("dns: upstream %s answers again", self)
        if self.failures:
            self.failures = 0
            self.aside_until = 0.0

    def failed(self, now: float) -> None:
        """Record that it was silent for too long or could not be reached."""
        self.failures += 1
        if self.failures == FAILURES_BEFORE_PENALTY:
            self.edns_works = False
            log.warning(
                "dns: upstream %s does not answer; others are asked first",
                self,
                extra=LogCode.UPSTREAM_UNREACHABLE.extra,
            )
        if self.failures >= FAILURES_BEFORE_PENALTY:
            self.aside_until = now + min(
                MAX_PENALTY_SECONDS, PENALTY_SECONDS * 2 ** min(self.failures - FAILURES_BEFORE_PENALTY, 8)
            )

    def takes_edns(self, now: float) -> bool:
        """Return whether queries to it carry an OPT record."""
        if self.plain_until and now >= self.plain_until:
            self.plain_until = 0.0
        return not self.plain_until

    def suspect_edns(self) -> None:
        """Record that a query with EDNS got no answer."""
        if not self.edns_works:
            self.edns_suspected = self.doubtful = True

    def accepted_edns(self) -> None:
        """Record that it answered a query with EDNS."""
        self.edns_works, self.edns_suspected, self.edns_strikes = True, False, 0
        self._settle()

    def answered_without_edns(self, now: float, *, sure: bool) -> None:
        """Record that it answered a query without EDNS after one with EDNS had got no answer, or an error.

        From then on it gets queries without for `EDNS_MEMORY` seconds. An outage that has just ended looks the same:
        unless `sure`, it takes two such answers.
        """
        self.edns_strikes += 1
        self.edns_suspected = False
        if sure or self.edns_strikes > 1:
            log.info("dns: upstream %s answers only without EDNS; it gets queries without for a while", self)
            self.edns_works, self.edns_strikes = False, 0
            self.plain_until = now + EDNS_MEMORY
        self.doubtful = True

    def keeps_case(self, now: float) -> bool:
        """Return whether questions to it are written in random case."""
        if self.lower_until and now >= self.lower_until:
            self.lower_until = 0.0
        return not self.lower_until

    def kept_case(self) -> None:
        """Record that it repeated a question exactly."""
        self.case_strikes = 0
        self._settle()

    def changed_case(self, now: float, *, sure: bool) -> None:
        """Record that it does not repeat a question in the case in which it was asked.

        From then on it is asked in lower case for `CASE_MEMORY` seconds. Unless `sure`, that takes
        `STRIKES_BEFORE_LOWER_CASE` answers in a row: the response in another case may have been forged.
        """
        self.case_strikes += 1
        if sure or self.case_strikes >= STRIKES_BEFORE_LOWER_CASE:
            log.info("dns: upstream %s does not keep the case of names; it is asked in lower case for a while", self)
            self.case_strikes = 0
            self.lower_until = now + CASE_MEMORY
        self.doubtful = True

    def _settle(self) -> None:
        self.doubtful = bool(self.edns_suspected or self.plain_until or self.case_strikes or self.lower_until)

    def aside(self, now: float) -> bool:
        """Return whether other upstreams must be asked first."""
        return now < self.aside_until

    def on_trial(self, now: float) -> bool:
        """Return whether it was set aside before and is now given another chance.

        Another upstream is then asked at the same time.
        """
        return self.failures >= FAILURES_BEFORE_PENALTY and not self.aside(now)


class Upstreams:
    """The upstreams of all domains.

    Without `given` upstreams, those in resolv.conf answer for names that no domain covers. resolv.conf is checked when
    a query is forwarded, at most once per second, and read if it has changed. If it is missing or lists no usable
    server, the servers that it listed before stay in force.
    """

    def __init__(
        self,
        given: Iterable[Address] = (),
        by_domain: Mapping[str, Sequence[Address]] | None = None,
        *,
        resolv_conf: Path | None = None,
    ) -> None:
        """`resolv_conf` is None to read no such file. Raises ValueError for an invalid domain."""
        self._by_domain = {
            encode_name(domain): [Upstream(address, encode_name(domain)) for address in dict.fromkeys(addresses)]
            for domain, addresses in (by_domain or {}).items()
        }
        self._default = [Upstream(address) for address in dict.fromkeys(given)]
        self._resolv_conf = None if self._default else resolv_conf
        self._is_own: Callable[[Address], bool] = lambda _: False
        self._seen: object = None
        """Modification time, inode and size of resolv.conf when it was last read; None to read it again in any case."""
        self._look_at = 0.0
        """When resolv.conf may be checked next, in seconds of the event loop's clock."""
        self._complaint = ""
        """The last warning, so that the same one is not logged again; empty for none."""

    def leave_out(self, is_own: Callable[[Address], bool]) -> None:
        """Never use the addresses for which `is_own` is true, since they are this name server itself."""
        self._is_own = is_own
        self._default = [each for each in self._default if self._is_other(each)]
        for domain, upstreams in self._by_domain.items():
            self._by_domain[domain] = [each for each in upstreams if self._is_other(each)]
        self._seen = None

    def all(self) -> list[Upstream]:
        """Return every upstream."""
        return [*self._default, *(each for upstreams in self._by_domain.values() for each in upstreams)]

    def look(self, now: float) -> bool:
        """Read resolv.conf if it is due and has changed; returns whether the upstreams have changed."""
        if self._resolv_conf is None or now < self._look_at:
            return False
        self._look_at = now + RELOAD_INTERVAL
        try:
            stat = self._resolv_conf.stat()
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
        """Return the upstreams for a lower-case wire name, the most promising first, without looping ones.

        The result is empty if there is none.
        """
        mine = self._default
        if self._by_domain:
            mine = next((self._by_domain[each] for each in name_suffixes(name) if each in self._by_domain), mine)
        # Sorting costs more than looking: nearly always every upstream is well and the list is returned as it is.
        for each in mine:
            if each.looping or each.aside_until:
                return sorted((each for each in mine if not each.looping), key=lambda each: each.aside(now))
        return mine

    def _use(self, addresses: Sequence[Address]) -> bool:
        """Replace the default upstreams; returns whether they have changed."""
        if not addresses:
            self._complain(f"{self._resolv_conf} names no server but this one")
            return False
        self._complaint = ""
        if addresses == [each.address for each in self._default]:
            return False
        # An upstream that stays keeps its record of failures.
        known = {each.address: each for each in self._default}
        self._default = [known.get(address) or Upstream(address) for address in addresses]
        log.info("dns: other names are asked of %s, from %s", ", ".join(map(str, self._default)), self._resolv_conf)
        return True

    def _complain(self, complaint: str) -> None:
        """Log a warning about resolv.conf unless it is the same as the last one."""
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
        """Return whether an upstream is not this name server itself; log an error if it is."""
        if self._is_own(upstream.address):
            log.error(
                "dns: upstream %s is this name server itself and is not asked; take it out of [dns]",
                upstream,
                extra=LogCode.UPSTREAM_LOOP.extra,
            )
            return False
        return True


def parse_resolv_conf(text: str) -> tuple[Address, ...]:
    """Return the name servers of a resolv.conf(5), each once, with port 53."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        host, _, scope = words[1].partition("%")
        try:
            found.append((str(ipaddress.ip_address(host)) + (f"%{scope}" if scope else ""), 53))
        except ValueError:
            continue  # the C library ignores such a line as well
    return tuple(dict.fromkeys(found))
