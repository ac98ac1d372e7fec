"""What the probes of a worker have come to, taken down in a moment and told at leisure. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from mesh.model.errors import CodedText
from mesh.model.service import EndpointKey, Health


@dataclass(frozen=True, slots=True)
class VerdictStatus:
    """The outcome of one check."""

    at: str
    """When it ended, in UTC: `2026-11-23T16:15:41.123+00:00`."""
    ok: bool
    reason: str
    seconds: float
    """How long it took."""


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """What the prober of this worker does; the counts are since its start."""

    endpoints: int = 0
    """How many it asks."""
    checks: int = 0
    failures: int = 0
    late: int = 0
    """Checks that began more than a tenth of a second after their time."""


@dataclass(frozen=True, slots=True)
class HealthStatus:
    """What is known of the endpoints' health."""

    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    traffic: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What traffic follows; usually the same."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy, and in traffic all the same."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Answers, and is not believed yet."""
    last: Mapping[EndpointKey, str] = field(default_factory=dict)
    """What the last check has found, of each endpoint that this worker asks."""
    verdicts: Mapping[EndpointKey, tuple[VerdictStatus, ...]] = field(default_factory=dict)
    """The last ones, oldest first, for whoever wants them."""


class CheckResult(Protocol):
    """The outcome of one check."""

    @property
    def ok(self) -> bool:
        """Whether the endpoint works."""
        ...

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        ...

    @property
    def duration(self) -> float:
        """Seconds."""
        ...

    @property
    def at(self) -> float:
        """When it ended, by the clock of the probes."""
        ...


class PastChecks(Protocol):
    """The last checks of one endpoint; may be asked in any thread."""

    def verdicts(self) -> Sequence[CheckResult]:
        """Oldest first."""
        ...

    def last(self) -> str | None:
        """What the last one has found; None: there was none yet."""
        ...


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """One moment of the probes."""

    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What counts of the endpoints that this worker asks in the place of others."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy ones that stay in traffic."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Those that answer, and have come and gone too often."""
    histories: Mapping[EndpointKey, PastChecks] = field(default_factory=dict)
    """The last checks of each endpoint that this worker probes."""
    suspicions: tuple[CodedText, ...] = ()
    """What is suspected, a line each."""
    probes: ProbeStatus = field(default_factory=ProbeStatus)
    epoch: float = 0.0
    """Seconds from 1970 to the zero of the clock of the probes."""


def health_status(
    health: Mapping[EndpointKey, Health],
    traffic: Mapping[EndpointKey, Health],
    judged: HealthSnapshot,
    *,
    in_detail: bool,
) -> HealthStatus:
    """What operators and programs are shown. `health`: with endpoints that start; `traffic`: what traffic follows;
    `in_detail`: with all verdicts that are kept, which is ten times the work.
    """
    pasts = judged.histories
    last = {key: words for key, past in pasts.items() if (words := past.last()) is not None}
    detailed = last if in_detail else ()
    verdicts = {key: tuple(_status(check, judged.epoch) for check in pasts[key].verdicts()) for key in detailed}
    return HealthStatus(health, traffic, judged.kept, judged.held_back, last, verdicts)


def _status(check: CheckResult, epoch: float) -> VerdictStatus:
    at = datetime.fromtimestamp(epoch + check.at, UTC).isoformat(timespec="milliseconds")
    return VerdictStatus(at, check.ok, check.reason, round(check.duration, 6))
