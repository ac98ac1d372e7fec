"""Which releases are judged now, as this worker knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class RolloutWatch:
    """Holds it. Who follows the records of rollouts replaces `judged`; while that is empty, nothing is told."""

    judged: Mapping[str, str] = field(default_factory=dict)
    """The new release of each service in a rollout, by owner, `project/service`; empty for one without a name."""
