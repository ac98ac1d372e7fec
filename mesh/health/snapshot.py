"""An immutable snapshot of the probes of a worker, and the status computed from it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from mesh.model.errors import CodedText
from mesh.model.service import EndpointKey, Health


@dataclass(frozen=True, slots=True)
class VerdictStatus:
    """The outcome of one check."""

    at: str
    """When the check ended, in UTC: `2026-11-23T16:15:41.123+00:00`."""
    ok: bool
    reason: str
    seconds: float
    """The duration of the check."""


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """The state of this worker's prober; the counters begin at its start."""

    endpoints: int = 0
    """The number of endpoints that it probes."""
    checks: int = 0
    failures: int = 0
    late: int = 0
    """Checks that began more than a tenth of a second after they were due."""


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """The health of the endpoints, as operators see it."""

    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    traffic: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """The health that traffic follows; usually the same as `health`."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy endpoints that stay in traffic."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Endpoints that answer but flapped recently."""
    last: Mapping[EndpointKey, str] = field(default_factory=dict)
    """The result of the last check, for each endpoint that this worker probes."""
    verdicts: Mapping[EndpointKey, tuple[VerdictStatus, ...]] = field(default_factory=dict)
    """The last check results, oldest first; empty unless details were requested."""
    last_at: Mapping[EndpointKey, str] = field(default_factory=dict)
    """When the last check of each endpoint ended, in UTC; empty unless times were requested."""


class CheckResult(Protocol):
    """The outcome of one check."""

    @property
    def ok(self) -> bool:
        """Whether the endpoint works."""
        ...

    @property
    def reason(self) -> str:
        """The reason, in a few words."""
        ...

    @property
    def duration(self) -> float:
        """The duration in seconds."""
        ...

    @property
    def at(self) -> float:
        """When the check ended, on the clock of the probes."""
        ...


class PastChecks(Protocol):
    """The last checks of one endpoint. Its methods may be called in any thread."""

    def verdicts(self) -> Sequence[CheckResult]:
        """The results, oldest first."""
        ...

    def last(self) -> str | None:
        """The result of the last check; None before the first one."""
        ...

    def last_at(self) -> float | None:
        """When the last check ended, on the clock of the probes; None before the first one."""
        ...


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """The results of health monitoring at one moment."""

    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """Health of endpoints that this worker probes for other workers, as far as it counts."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy endpoints that stay in traffic."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Endpoints that answer but flapped recently."""
    histories: Mapping[EndpointKey, PastChecks] = field(default_factory=dict)
    """The last checks of each endpoint that this worker probes."""
    suspicions: tuple[CodedText, ...] = ()
    """The current suspicions, one line each."""
    probes: ProbeStatus = field(default_factory=ProbeStatus)
    epoch: float = 0.0
    """Seconds from 1970 to the zero of the clock of the probes."""


def health_status(
    health: Mapping[EndpointKey, Health],
    traffic: Mapping[EndpointKey, Health],
    judged: HealthSnapshot,
    *,
    timed: bool = False,
    in_detail: bool,
) -> HealthStatus:
    """The health that operators and programs are shown.

    `health` includes endpoints without a result yet; `traffic` is the health that traffic follows; `timed` includes the
    time of the last check, and `in_detail` all kept check results, which is ten times the work.
    """
    pasts = judged.histories
    last = {key: words for key, past in pasts.items() if (words := past.last()) is not None}
    detailed = last if in_detail else ()
    verdicts = {key: tuple(_status(check, judged.epoch) for check in pasts[key].verdicts()) for key in detailed}
    ended = ((key, pasts[key].last_at()) for key in (last if timed else ()))
    last_at = {key: utc_time(int(judged.epoch + at)) for key, at in ended if at is not None}
    return HealthStatus(health, traffic, judged.kept, judged.held_back, last, verdicts, last_at)


@lru_cache(4096)
def utc_time(seconds: int) -> str:
    """Return a time since 1970 as `2026-11-23T16:15:41+00:00`. Thousands of endpoints have the same few times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _status(check: CheckResult, epoch: float) -> VerdictStatus:
    at = datetime.fromtimestamp(epoch + check.at, UTC).isoformat(timespec="milliseconds")
    return VerdictStatus(at, check.ok, check.reason, round(check.duration, 6))
