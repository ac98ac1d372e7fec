"""Reads the environment of a service: `env_file`, and above it `environment`.

Whoever starts containers needs it, and `vipmesh check` says what is wrong with it. Values may be secrets: no message
has one.
"""

from collections.abc import Iterator

from mesh.config.labels.values import escape_unprintable
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.limits import ComposeBudget, ComposeTooLargeError
from mesh.sources.compose.merge import plain_text
from mesh.sources.compose.model import ComposeService
from mesh.sources.compose.references import (
    ComposeFiles,
    ComposeReferenceError,
    ComposeVariableFiles,
    resolve_path,
)
from mesh.sources.compose.tree import RESET, ComposeLayers, ComposeList, ComposeMapping, ComposeNode, ComposeScalar

_FALSE = frozenset({"false", "no", "off", "n"})
PLACEMENT_PREFIXES = ("constraint:", "affinity:", "availability:", "reschedule:")
"""Entries of classic Swarm's scheduler, written among the environment. They are no variables."""


def read_environment(service: ComposeService, files: ComposeFiles) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """Return the variables of a service's containers, and what is wrong with them, as `EnvironmentReader.read`."""
    entry = next(iter(service.keys.values()), None)
    budget = ComposeBudget() if entry is None else ComposeBudget(entry.origin.budget.limits)
    return EnvironmentReader(files, budget).read(service)


class EnvironmentReader:
    """Reads the environments of several services of a project, all together within `budget`."""

    def __init__(self, files: ComposeFiles, budget: ComposeBudget) -> None:
        self._files = files
        self._budget = budget
        self._variables = ComposeVariableFiles(files)

    def read(self, service: ComposeService) -> tuple[dict[str, str], tuple[Problem, ...]]:
        """Return the variables of a service's containers, and what is wrong with them.

        A name without a value has the value that the variables of its file give it, and is left out if they have none.
        A file that cannot be read and a value whose variables cannot be replaced are problems, and the rest is
        returned. Once the budget is spent, which is a problem, too, there is no rest.
        """
        found: dict[str, str] = {}
        problems: list[Problem] = []
        subject = f"service {escape_unprintable(service.name)}"
        try:
            self._read_files(subject, service, found, problems)
            self._read_values(subject, service, found, problems)
        except ComposeTooLargeError as error:
            problems.append(
                Problem(error.code, Severity.ERROR, subject, error.reason, error.remedy, where=service.where)
            )
        return found, tuple(problems)

    def _read_files(
        self, subject: str, service: ComposeService, found: dict[str, str], problems: list[Problem]
    ) -> None:
        for node in _items(service, "env_file"):
            self._budget.read(1)
            try:
                found |= self._env_file(node)
            except ComposeReferenceError as error:
                about = f"{subject}, env_file"
                problems.append(
                    Problem(error.code, Severity.ERROR, about, error.reason, error.remedy, where=error.where)
                )

    def _read_values(
        self, subject: str, service: ComposeService, found: dict[str, str], problems: list[Problem]
    ) -> None:
        for written, node in _pairs(service):
            self._budget.read(1)
            try:
                name, value = self._variable(written, node)
            except InterpolationError as error:
                if self._budget.excess is not None:
                    raise self._budget.excess from None
                about, where = f"{subject}, environment", node.origin.where(node.line)
                problems.append(Problem(error.code, Severity.ERROR, about, error.reason, error.remedy, where=where))
                continue
            found.pop(name, None)
            if value is not None and not name.startswith(PLACEMENT_PREFIXES):
                found[name] = value

    def _env_file(self, node: ComposeNode) -> dict[str, str]:
        """Return the variables of one entry of `env_file`. Raises `ComposeReferenceError`."""
        where = node.origin.where(node.line)
        keys = node.entries if isinstance(node, ComposeMapping) else {}
        named = keys["path"].value if "path" in keys else node
        if not isinstance(named, ComposeScalar):
            raise ComposeReferenceError(where, "it names no file", "write path: FILE")
        if named.is_null:
            return {}
        path = resolve_path(named)
        if "required" in keys and plain_text(keys["required"].value).lower() in _FALSE:
            try:
                self._files.read(path)
            except FileNotFoundError:
                return {}
            except (OSError, UnicodeDecodeError):
                pass  # the reader of variables says why
        is_raw = "format" in keys and plain_text(keys["format"].value) == "raw"
        variables = self._variables.read(path, where, named.origin.variables, self._budget, raw=is_raw)
        return {name: value for name, value in variables.values.items() if value is not None}

    def _variable(self, name: str | None, node: ComposeScalar) -> tuple[str, str | None]:
        """Return name and value; the value is None if there is none. Raises `InterpolationError`."""
        if name is None:
            name, separator, value = node.fill(self._budget)[0].partition("=")
            return name, value if separator else node.origin.variables.get(name)
        if node.tag == RESET:
            return name, None
        return name, node.origin.variables.get(name) if node.is_null else node.fill(self._budget)[0]


def _items(service: ComposeService, key: str) -> tuple[ComposeNode, ...]:
    if key not in service.keys:
        return ()
    value = service.keys[key].value
    return value.items if isinstance(value, ComposeList) else (value,)


def _pairs(service: ComposeService) -> Iterator[tuple[str | None, ComposeScalar]]:
    """Yield the name and the value of each variable. In a list the name is None: it is part of the value."""
    entry = service.keys.get("environment")
    layers = () if entry is None else entry.value.layers if isinstance(entry.value, ComposeLayers) else (entry.value,)
    for layer in layers:
        if isinstance(layer, ComposeMapping):
            for name, below in layer.entries.items():
                if isinstance(below.value, ComposeScalar):
                    yield name, below.value
        elif isinstance(layer, ComposeList):
            yield from ((None, item) for item in layer.items if isinstance(item, ComposeScalar))
