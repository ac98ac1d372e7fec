"""What autoscaling has decided of a service last, for those who look at the worker that acts."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServiceScaling:
    """The last decision on one service. A new one is made every ten seconds."""

    service: str
    """`PROJECT/SERVICE`."""
    instances: int
    """How many the engine kept when it was decided."""
    wanted: int
    """The same if nothing changes."""
    min_instances: int
    max_instances: int
    """The bounds at that time, those of the schedule included."""
    reason: str
    """`load`, `in range`, `cooldown`, `set aside`, `rollout`, `missing samples` ...: stable, for programs."""
    text: str
    """The reason in words, with what was measured."""
    values: Mapping[str, float] = field(default_factory=dict)
    """The averages of the last samples by measure: `cpu` and `memory` in per cent."""
