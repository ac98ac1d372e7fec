"""Keeps a bounded number of the problems of one file: errors before warnings, and the count of the rest."""

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity


class FileProblems:
    """Collects the problems of one file as they are found."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found = 0
        self._of: dict[Severity, list[tuple[int, Problem]]] = {}
        """The first problems of each severity, each with its number."""

    def add(self, problem: Problem) -> None:
        """Take the next problem."""
        self._found += 1
        kept = self._of.setdefault(problem.severity, [])
        if len(kept) < self._most:
            kept.append((self._found, problem))

    def kept(self, filename: str) -> tuple[Problem, ...]:
        """Return the problems that are kept, in the order in which they were found, and one that counts the rest."""
        errors = self._of.get(Severity.ERROR, [])
        others = [each for severity, found in self._of.items() if severity is not Severity.ERROR for each in found]
        chosen = sorted([*errors, *sorted(others, key=_number)[: self._most - len(errors)]], key=_number)
        kept = tuple(problem for _, problem in chosen)
        left = self._found - len(kept)
        if not left:
            return kept
        rest = Problem(
            Code.PROBLEMS_NOT_SHOWN,
            Severity.ERROR if len(errors) == self._most else Severity.WARNING,
            "the file",
            f"it has {left} more problems, which are not shown",
            "correct those that are shown, or raise [source.compose] problems",
            where=filename,
        )
        return (*kept, rest)


def _number(numbered: tuple[int, Problem]) -> int:
    return numbered[0]
