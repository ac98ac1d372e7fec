"""What is wrong with something a user wrote: what, where, and what to write instead.

A problem is a value, not an exception: one bad label never hides the next, and one bad service never stops the
others. `vipmesh check` prints them, the daemon logs them and shows them in `status`.
"""

from dataclasses import dataclass
from enum import StrEnum

from mesh.model.codes import Code
from mesh.model.errors import CodedText


class Severity(StrEnum):
    """Whether the thing was refused or only looks wrong."""

    ERROR = "error"
    """Refused: it has no effect until it is mended. `check` exits 1."""
    WARNING = "warning"
    """Taken, without the part that is named."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `str()` gives the line a user reads, without its code."""

    code: Code
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

    @property
    def coded(self) -> CodedText:
        """The same line together with its code."""
        return CodedText(str(self), self.code)


@dataclass(frozen=True, slots=True)
class Notices:
    """What holds now and has a code. The JSON forms of status and explanations have the texts alone."""

    problems: tuple[Problem, ...] = ()
    """What was refused or ignored."""
    failures: tuple[CodedText, ...] = ()
    """What the data plane would not do."""
    frozen: tuple[CodedText, ...] = ()
    """What does not answer, so that its last good state stays in force."""
    suspicions: tuple[CodedText, ...] = ()
    """Where so many endpoints fail at once that the verdicts are not obeyed."""
