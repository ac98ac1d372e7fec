"""Reads the keys of one service of compose files as plain values, and collects what is wrong with them. Pure.

Grammar of durations and sizes: compose specification, "Specifying durations" and "Specifying byte values".
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from mesh.config.labels.values import escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.limits import ComposeTooLargeError
from mesh.sources.compose.model import ComposeService
from mesh.sources.compose.tree import RESET, ComposeEntry, ComposeLayers, ComposeList, ComposeMapping, ComposeNode

PlainValue = str | list["PlainValue"] | dict[str, "PlainValue"] | None
"""A value with its variables replaced. Numbers and booleans are text, as compose writes them; null is None."""

T = TypeVar("T")

_SIZE = re.compile(r"([0-9]{1,18})(\.[0-9]{1,9})?\s*([kmgt]?)i?b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:h|ms|us|µs|ns|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+)(\.[0-9]+)?(h|ms|us|µs|ns|m|s)", re.ASCII)
_NANOS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "µs": 1_000}
_ITEM = re.compile(r"([\w-]+)(?:\[([0-9]+)\])?", re.ASCII)
_REPORTED_BY_READER = frozenset({"labels", "profiles", "x-endpoints"})
"""Keys whose variables the reader of compose files looks at."""
_UNSET_SHOWN = 10
"""The most unset variables of one key that are named; the rest is counted."""
_CPUS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)
_MOST = 10**18
"""Of bytes, nanoseconds and everything else: the engine keeps amounts in 64 bits."""


class StackValueError(MeshError):
    """A value that cannot be read."""

    def __init__(self, reason: str, remedy: str, code: Code = Code.STACK_VALUE) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class StackKeys:
    """Reads the keys of one service. What cannot be read is a problem and counts as absent."""

    def __init__(self, service: ComposeService) -> None:
        self.problems: list[Problem] = []
        self._service = service
        self._subject = f"service {escape_unprintable(service.name)}"
        self._values: dict[str, PlainValue] = {}
        for key, entry in service.keys.items():
            if key.startswith("x-"):
                continue
            unset: dict[str, None] = {}
            try:
                self._values[key] = plain_value(entry.value, unset)
            except (InterpolationError, ComposeTooLargeError) as error:
                self.refuse(key, error.reason, error.remedy, error.code)
            if key not in _REPORTED_BY_READER:
                self._warn_unset(key, list(unset))

    def _warn_unset(self, key: str, unset: list[str]) -> None:
        for name in map(escape_unprintable, unset[:_UNSET_SHOWN]):
            self.warn(key, f"variable {name} is not set and counts as empty", f"set {name}", Code.COMPOSE_VARIABLE)
        if len(unset) > _UNSET_SHOWN:
            reason = f"{len(unset) - _UNSET_SHOWN} more variables are not set and count as empty"
            self.warn(key, reason, "set them", Code.COMPOSE_VARIABLE)

    def get(self, path: str) -> PlainValue:
        """Return the value of `deploy.mode` and the like; None if it is absent or null."""
        first, *rest = path.split(".")
        value = self._values.get(first)
        for key in rest:
            if value is None:
                return None
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    def has(self, path: str) -> bool:
        """Return whether a key has a value that changes something: it is not null, false, or empty."""
        return self.get(path) not in (None, "", "false", [], {})

    def take(self, path: str, parse: Callable[[PlainValue], T], default: T) -> T:
        """Return the value as `parse` reads it, or the default if it is absent or refused."""
        value = self.get(path)
        if value is None:
            return default
        try:
            return parse(value)
        except StackValueError as error:
            self.refuse(path, error.reason, error.remedy, error.code)
            return default

    def paths(self) -> Iterator[str]:
        """Yield the path of each key, and of those below `deploy` and `healthcheck`."""
        for key, value in self._values.items():
            yield key
            if key in ("deploy", "healthcheck") and isinstance(value, dict):
                yield from _paths_below(key, value, 3)

    def refuse(self, path: str, reason: str, remedy: str, code: Code = Code.STACK_VALUE) -> None:
        """Add an error: the service cannot be had as it was meant."""
        self._add(code, Severity.ERROR, path, reason, remedy)

    def warn(self, path: str, reason: str, remedy: str, code: Code = Code.STACK_KEY_IGNORED) -> None:
        """Add a warning: the service is had without what the key says."""
        self._add(code, Severity.WARNING, path, reason, remedy)

    def _add(self, code: Code, severity: Severity, path: str, reason: str, remedy: str) -> None:
        about = f"{self._subject}, {escape_unprintable(path, 100)}" if path else self._subject
        self.problems.append(Problem(code, severity, about, reason, remedy, where=self._where(path)))

    def _where(self, path: str) -> str:
        match = _ITEM.match(path)
        entry = self._service.keys.get(match[1]) if match else None
        if match is None or entry is None:
            return self._service.where
        item = self._item(match[1], int(match[2])) if match[2] else None
        return entry.where if item is None else item.origin.where(item.line)

    def _item(self, key: str, number: int) -> ComposeNode | None:
        entry = self._service.keys.get(key)
        value = None if entry is None else entry.value
        return value.items[number] if isinstance(value, ComposeList) and number < len(value.items) else value

    def directory(self, key: str, number: int) -> str:
        """Return the directory in which relative paths of the item of a list begin: that of its own file."""
        item = self._item(key, number)
        return "" if item is None else item.origin.directory


def _paths_below(path: str, value: Mapping[str, PlainValue], levels: int) -> Iterator[str]:
    for key, below in value.items():
        yield f"{path}.{key}"
        if levels and isinstance(below, dict) and key != "labels":
            yield from _paths_below(f"{path}.{key}", below, levels - 1)


def plain_value(node: ComposeNode, unset: dict[str, None]) -> PlainValue:
    """Return the value of a tree, and add the variables that are not set to `unset`.

    Raises `InterpolationError`, and `ComposeTooLargeError`: a few aliases may stand for any number of values.
    """
    node.origin.budget.read(1)
    if isinstance(node, ComposeMapping):
        entries = ((key, entry.value) for key, entry in node.entries.items() if entry.value.tag != RESET)
        return {key: plain_value(value, unset) for key, value in entries}
    if isinstance(node, ComposeList):
        return [plain_value(item, unset) for item in node.items]
    if isinstance(node, ComposeLayers):
        return _merged_pairs(plain_value(layer, unset) for layer in node.layers)
    if node.is_null:
        return None
    text, names = node.fill()
    unset.update(dict.fromkeys(names))
    return text


def _merged_pairs(layers: Iterable[PlainValue]) -> PlainValue:
    pairs: list[PlainValue] = []
    for layer in layers:
        if isinstance(layer, dict):
            for key, value in layer.items():
                values = value if isinstance(value, list) else [value]
                pairs += [key if each is None else f"{key}={each}" for each in values]
        elif isinstance(layer, list):
            pairs += layer
    return pairs


def entry_value(entry: ComposeEntry | None) -> PlainValue:
    """Return the value of an entry of a file; None if it is absent or cannot be read."""
    if entry is None:
        return None
    try:
        return plain_value(entry.value, {})
    except (InterpolationError, ComposeTooLargeError):
        return None


def parse_text(value: PlainValue) -> str:
    """Return a single text. Raises `StackValueError`, as the other functions do."""
    if not isinstance(value, str):
        raise StackValueError("it is not a single text", "write one text")
    if "\0" in value:
        raise StackValueError("it has a NUL character", "remove it")
    return value


def parse_texts(value: PlainValue) -> tuple[str, ...]:
    """Return one text or a list of texts, without empty ones."""
    items = value if isinstance(value, list) else [value]
    return tuple(parse_text(item) for item in items if item not in (None, ""))


def parse_mapping(value: PlainValue) -> dict[str, PlainValue]:
    """Return a mapping."""
    if not isinstance(value, dict):
        raise StackValueError("it is not a mapping", "write KEY: VALUE below it")
    return value


def parse_pairs(value: PlainValue) -> dict[str, str]:
    """Return `KEY: VALUE` pairs of a mapping or of a list of `KEY=VALUE`; a later one wins."""
    if isinstance(value, dict):
        return {key: "" if below is None else parse_text(below) for key, below in value.items()}
    pairs = (text.partition("=") for text in parse_texts(value))
    return {key: below for key, _, below in pairs}


def parse_flag(value: PlainValue) -> bool:
    """Return a boolean."""
    text = parse_text(value).lower()
    if text not in ("true", "false"):
        raise StackValueError(f"{quote_value(text)} is neither true nor false", "write true or false")
    return text == "true"


def parse_whole(value: PlainValue, low: int = 0, high: int = _MOST) -> int:
    """Return a whole number between two, both included."""
    text = parse_text(value)
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) or not low <= int(text) <= high:
        bounds = f"from {low} to {high}" if high < _MOST else f"from {low}"
        raise StackValueError(f"{quote_value(text)} is out of range", f"write a whole number {bounds}")
    return int(text)


def parse_size(value: PlainValue) -> int:
    """Return a number of bytes: `64m`, `1.5gb`, `1024`."""
    text = parse_text(value).strip()
    match = _SIZE.fullmatch(text)
    if match is None:
        raise StackValueError(f"{quote_value(text)} is not a size", "write a number with k, m or g, such as 512m")
    factor: int = 1024 ** _POWERS[match[3].lower()]
    fraction = match[2] or ".0"
    size = int(match[1]) * factor + int(fraction[1:]) * factor // 10 ** len(fraction[1:])
    return _bounded(size, text)


def parse_duration(value: PlainValue) -> int:
    """Return a time in nanoseconds: `1m30s`, `500ms`; a number alone is in seconds."""
    text = parse_text(value).strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII):
        text += "s"
    if not _DURATION.fullmatch(text):
        raise StackValueError(f"{quote_value(text)} is not a duration", "write a number and its unit, such as 1m30s")
    total = 0
    for whole, fraction, unit in _DURATION_PART.findall(text):
        factor = _NANOS.get(unit, 1)
        digits = fraction[1:] or "0"
        total += int(whole) * factor + int(digits) * factor // 10 ** len(digits)
    return _bounded(total, text)


def parse_cpus(value: PlainValue) -> int:
    """Return a number of cores in billionths: `0.5`."""
    text = parse_text(value).strip()
    if not _CPUS.fullmatch(text):
        raise StackValueError(f"{quote_value(text)} is not a number of cores", "write a number such as 0.5")
    whole, _, fraction = text.partition(".")
    return _bounded(int(whole) * 10**9 + int(fraction.ljust(9, "0") or "0"), text)


def _bounded(amount: int, text: str) -> int:
    if amount > _MOST:
        raise StackValueError(f"{quote_value(text)} is too large", "write a smaller one")
    return amount
