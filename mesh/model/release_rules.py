"""How a new release takes the place of the old one by shares of new connections, as frozen values."""

from dataclasses import dataclass
from enum import StrEnum

from mesh.model.release_shares import WHOLE

MAX_STEPS = 20
"""The most steps of a rollout."""
MAX_STEP_SECONDS = 7 * 86_400
"""The longest time of one step in seconds."""
DEADLINE = 3600
"""Seconds for which a new release may be neither good nor bad in one step, unless a label says otherwise."""


class ReleaseStrategy(StrEnum):
    """A strategy that moves shares, and keeps the old release whole until it is confirmed."""

    CANARY = "canary"
    PROGRESSIVE = "progressive"
    BLUE_GREEN = "blue-green"


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """One step of a rollout."""

    points: int
    """The share of the new release, in hundredths of a per cent."""
    seconds: int = 0
    """How long it takes at least."""
    is_held: bool = False
    """Whether it lasts until an operator promotes the release."""


DEFAULT_STEPS = {
    ReleaseStrategy.CANARY: (ReleaseStep(WHOLE // 10, is_held=True),),
    ReleaseStrategy.PROGRESSIVE: (
        ReleaseStep(WHOLE // 100, 300),
        ReleaseStep(WHOLE // 10, 600),
        ReleaseStep(WHOLE // 2, 600),
    ),
    ReleaseStrategy.BLUE_GREEN: (ReleaseStep(0, is_held=True),),
}
"""The steps of each strategy unless a label names others."""


@dataclass(frozen=True, slots=True)
class ReleaseRules:
    """What the labels of an instance say of a rollout of its release."""

    strategy: ReleaseStrategy
    steps: tuple[ReleaseStep, ...]
    deadline: int = DEADLINE
    """Seconds for which it may be neither good nor bad in one step; then the rollout is aborted."""
    max_failures: float | None = None
    """Per cent; None: that of the judge."""
    min_connections: int | None = None
    """None: that of the judge."""
    checks: tuple[str, ...] = ()
    """The labels of its checks, without prefix."""
