"""How much the compose files of one project may have, and how much of it is left while they are read.

Each file has a bound on its bytes and on its values. What one line can make large has a bound for all files together:
aliases, merge keys, `extends` and variables, of which each may stand for a file's length again and again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.interpolate import ExpansionError, interpolate

_MERGED_MAX = 4
"""How many entries may be merged for each one that may be read."""


@dataclass(frozen=True, slots=True)
class ComposeLimits:
    """The bounds of one compose file, and of what it names."""

    file_bytes: int = 4 << 20
    """The most bytes of the file, and of each that it names. Those that it names have 4 times as many together."""
    values: int = 20_000
    """The most YAML values in it: keys, texts, lists, mappings and aliases."""
    endpoints: int = 2000
    """The most instances that all files of a project may list. Each is an endpoint of the cluster, which costs the
    daemon fifty times as much as its text.
    """
    problems: int = 1000
    """The most problems that are kept of a project, errors before warnings; the rest is counted."""

    @property
    def entries(self) -> int:
        """The most entries that are read of it, with aliases and merge keys followed."""
        return 4 * self.values

    @property
    def characters(self) -> int:
        """The most characters of the texts that are read of it, with aliases and variables replaced."""
        return 2 * self.file_bytes


DEFAULT_LIMITS = ComposeLimits()
"""The bounds of the default settings."""


def compose_limits(settings: Settings) -> ComposeLimits:
    """Return the bounds that the settings ask for."""
    return ComposeLimits(
        file_bytes=settings.source_compose_file_bytes,
        values=settings.source_compose_values,
        endpoints=settings.source_compose_endpoints,
        problems=settings.source_compose_problems,
    )


class ComposeTooLargeError(MeshError):
    """Files that are larger than their bounds once aliases, variables and references are followed."""

    def __init__(self, code: Code, reason: str, remedy: str) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class ComposeBudget:
    """What the files of one project may still take of their bounds."""

    def __init__(self, limits: ComposeLimits = DEFAULT_LIMITS, files: int = 1) -> None:
        self.limits = limits
        self.excess: ComposeTooLargeError | None = None
        """What was too large; None as long as nothing was."""
        self._files = files
        self._read = self._merged = self._walked = self._endpoints = 0
        self._most_characters = files * limits.characters
        self._characters = self._most_characters

    def read(self, entries: int) -> None:
        """Take entries of the whole project. Raises `ComposeTooLargeError`, as the other methods do."""
        self._read += entries
        self._check(self._read, self._files * self.limits.entries)

    def merge(self, entries: int) -> None:
        """Take entries of declarations that are merged."""
        self._merged += entries
        self._check(self._merged, self._files * self.limits.entries * _MERGED_MAX)

    def list_endpoints(self, count: int) -> None:
        """Take instances that a service lists."""
        self._endpoints += count
        most = self.limits.endpoints
        if self._endpoints > most:
            self.excess = self.excess or ComposeTooLargeError(
                Code.COMPOSE_NOT_YAML,
                f"its services list more than {most} instances",
                "list fewer below x-endpoints, or raise [source.compose] endpoints",
            )
            raise self.excess

    def walk(self) -> None:
        """Take one entry of a file that is parsed. Those that the files name have room for as many as one file."""
        self._walked += 1
        self._check(self._walked, (self._files + 1) * self.limits.entries)

    def take(self, text: str) -> None:
        """Take the characters of a text. Raises `ExpansionError`."""
        self._characters -= len(text)
        if self._characters < 0:
            raise self.too_long()

    def fill(self, text: str, variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
        """Return a text with its variables replaced, and the unset ones. Raises `InterpolationError`.

        An alias is the same long text again and again, so a text without variables counts, too.
        """
        if self._characters < 0:
            raise self.too_long()
        if "$" not in text:
            self.take(text)
            return text, ()
        try:
            filled, unset = interpolate(text, variables, self._characters)
        except ExpansionError:
            self._characters = -1
            raise self.too_long() from None
        self._characters -= max(len(text), len(filled))
        if self._characters < 0:
            raise self.too_long()
        return filled, unset

    def too_long(self) -> ExpansionError:
        """Return the error of texts that are too long together."""
        self.excess = self.excess or ComposeTooLargeError(
            Code.COMPOSE_NOT_YAML,
            f"its values have more than {self._most_characters} characters with aliases and variables replaced",
            "write shorter values, or raise [source.compose] file_bytes",
        )
        return ExpansionError(self.excess.code, self.excess.reason, self.excess.remedy)

    def _check(self, taken: int, most: int) -> None:
        if taken > most:
            self.excess = self.excess or ComposeTooLargeError(
                Code.COMPOSE_NOT_YAML,
                f"aliases and references expand to more than {most} entries",
                "write the entries without aliases, or raise [source.compose] values",
            )
            raise self.excess


class ComposeProblems:
    """Keeps a bounded number of problems: errors before warnings, and the count of the rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found = 0
        self._of: dict[Severity, list[tuple[int, Problem]]] = {}
        """The first problems of each severity, each with its number."""
        self._breaking: tuple[int, Problem] | None = None
        """The first one that breaks a file: it is kept beside any number of others."""

    def add(self, problem: Problem) -> None:
        """Take the next problem."""
        self._found += 1
        kept = self._of.setdefault(problem.severity, [])
        if len(kept) < self._most:
            kept.append((self._found, problem))

    def add_breaking(self, problem: Problem) -> None:
        """Take the next problem, for which a file cannot be used."""
        if self._breaking is not None:
            self.add(problem)
            return
        self._found += 1
        self._breaking = self._found, problem

    def kept(self, where: str) -> tuple[Problem, ...]:
        """Return the problems that are kept, in the order in which they were found, and one that counts the rest.

        `where` is the file of the last one.
        """
        errors = self._of.get(Severity.ERROR, [])
        others = [each for severity, found in self._of.items() if severity is not Severity.ERROR for each in found]
        chosen = [*errors, *sorted(others, key=_number)[: self._most - len(errors)]]
        if self._breaking is not None:
            chosen.append(self._breaking)
        kept = tuple(problem for _, problem in sorted(chosen, key=_number))
        left = self._found - len(kept)
        if not left:
            return kept
        rest = Problem(
            Code.PROBLEMS_NOT_SHOWN,
            Severity.ERROR if len(errors) == self._most else Severity.WARNING,
            "the file",
            f"it has {left} more problems, which are not shown",
            "correct those that are shown, or raise [source.compose] problems",
            where=where,
        )
        return (*kept, rest)


def _number(numbered: tuple[int, Problem]) -> int:
    return numbered[0]
