"""What holds now in a part of the daemon: each condition once in the log, and all of them for the status.

A loop that looks again finds the same refusals each time; a log that repeats them hides the one line that is new.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.model.errors import CodedText, MeshError
from mesh.model.problem import Problem, Severity

log = logging.getLogger("vipmesh")

MAX_PROBLEMS = 1000
"""The most problems of one part that are kept one by one: whoever causes a hundred thousand must not stall the loop."""


@dataclass(slots=True)
class Conditions:
    """Keeps what holds now. A method that is called with the same again logs nothing."""

    problems: dict[str, tuple[Problem, ...]] = field(default_factory=dict)
    """What was refused or ignored, by the part that found it."""
    frozen: dict[str, CodedText] = field(default_factory=dict)
    """Why a part's last good state stays in force, by part."""

    def found(self, part: str, problems: Sequence[Problem]) -> None:
        """These are all the problems that this part finds now; beyond `MAX_PROBLEMS` they are counted."""
        if problems is self.problems.get(part):
            return
        problems = _bounded(part, problems)
        known = {str(problem) for problem in self.problems.get(part, ())}
        for problem in problems:
            line = str(problem)
            if line not in known:
                level = logging.ERROR if problem.severity is Severity.ERROR else logging.WARNING
                fields = {"owner": problem.owner, "label": problem.label, "where": problem.where}
                log.log(level, "%s", line, extra={"fields": fields, **problem.code.extra})
        self.problems[part] = tuple(problems)

    def froze(self, part: str, error: MeshError) -> None:
        """This part does not answer."""
        if self.frozen.get(part) != error.coded:
            log.error("%s: %s; the last good state stays in force", part, error, extra=error.code.extra)
            self.frozen[part] = error.coded

    def thawed(self, part: str) -> None:
        """This part answers."""
        if self.frozen.pop(part, None) is not None:
            log.info("%s answers again", part)


def _bounded(part: str, problems: Sequence[Problem]) -> Sequence[Problem]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    left_out = len(problems) - MAX_PROBLEMS
    more = Problem(
        problems[MAX_PROBLEMS].code,
        Severity.ERROR,
        part,
        f"{left_out} more problems are not shown",
        "solve those that are shown, which come first",
    )
    return (*problems[:MAX_PROBLEMS], more)
