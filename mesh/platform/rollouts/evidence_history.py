"""Makes the evidence of releases in a window from the records of all workers. Pure.

Counts of a worker are added up as they grow, so that a record that was missed, or a daemon that began anew, costs
nothing. The clocks of workers are not compared: a record counts as new when it differs in its round, and its time is
that at which it was seen.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.platform.rollouts.evidence_records import (
    CHECK_LABELS,
    MAX_JUDGED_ENDPOINTS,
    ConnectionCounts,
    ReleaseCounts,
    WorkerEvidence,
)
from mesh.platform.rollouts.judge import (
    CheckEvidence,
    ConnectionEvidence,
    ConnectionFailure,
    ReleaseEvidence,
)

EVIDENCE_FRESH = 5.0
"""Seconds for which a record counts: a few of its intervals."""
WINDOW = 300.0
"""Seconds of the longest window."""
_SAMPLES = 30
_INTERVAL = WINDOW / _SAMPLES
"""Seconds between two points at which a window can begin."""
MAX_SEEN_WORKERS = 2000


@dataclass(frozen=True, slots=True)
class _SeenRecord:
    """The last record of a worker, and when it was seen first."""

    evidence: WorkerEvidence
    at: float


@dataclass(slots=True)
class _ReleaseTotals:
    """What all workers have counted of a release since the history began. It is mutable and belongs to it."""

    counts: Counter[str] = field(default_factory=Counter)
    """By name of the field, of the bucket of a duration, or of a check."""
    endpoints: dict[str, Counter[str]] = field(default_factory=dict)

    def copy(self) -> "_ReleaseTotals":
        return _ReleaseTotals(self.counts.copy(), {id: counts.copy() for id, counts in self.endpoints.items()})


_COUNTS = ("exits", "ended", "looping", "out_of_memory", "probes", "failed_probes")
_BUCKET, _RUNS, _FAILED, _OPEN = "bucket:", "runs:", "failed:", "open"


class EvidenceHistory:
    """Keeps the counts of the releases of some services, and where windows of the last minutes began."""

    def __init__(self) -> None:
        self._seen: dict[str, _SeenRecord] = {}
        self._totals: dict[str, dict[str, _ReleaseTotals]] = {}
        """By owner and release."""
        self._begins: dict[str, deque[tuple[float, dict[str, _ReleaseTotals]]]] = {}
        """Totals of each service as they were at some times, the oldest first."""
        self._now = 0.0

    def take(self, records: Mapping[str, WorkerEvidence], judged: Mapping[str, Collection[str]], now: float) -> None:
        """Take one look at the records of all workers, by worker.

        `judged` has the releases of each service that are of interest; the others are forgotten. What workers count of
        a service is evidence from the first look that has it on. `now` is of a monotonic clock.
        """
        self._now = now
        wanted = judged.keys()
        begun = self._totals.keys() & wanted
        self._totals = {owner: self._totals.get(owner, {}) for owner in wanted}
        for worker, evidence in list(records.items())[:MAX_SEEN_WORKERS]:
            before = self._seen.get(worker)
            if before is not None and _same(before.evidence, evidence):
                continue
            self._seen[worker] = _SeenRecord(evidence, now)
            # A worker that was not there at the last look, or whose daemon began anew, has counted since then alone.
            base = before.evidence if before is not None and before.evidence.run == evidence.run else None
            for owner in begun:
                self._add(owner, judged[owner], evidence, base)
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in records}
        self._begins = {owner: self._begins.get(owner, deque()) for owner in wanted}
        for owner, begins in self._begins.items():
            if not begins or now - begins[-1][0] >= _INTERVAL:
                begins.append((now, self._present(owner)))
            while len(begins) > 1 and now - begins[1][0] >= WINDOW:
                begins.popleft()

    def restart(self, owner: str) -> None:
        """Begin a new window of a service now, as its step does."""
        self._begins[owner] = deque([(self._now, self._present(owner))])

    def evidence(self, owner: str, release: str) -> ReleaseEvidence:
        """Return what a release has done in the present window of its service."""
        fresh = list(self._fresh(owner, release))
        begins = self._begins.get(owner)
        if not begins:
            return ReleaseEvidence()
        since, before = begins[0]
        base = before.get(release, _ReleaseTotals())
        totals = self._totals.get(owner, {}).get(release, _ReleaseTotals())
        grown = totals.counts - base.counts
        opened = self._open(owner, release)
        endpoints = {
            id: _connections(counts, base.endpoints.get(id, Counter()), opened[id])
            for id, counts in totals.endpoints.items()
        }
        return ReleaseEvidence(
            seconds=self._now - since,
            instances=sum(counts.instances for counts in fresh) + grown["ended"],
            exits=grown["exits"],
            looping=grown["looping"],
            out_of_memory=grown["out_of_memory"],
            probes=grown["probes"],
            failed_probes=grown["failed_probes"],
            probe_times={int(k.removeprefix(_BUCKET)): n for k, n in grown.items() if k.startswith(_BUCKET)},
            endpoints=endpoints,
            uncounted=frozenset(
                kind for counts in fresh for each in counts.endpoints.values() for kind in _uncounted(each)
            ),
        )

    def checks(self, owner: str, release: str, names: Iterable[str]) -> tuple[CheckEvidence, ...]:
        """Return what these checks (labels, without prefix) have said of a release in the present window."""
        begins = self._begins.get(owner)
        base = begins[0][1].get(release, _ReleaseTotals()).counts if begins else Counter[str]()
        totals = self._totals.get(owner, {}).get(release, _ReleaseTotals())
        grown = totals.counts - base
        reasons: dict[str, str] = {}
        for counts in self._fresh(owner, release):
            reasons.update({name: _shown(check.reason) for name, check in counts.checks.items() if check.reason})
        return tuple(
            CheckEvidence(name, grown[_RUNS + name], grown[_FAILED + name], reasons.get(name, "")) for name in names
        )

    def silent(self, workers: Iterable[str]) -> tuple[str, ...]:
        """Return those of these workers of which no fresh record was seen, sorted."""
        heard = {worker for worker, seen in self._seen.items() if self._now - seen.at <= EVIDENCE_FRESH}
        return tuple(sorted(set(workers) - heard))

    def _fresh(self, owner: str, release: str) -> Iterator[ReleaseCounts]:
        for seen in self._seen.values():
            counts = seen.evidence.services.get(owner, {}).get(release)
            if counts is not None and self._now - seen.at <= EVIDENCE_FRESH:
                yield counts

    def _open(self, owner: str, release: str) -> Counter[str]:
        """Return the connections that are open now, by endpoint, through all workers."""
        opened: Counter[str] = Counter()
        for counts in self._fresh(owner, release):
            opened.update({id: each.open for id, each in counts.endpoints.items()})
        return opened

    def _present(self, owner: str) -> dict[str, _ReleaseTotals]:
        """Return the totals as they are now, as the begin of a window."""
        found = {}
        for release, totals in self._totals.get(owner, {}).items():
            found[release] = copied = totals.copy()
            for id, count in self._open(owner, release).items():
                if id in copied.endpoints:
                    copied.endpoints[id][_OPEN] = count
        return found

    def _add(self, owner: str, judged: Collection[str], now: WorkerEvidence, before: WorkerEvidence | None) -> None:
        """Add what a worker has counted between two of its records; `before` is None if it began in between."""
        earlier = before.services.get(owner, {}) if before is not None else {}
        for release, counts in now.services.get(owner, {}).items():
            base = earlier.get(release, _NOTHING)
            if release not in judged:
                continue
            totals = self._totals[owner].setdefault(release, _ReleaseTotals())
            totals.counts += _numbers(counts) - _numbers(base)
            for id, each in counts.endpoints.items():
                if id not in totals.endpoints and len(totals.endpoints) >= MAX_JUDGED_ENDPOINTS:
                    continue
                led = _connection_numbers(each) - _connection_numbers(base.endpoints.get(id, _NO_CONNECTIONS))
                known = totals.endpoints.setdefault(id, Counter())
                known.update(led)
                known.update(dict.fromkeys(set(ConnectionFailure).difference(_uncounted(each)), 0))


_NOTHING = ReleaseCounts()
_NO_CONNECTIONS = ConnectionCounts()


def _same(one: WorkerEvidence, other: WorkerEvidence) -> bool:
    return (one.run, one.round) == (other.run, other.round)


def _numbers(counts: ReleaseCounts) -> Counter[str]:
    found = Counter({name: getattr(counts, name) for name in _COUNTS})
    found.update({f"{_BUCKET}{bucket}": count for bucket, count in counts.probe_times.items()})
    for name in CHECK_LABELS:
        if (check := counts.checks.get(name)) is not None:
            found.update({_RUNS + name: check.runs, _FAILED + name: check.failed})
    return found


def _connection_numbers(counts: ConnectionCounts) -> Counter[str]:
    kinds = {kind.value: getattr(counts, kind.value) or 0 for kind in ConnectionFailure}
    return Counter({"attempts": counts.attempts, **kinds})


def _connections(totals: Counter[str], base: Counter[str], opened: int) -> ConnectionEvidence:
    failures = {kind: max(0, totals[kind] - base[kind]) for kind in ConnectionFailure if kind in totals}
    attempts = max(0, totals["attempts"] - base["attempts"])
    return ConnectionEvidence(attempts, failures, base[_OPEN], opened)


def _uncounted(counts: ConnectionCounts) -> Iterator[ConnectionFailure]:
    for kind in ConnectionFailure:
        if getattr(counts, kind.value) is None:
            yield kind


def _shown(reason: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in reason)
