"""What the parts count while the daemon runs, for the metrics. The counts begin at 0 with the process."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mesh.api.metrics.text_format import Histogram
from mesh.dataplane.diff import (
    AddRealServer,
    AddVirtualServer,
    BindVip,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
    Operation,
    UnbindVip,
)
from mesh.model import ProbeKind

OPERATIONS: Mapping[type[Operation], str] = MappingProxyType(
    {
        AddVirtualServer: "add_virtual_server",
        EditVirtualServer: "edit_virtual_server",
        DeleteVirtualServer: "delete_virtual_server",
        AddRealServer: "add_real_server",
        EditRealServer: "edit_real_server",
        DeleteRealServer: "delete_real_server",
        BindVip: "bind_vip",
        UnbindVip: "unbind_vip",
    }
)
"""What the metrics call each kind of operation."""


def kind_of(operation: Operation) -> str:
    """What the metrics call it."""
    return OPERATIONS[type(operation)]


@dataclass(slots=True)
class LoopFigures:
    """Of the control loop."""

    passes: int = 0
    """Those that came to their end."""
    stalls: int = 0
    """Those that ended without effect, since the data plane did not answer."""
    pass_seconds: Histogram = field(default_factory=Histogram)
    """How long each took that came to its end."""
    looked_at: float = 0.0
    """When the loop last came round, seconds since the epoch; 0: it has not begun."""
    operations: Counter[str] = field(default_factory=Counter)
    """What was done to the data plane, by kind of operation."""
    refusals: Counter[str] = field(default_factory=Counter)
    """What the data plane would not do, by kind of operation."""

    def copy(self) -> "LoopFigures":
        """As they are now, for whoever reads them in another thread."""
        return LoopFigures(
            self.passes,
            self.stalls,
            self.pass_seconds.copy(),
            self.looked_at,
            self.operations.copy(),
            self.refusals.copy(),
        )


@dataclass(slots=True)
class ProbeFigures:
    """Of the prober."""

    verdicts: Counter[tuple[ProbeKind, bool]] = field(default_factory=Counter)
    """How many checks came to which end: (kind, whether the endpoint works)."""
    seconds: Histogram = field(default_factory=Histogram)
    """How long each check took."""
    in_flight: int = 0
    waiting: int = 0
    """Due, but there is no room."""

    def copy(self) -> "ProbeFigures":
        """As they are now, for whoever reads them in another thread."""
        return ProbeFigures(self.verdicts.copy(), self.seconds.copy(), self.in_flight, self.waiting)
