"""Tracks whether requests from each network reach each service, by what was seen of connections. Pure.

A virtual server may be programmed and its endpoints healthy while no request arrives: a packet filter of the host drops
what comes from another network. Two checks notice it. `connection` opens a connection from a network of containers.
`conntrack` reads which connections of clients were answered. Each contributes `ArrivalObservation`s, and both results
are kept beside each other, so that neither hides what the other one has found.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity

CONFIRMATIONS = 2
"""Observations in a row that must fail before requests count as not arriving: an endpoint may end during one."""
FORGET_AFTER = 900.0
"""Seconds after which a result that was not observed again no longer counts."""


class ArrivalCheck(StrEnum):
    """How the arrival of requests was observed."""

    CONNECTION = "connection"
    """The daemon has opened a connection itself."""
    CONNTRACK = "conntrack"
    """Tracked connections of clients were answered, or not."""


class ArrivalState(StrEnum):
    """Whether requests from one network reach one service. The values are stable: programs may compare them."""

    ARRIVES = "arrives"
    """The last request was answered."""
    NOT_ARRIVING = "not-arriving"
    """The last requests were not answered, although an endpoint is healthy."""
    NEVER_TRIED = "never-tried"
    """No request was observed, or too few."""


class ArrivalPair(NamedTuple):
    """A service and a network that its clients are in. A tuple, since it is the key of results."""

    owner: str
    """The `Service.owner`."""
    network: str
    """The network of the clients as canonical text, `172.18.0.0/16`; `host`: the worker; `elsewhere`: other hosts."""


@dataclass(frozen=True, slots=True)
class ArrivalObservation:
    """The result of one observation of one pair."""

    pair: ArrivalPair
    check: ArrivalCheck
    arrived: bool
    """Whether a request was answered. A refusal by a healthy endpoint is an answer, too."""
    reason: str = ""
    """What was seen instead of an answer, as the end of a sentence: `no answer within 2 s`; empty if it arrived."""
    remedy: str = ""
    """The imperative that helps on this host; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class ArrivalRecord:
    """What one check knows of one pair."""

    state: ArrivalState
    since: float
    """When the state began, in seconds since the epoch."""
    seen: float
    """When it was observed last, in seconds since the epoch."""
    failures: int = 0
    """Observations in a row that failed."""
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The results of all checks."""

    records: Mapping[tuple[ArrivalPair, ArrivalCheck], ArrivalRecord] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def state(self, pair: ArrivalPair) -> ArrivalState:
        """Return the state of a pair: it is `NOT_ARRIVING` if either check finds so."""
        states = {self.records[pair, check].state for check in ArrivalCheck if (pair, check) in self.records}
        for state in (ArrivalState.NOT_ARRIVING, ArrivalState.ARRIVES):
            if state in states:
                return state
        return ArrivalState.NEVER_TRIED

    @property
    def pairs(self) -> tuple[ArrivalPair, ...]:
        """The pairs with a record, sorted."""
        return tuple(sorted({pair for pair, _ in self.records}))

    def failing(self, owner: str) -> tuple[tuple[ArrivalPair, ArrivalRecord], ...]:
        """Return the pairs of a service whose requests do not arrive, sorted, each with the record that says so."""
        found: dict[ArrivalPair, ArrivalRecord] = {}
        for (pair, _), record in sorted(self.records.items(), key=lambda item: item[0]):
            if pair.owner == owner and record.state is ArrivalState.NOT_ARRIVING:
                found.setdefault(pair, record)
        return tuple(found.items())

    def count(self) -> Mapping[ArrivalState, int]:
        """Return the number of observed pairs in each state; every state has a number."""
        found = Counter(self.state(pair) for pair in self.pairs)
        return {state: found[state] for state in ArrivalState}


def add_observations(arrivals: Arrivals, observations: Iterable[ArrivalObservation], now: float) -> Arrivals:
    """Return the results with these observations added, in their order. `now` is in seconds since the epoch.

    The result is the same object if there are none.
    """
    records = dict(arrivals.records)
    seen = False
    for observation in observations:
        seen = True
        key = observation.pair, observation.check
        records[key] = _next_record(records.get(key), observation, now)
    return Arrivals(MappingProxyType(records)) if seen else arrivals


def _next_record(before: ArrivalRecord | None, observation: ArrivalObservation, now: float) -> ArrivalRecord:
    if before is None:
        before = ArrivalRecord(ArrivalState.NEVER_TRIED, now, now)
    if observation.arrived:
        state, failures = ArrivalState.ARRIVES, 0
    else:
        failures = before.failures + 1
        state = ArrivalState.NOT_ARRIVING if failures >= CONFIRMATIONS else before.state
    since = before.since if state is before.state else now
    return replace(
        before,
        state=state,
        since=since,
        seen=now,
        failures=failures,
        reason=observation.reason,
        remedy=observation.remedy,
    )


def retain_current(arrivals: Arrivals, owners: Collection[str], now: float) -> Arrivals:
    """Return the results of these services that are not too old; the same object if that is all of them."""
    kept = {
        key: record
        for key, record in arrivals.records.items()
        if key[0].owner in owners and now - record.seen < FORGET_AFTER
    }
    return arrivals if len(kept) == len(arrivals.records) else Arrivals(MappingProxyType(kept))


def arrival_problems(arrivals: Arrivals) -> Iterator[Problem]:
    """Yield a problem for each pair whose requests do not arrive, sorted by pair."""
    for owner in sorted({pair.owner for pair in arrivals.pairs}):
        for pair, record in arrivals.failing(owner):
            since = datetime.fromtimestamp(record.since, UTC).isoformat(sep=" ", timespec="seconds")
            reason = f": {record.reason}" if record.reason else ""
            yield Problem(
                Code.REQUESTS_DO_NOT_ARRIVE,
                Severity.WARNING,
                f"service {owner}",
                f"requests from {describe_network(pair.network)} have not arrived since {since}{reason}",
                record.remedy or "run `vipmesh test` on this worker; it says where they are lost",
                owner=owner,
            )


def describe_network(network: str) -> str:
    """Return the clients of a pair in words."""
    return {"host": "this worker itself", "elsewhere": "other hosts"}.get(network, f"the network {network}")


class ArrivalTracker:
    """Keeps the results of all checks, and reports the pairs whose requests do not arrive."""

    def __init__(self, report: Callable[[tuple[Problem, ...]], None]) -> None:
        """`report` gets all current problems after each change."""
        self.arrivals = Arrivals()
        """The current results."""
        self._report = report

    def observe(self, observations: Iterable[ArrivalObservation], now: float) -> None:
        """Add observations. `now` is in seconds since the epoch."""
        self._replace(add_observations(self.arrivals, observations, now))

    def retain(self, owners: Collection[str], now: float) -> None:
        """Drop the results of services that no longer exist, and results that are too old."""
        self._replace(retain_current(self.arrivals, owners, now))

    def _replace(self, arrivals: Arrivals) -> None:
        if arrivals is not self.arrivals:
            self.arrivals = arrivals
            self._report(tuple(arrival_problems(arrivals)))
