"""What the loop tells: each thing once in the log, and all that still holds in the status.

The loop looks again and again and finds the same refusals each time; a log that repeats them hides the one line that
is new.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.dataplane import Failure
from mesh.dataplane.operations import Operation
from mesh.model.problem import Problem, Severity

log = logging.getLogger("vipmesh")

TOLD = 20
"""Lines in the log for one repair."""


@dataclass(slots=True)
class Journal:
    """What holds now. Every method may be called with the same again: it is not logged twice."""

    problems: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What was refused or ignored, by who found it."""
    told: dict[str, tuple[Problem, ...]] = field(default_factory=dict)
    """The same problems as values."""
    errors: dict[str, int] = field(default_factory=dict)
    """How many of the problems that each part finds are errors; the others are warnings."""
    failures: tuple[Failure, ...] = ()
    """What the data plane would not do in the last pass."""
    frozen: dict[str, str] = field(default_factory=dict)
    """Why a part's last good state stays in force, by part."""
    repairs: int = 0
    """How much of what somebody else had changed was mended, ever."""

    def found(self, part: str, problems: Sequence[Problem]) -> None:
        """These are all the problems that this part finds now."""
        lines = tuple(str(problem) for problem in problems)
        for problem, line in zip(problems, lines, strict=True):
            if line not in self.problems.get(part, ()):
                level = logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING
                fields = {"owner": problem.owner, "label": problem.label, "where": problem.where}
                log.log(level, "%s", line, extra={"fields": fields})
        self.problems[part] = lines
        self.told[part] = tuple(problems)
        self.errors[part] = sum(problem.severity is Severity.ERROR for problem in problems)

    def refused(self, failures: Sequence[Failure]) -> None:
        """These are all the operations that the data plane refuses now."""
        for failure in failures:
            if failure not in self.failures:
                log.error("data plane: %s: %s", failure.operation, failure.reason)
        self.failures = tuple(failures)

    def froze(self, part: str, reason: str) -> None:
        """This part does not answer."""
        if self.frozen.get(part) != reason:
            log.error("%s: %s; the last good state stays in force", part, reason)
            self.frozen[part] = reason

    def thawed(self, part: str) -> None:
        """This part answers."""
        if self.frozen.pop(part, None) is not None:
            log.info("%s answers again", part)

    def repaired(self, operations: Sequence[Operation]) -> None:
        """The plan is what it was, and yet there was something to do: somebody else has been here."""
        self.repairs += len(operations)
        for operation in operations[:TOLD]:
            log.warning("repaired: somebody changed the data plane: %s", operation)
        if len(operations) > TOLD:
            log.warning("repaired: %d operations more", len(operations) - TOLD)

    def mended(self, lines: Sequence[str], *, first: bool) -> None:
        """What the data plane stands on was set up (the first time), or somebody had changed it."""
        for line in lines:
            log.log(logging.INFO if first else logging.WARNING, "%s: %s", "set up" if first else "repaired", line)
        self.repairs += 0 if first else len(lines)
