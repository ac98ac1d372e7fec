"""What an explanation goes by: one moment of a worker, with what the probes, claims and data plane say in detail.

Taken down by the control loop in a moment; nobody changes it afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.control.snapshot import Observed
from mesh.health.state_machine import Verdict
from mesh.model import Address, Name, Table, Transport
from mesh.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Evidence:
    """The newest of everything, with its details."""

    observed: Observed
    domain: Name
    """What completes a bare name."""
    problems: tuple[Problem, ...] = ()
    """What was refused or ignored, as values."""
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)
    """The last verdicts on this worker's endpoints, by id, oldest first."""
    contested: frozenset[tuple[Transport, int]] = frozenset()
    """Published ports that programs of this worker listen on."""
    names: Mapping[Name, Address] = field(default_factory=dict)
    """What the name server answers."""
    programmed: Table = field(default_factory=Table)
    """What the last pass has left in the data plane."""
    now: float = 0.0
    """The clock of `Verdict.at`, in seconds."""
