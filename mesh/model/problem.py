"""What is wrong with something a user wrote: what, where, and what to write instead.

A problem is a value, not an exception: one bad label never hides the next, and one bad service never stops the
others. `vipmesh check` prints them, the daemon logs them and shows them in `status`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether the thing was refused or only looks wrong."""

    ERROR = "error"
    """Refused: it has no effect until it is mended. `check` exits 1."""
    WARNING = "warning"
    """Taken, without the part that is named."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `str()` gives the line a user reads."""

    severity: Severity
    subject: str
    """What it is about: `service server, label aliyun.routing.port_80`."""
    reason: str
    remedy: str
    """What to write instead, an imperative."""
    label: str | None = None
    """The label's full key, if the problem is with one label."""
    where: str | None = None
    """`FILE:LINE` or the container, filled in by whoever knows it."""
    owner: str | None = None
    """The `Service.owner` it is about, filled in by whoever knows it."""

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{where}{self.severity}: {self.subject}: {self.reason}; {self.remedy}"
