"""Judges a new release against the old one by what both did in the same window. Pure.

A release fails by three measures: its processes (exits, restart loops, OOM kills), its probes, and its connections. By
each, the new release is bad if it fails and the old one does not. If both do, or most of the old one fails by another
measure, something hit both, and nobody is judged. What a data plane cannot count is said, and never counts as good.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate

TIME_BUCKETS = 64
"""Buckets of the durations of probes."""
_FIRST_BUCKET = 0.001
"""Seconds up to which durations are in the first bucket."""
_BUCKETS_PER_DOUBLING = 4
_MASS = 0.5
"""The part of the old release that fails where something hit more than one release."""
_P95 = 0.95
_REPEATED = 2
"""Failed probes, or connections that failed alike, below which nothing is said: one is an accident."""


class JudgeOutcome(StrEnum):
    """What a judge says of a new release."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """There is not enough evidence yet."""
    HOLD = "hold"
    """There is enough, but it speaks neither for the next step nor for an end."""


class ConnectionFailure(StrEnum):
    """How a connection to an endpoint fails."""

    REFUSED = "refused"
    UNANSWERED = "unanswered"
    RESET = "reset"
    """By the endpoint, after it had accepted."""


@dataclass(frozen=True, slots=True)
class ConnectionEvidence:
    """The connections to one endpoint, or to all of a release."""

    attempts: int = 0
    """Connections that were tried, failed ones included."""
    failures: Mapping[ConnectionFailure, int] = field(default_factory=dict)
    opened_before: int = 0
    """Connections that were open when the window began."""
    open: int = 0
    """Connections that were open when it ended."""

    @property
    def served(self) -> int:
        """Connections that the endpoint accepted."""
        refused, unanswered = ConnectionFailure.REFUSED, ConnectionFailure.UNANSWERED
        return max(0, self.attempts - self.failures.get(refused, 0) - self.failures.get(unanswered, 0))

    def __add__(self, other: "ConnectionEvidence") -> "ConnectionEvidence":
        failures = {
            kind: self.failures.get(kind, 0) + other.failures.get(kind, 0)
            for kind in ConnectionFailure
            if kind in self.failures or kind in other.failures
        }
        return ConnectionEvidence(
            self.attempts + other.attempts,
            failures,
            self.opened_before + other.opened_before,
            self.open + other.open,
        )


@dataclass(frozen=True, slots=True)
class ReleaseEvidence:
    """What one release did in one window, on all workers."""

    seconds: float = 0.0
    """The length of the window."""
    instances: int = 0
    """Instances that ran at its end, and those that had ended by themselves."""
    exits: int = 0
    """Ends of processes that nobody asked for."""
    looping: int = 0
    """Instances that ended more than once."""
    out_of_memory: int = 0
    probes: int = 0
    failed_probes: int = 0
    probe_times: Mapping[int, int] = field(default_factory=dict)
    """Successful probes by the bucket of their duration (`time_bucket`)."""
    endpoints: Mapping[str, ConnectionEvidence] = field(default_factory=dict)
    """Connections by endpoint; those of which no worker counts any are missing."""
    uncounted: frozenset[ConnectionFailure] = frozenset()
    """What a data plane that leads connections to it does not count."""

    @property
    def connections(self) -> ConnectionEvidence:
        """The connections to all its endpoints."""
        return sum(self.endpoints.values(), ConnectionEvidence())


@dataclass(frozen=True, slots=True)
class JudgeLimits:
    """From where on a release is bad, and how much must be known."""

    max_failures: float = 5.0
    """Per cent of its instances that may end by themselves, of its probes and of its connections that may fail."""
    min_connections: int = 20
    """Connections to the new release without which it is not judged by them; 0: it need not have any."""
    min_probes: int = 3
    min_seconds: float = 10.0
    """The shortest window that can be good."""
    latency_factor: float = 2.0
    """How many times as long as those of the old release its probes may take, by the 95th percentile."""
    latency_floor: float = 0.02
    """Seconds by which they must be longer at least."""


@dataclass(frozen=True, slots=True)
class CheckEvidence:
    """What a check of the user said of the new release."""

    name: str
    """The label, without prefix: `release.check.cmd`."""
    runs: int = 0
    """Runs with an outcome in the window; 0: nothing is known."""
    failed: int = 0
    reason: str = ""
    """Of the last failure."""


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """What the judge says, and why."""

    outcome: JudgeOutcome
    reasons: tuple[str, ...]
    undecided_since: float | None = None
    """Since when it has been neither good nor bad, by the caller's clock, who ends the rollout at its deadline; None:
    it is one of them.
    """


def time_bucket(seconds: float) -> int:
    """Return the bucket of a duration, from 0; four of them are a factor of two."""
    bound, number = _FIRST_BUCKET, 0
    while seconds > bound and number < TIME_BUCKETS - 1:
        number += 1
        bound = bucket_bound(number)
    return number


def bucket_bound(number: int) -> float:
    """Return the longest duration of a bucket in seconds."""
    return _FIRST_BUCKET * float(2 ** (number / _BUCKETS_PER_DOUBLING))


def percentile_95(times: Mapping[int, int]) -> float | None:
    """Return the upper bound of the bucket of the 95th percentile in seconds; None without durations."""
    buckets = sorted(times.items())
    total = sum(count for _, count in buckets)
    if total <= 0:
        return None
    ranks = accumulate(count for _, count in buckets)
    return next(bucket_bound(bucket) for (bucket, _), rank in zip(buckets, ranks, strict=True) if rank >= _P95 * total)


def judge(
    new: ReleaseEvidence,
    old: ReleaseEvidence,
    limits: JudgeLimits,
    checks: Sequence[CheckEvidence] = (),
    *,
    now: float = 0.0,
    before: JudgeVerdict | None = None,
) -> JudgeVerdict:
    """Judge the new release. `now` is of the caller's clock, and `before` what was said of the same step last.

    Worse evidence of the new release never makes a better verdict. Evidence that is the same of both is never bad.
    """
    failing = _failing(new, limits)
    hit = _hit(old, limits)
    massively = _massive_failure(old)
    bad: list[str] = []
    held: list[str] = []
    for group, reasons in failing.items():
        if group in hit:
            held += [f"{reason}, but so it is with the old release: {hit[group]}" for reason in reasons]
        elif massively is not None:
            held += [f"{reason}, but most of the old release fails: {massively}" for reason in reasons]
        else:
            bad += reasons
    for check in checks:
        if check.failed:
            text = f"{check.name} failed {_of(check.failed, check.runs)}" + (
                f": {check.reason}" if check.reason else ""
            )
            if massively is None:
                bad.append(text)
            else:
                held.append(f"{text}, but most of the old release fails: {massively}")
    if bad:
        return JudgeVerdict(JudgeOutcome.BAD, (*bad, *held))
    since = now if before is None or before.undecided_since is None else before.undecided_since
    held += [*_slower(new, old, limits), *_piling_up(new, old, limits)]
    if held:
        return JudgeVerdict(JudgeOutcome.HOLD, tuple(held), since)
    if missing := tuple(_missing(new, limits, checks)):
        return JudgeVerdict(JudgeOutcome.UNKNOWN, missing, since)
    return JudgeVerdict(JudgeOutcome.GOOD, tuple(_good(new, checks)))


class _Measure(StrEnum):
    PROCESSES = "processes"
    PROBES = "probes"
    CONNECTIONS = "connections"


def _failing(new: ReleaseEvidence, limits: JudgeLimits) -> Mapping[_Measure, list[str]]:
    """Return by which measures the new release fails, and how."""
    connections = [("", new.connections), *((f" of {name}", each) for name, each in sorted(new.endpoints.items()))]
    enough = [(of, each) for of, each in connections if each.attempts >= max(1, limits.min_connections)]
    found = {
        _Measure.PROCESSES: list(_process_failures(new, limits)),
        _Measure.PROBES: list(_probe_failures(new, limits, _REPEATED)) if new.probes >= limits.min_probes else [],
        _Measure.CONNECTIONS: [
            text for of, each in enough for text in _connection_failures(of, each, limits, _REPEATED)
        ],
    }
    return {measure: reasons[:4] for measure, reasons in found.items() if reasons}


def _hit(old: ReleaseEvidence, limits: JudgeLimits) -> Mapping[_Measure, str]:
    """Return by which measures the old release fails, however little is known of it."""
    connections = [("", old.connections), *((f" of {name}", each) for name, each in sorted(old.endpoints.items()))]
    found: dict[_Measure, Iterator[str]] = {
        _Measure.PROCESSES: _process_failures(old, limits),
        _Measure.PROBES: _probe_failures(old, limits),
        _Measure.CONNECTIONS: (t for of, each in connections for t in _connection_failures(of, each, limits)),
    }
    first = {measure: next(reasons, None) for measure, reasons in found.items()}
    return {measure: reason for measure, reason in first.items() if reason is not None}


def _massive_failure(old: ReleaseEvidence) -> str | None:
    """Return how most of the old release fails; None if it does not."""
    if old.exits and old.exits >= _MASS * old.instances:
        return f"{_ends(old.exits)} of {_instances(old.instances)}"
    if old.failed_probes and old.failed_probes >= _MASS * old.probes:
        return f"{_of(old.failed_probes, old.probes)} probes failed"
    connections = old.connections
    failed = sum(connections.failures.values())
    if failed and failed >= _MASS * connections.attempts:
        return f"{_of(failed, connections.attempts)} connections failed"
    return None


def _process_failures(release: ReleaseEvidence, limits: JudgeLimits) -> Iterator[str]:
    if release.out_of_memory:
        yield f"{_ends(release.out_of_memory)} out of memory"
    if release.looping:
        yield f"{_instances(release.looping)} in a restart loop"
    if _is_over(release.exits, release.instances, limits):
        yield f"{_ends(release.exits)} of processes in {_instances(release.instances)}"


def _probe_failures(release: ReleaseEvidence, limits: JudgeLimits, at_least: int = 1) -> Iterator[str]:
    if release.failed_probes >= at_least and _is_over(release.failed_probes, release.probes, limits):
        yield f"{_of(release.failed_probes, release.probes)} probes failed"


def _connection_failures(of: str, found: ConnectionEvidence, limits: JudgeLimits, at_least: int = 1) -> Iterator[str]:
    for kind in ConnectionFailure:
        failed = found.failures.get(kind, 0)
        if failed >= at_least and _is_over(failed, found.attempts, limits):
            yield f"{_of(failed, found.attempts)} connections{of} were {kind}"


def _slower(new: ReleaseEvidence, old: ReleaseEvidence, limits: JudgeLimits) -> Iterator[str]:
    ours, theirs = percentile_95(new.probe_times), percentile_95(old.probe_times)
    if ours is None or theirs is None:
        return
    if ours > limits.latency_factor * theirs and ours - theirs > limits.latency_floor:
        yield f"95 % of its probes take up to {ours * 1000:.0f} ms, those of the old release {theirs * 1000:.0f} ms"


def _piling_up(new: ReleaseEvidence, old: ReleaseEvidence, limits: JudgeLimits) -> Iterator[str]:
    """Compare the open connections for each that came: by Little's law that is how long they last."""
    ours, theirs = new.connections, old.connections
    grown = ours.open - ours.opened_before
    if grown < max(1, limits.min_connections) or not theirs.served:
        return
    if ours.open * theirs.served > limits.latency_factor * max(theirs.open, 1) * max(ours.served, 1):
        yield f"its connections pile up: {grown} more are open, {ours.open} of {ours.served} that came"


def _missing(new: ReleaseEvidence, limits: JudgeLimits, checks: Sequence[CheckEvidence]) -> Iterator[str]:
    if not new.instances:
        yield "none of its instances is known to run"
    if new.seconds < limits.min_seconds:
        yield f"it was watched for {new.seconds:.0f} s of {limits.min_seconds:g} s"
    for check in checks:
        if not check.runs:
            yield f"{check.name} has no result yet"
    succeeded = new.probes - new.failed_probes
    if new.probes and succeeded < limits.min_probes:
        yield f"{succeeded} successful probes of {limits.min_probes}"
    served = new.connections.served
    is_counted = bool(new.endpoints) and not new.uncounted
    if new.endpoints and served < limits.min_connections:
        yield f"{served} connections of {limits.min_connections}"
    is_shown = (is_counted and served > 0) or succeeded >= max(1, limits.min_probes) or any(c.runs for c in checks)
    if not is_shown:
        yield "nothing shows that it serves: it has no probe, no check, and " + (
            _uncounted(new.uncounted) if new.uncounted else "no connections that are counted"
        )


def _good(new: ReleaseEvidence, checks: Iterable[CheckEvidence]) -> Iterator[str]:
    yield f"{_instances(new.instances)} for {new.seconds:.0f} s, {_ends(new.exits)}"
    if new.probes:
        yield f"{_of(new.failed_probes, new.probes)} probes failed"
    connections = new.connections
    if new.endpoints:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(connections.failures.items()))
        yield f"{connections.attempts} connections" + (f", of them {counts}" if counts else "")
    for check in checks:
        yield f"{check.name} succeeded {check.runs} times"
    if new.uncounted or not new.endpoints:
        yield _uncounted(new.uncounted or frozenset(ConnectionFailure))


def _uncounted(kinds: frozenset[ConnectionFailure]) -> str:
    return f"not counted by a data plane: connections {', '.join(sorted(kinds))}"


def _is_over(failed: int, of: int, limits: JudgeLimits) -> bool:
    return failed > 0 and failed * 100 > limits.max_failures * max(of, failed)


def _of(part: int, whole: int) -> str:
    return f"{part} of {max(part, whole)}"


def _ends(count: int) -> str:
    return f"{count} end" + ("" if count == 1 else "s")


def _instances(count: int) -> str:
    return f"{count} instance" + ("" if count == 1 else "s")
