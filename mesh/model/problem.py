"""Problems: findings about what a user wrote, with the place, the reason and what to write instead.

A problem is a value, not an exception: one bad label never hides the next, and one bad service never stops the others.
`vipmesh check` prints problems; the daemon logs them and shows them in `status`.
"""

from dataclasses import dataclass
from enum import StrEnum

from mesh.model.codes import Code
from mesh.model.errors import CodedText

MAX_PROBLEM_TEXT = 1000
"""The most characters of each text of a problem. What a text quotes comes from outside."""


class Severity(StrEnum):
    """Whether the subject was refused or only looks wrong."""

    ERROR = "error"
    """Refused: it has no effect until it is corrected. `check` exits with 1."""
    WARNING = "warning"
    """Accepted, except for the part that the problem names."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `str()` returns the line that a user reads, without its code. Longer texts are cut."""

    code: Code
    severity: Severity
    subject: str
    """The subject, with its place in the source: `service server, label aliyun.routing.port_80`."""
    reason: str
    """The state of the subject that is wrong."""
    remedy: str
    """The remedy, as an imperative."""
    label: str | None = None
    """The label's full key, or None if the problem is not about one label."""
    where: str | None = None
    """`FILE:LINE` or the container; None until the part that knows it fills it in."""
    owner: str | None = None
    """The `Service.owner` that the problem is about; None until the part that knows it fills it in."""

    def __post_init__(self) -> None:
        for name in ("subject", "reason", "remedy"):
            text = getattr(self, name)
            if len(text) > MAX_PROBLEM_TEXT:
                object.__setattr__(self, name, f"{text[: MAX_PROBLEM_TEXT - 3]}...")

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{where}{self.severity}: {self.subject}: {self.reason}; {self.remedy}"

    @property
    def coded(self) -> CodedText:
        """The line of `str()` together with its code."""
        return CodedText(str(self), self.code)


@dataclass(frozen=True, slots=True)
class Notices:
    """Current conditions that have a code. The JSON forms of status and explanations contain the texts alone."""

    problems: tuple[Problem, ...] = ()
    """Refused or ignored labels, names and ports."""
    failures: tuple[CodedText, ...] = ()
    """Operations that the data plane refused."""
    frozen: tuple[CodedText, ...] = ()
    """Parts that do not answer, so that their last good state stays in force."""
    suspicions: tuple[CodedText, ...] = ()
    """Suspected mass failures, in which traffic does not follow the verdicts."""
