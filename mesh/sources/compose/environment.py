"""Reads the environment of a service: `env_file`, and above it `environment`.

Whoever starts containers needs it, and `vipmesh check` says what is wrong with it. Values may be secrets: no message
has one.
"""

from collections.abc import Iterator

from mesh.config.labels.values import escape_unprintable
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.env_file import EnvFileError, parse_env_file
from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.merge import plain_text
from mesh.sources.compose.model import ComposeService
from mesh.sources.compose.references import (
    ComposeFiles,
    ComposeReferenceError,
    read_reference,
    resolve_path,
    shown_path,
)
from mesh.sources.compose.tree import RESET, ComposeLayers, ComposeList, ComposeMapping, ComposeNode, ComposeScalar

_FALSE = frozenset({"false", "no", "off", "n"})


def read_environment(service: ComposeService, files: ComposeFiles) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """Return the variables of a service's containers, and what is wrong with them.

    A name without a value has the value that the variables of its file give it, and is left out if they have none. A
    file that cannot be read and a value whose variables cannot be replaced are problems, and the rest is returned.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    subject = f"service {escape_unprintable(service.name)}"
    for node in _items(service, "env_file"):
        try:
            found |= _read_env_file(node, files)
        except ComposeReferenceError as error:
            problems.append(
                Problem(
                    error.code, Severity.ERROR, f"{subject}, env_file", error.reason, error.remedy, where=error.where
                )
            )
    entry = service.keys.get("environment")
    layers = () if entry is None else entry.value.layers if isinstance(entry.value, ComposeLayers) else (entry.value,)
    for layer in layers:
        for written, node in _pairs(layer):
            try:
                name, value = _variable(written, node)
            except InterpolationError as error:
                about, where = f"{subject}, environment", node.origin.where(node.line)
                problems.append(Problem(error.code, Severity.ERROR, about, error.reason, error.remedy, where=where))
                continue
            found.pop(name, None)
            if value is not None:
                found[name] = value
    return found, tuple(problems)


def _items(service: ComposeService, key: str) -> tuple[ComposeNode, ...]:
    if key not in service.keys:
        return ()
    value = service.keys[key].value
    return value.items if isinstance(value, ComposeList) else (value,)


def _read_env_file(node: ComposeNode, files: ComposeFiles) -> dict[str, str]:
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
            files.read(path)
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError):
            pass  # read_reference says why
    is_raw = "format" in keys and plain_text(keys["format"].value) == "raw"
    try:
        values, _ = parse_env_file(read_reference(files, path, where), named.origin.variables, raw=is_raw)
    except EnvFileError as error:
        raise ComposeReferenceError(where, f"{shown_path(path)}:{error.line}: {error.reason}", error.remedy) from None
    return {name: value for name, value in values.items() if value is not None}


def _pairs(layer: ComposeNode) -> Iterator[tuple[str | None, ComposeScalar]]:
    """Yield the name and the value of each variable. In a list the name is None: it is part of the value."""
    if isinstance(layer, ComposeMapping):
        for name, entry in layer.entries.items():
            if isinstance(entry.value, ComposeScalar):
                yield name, entry.value
    elif isinstance(layer, ComposeList):
        yield from ((None, item) for item in layer.items if isinstance(item, ComposeScalar))


def _variable(name: str | None, node: ComposeScalar) -> tuple[str, str | None]:
    """Return name and value; the value is None if there is none. Raises `InterpolationError`."""
    if name is None:
        name, separator, value = node.fill()[0].partition("=")
        return name, value if separator else node.origin.variables.get(name)
    if node.tag == RESET:
        return name, None
    return name, node.origin.variables.get(name) if node.is_null else node.fill()[0]
