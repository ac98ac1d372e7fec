"""Reads an object of the engine's JSON field by field, and notes what nobody asked for. Pure.

Nothing here raises: a field of another type, or beyond its bound, counts as missing and is noted like one that is not
known. So is a key that is left at the end and says something.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TypeVar

from mesh.config.labels.values import escape_unprintable

T = TypeVar("T")

MAX_TEXT = 1 << 16
"""The most characters of one text."""
MAX_ENTRIES = 4096
"""The most entries of one list or object."""
MAX_NUMBER = (1 << 63) - 1
MAX_NOTES = 64
"""The most notes; the rest is not noted."""
_MAX_PATH = 120
"""The most characters of a note."""
_MAX_DEPTH = 8
"""Objects of one field that are looked into for whether they say something."""


class FieldNotes:
    """The paths of fields that cannot be read or are not known, each once: `TaskTemplate.ContainerSpec.Privileges`."""

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}

    def add(self, path: str) -> None:
        """Note a path."""
        if len(self._paths) < MAX_NOTES:
            self._paths[escape_unprintable(path)[:_MAX_PATH]] = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths in order of their names."""
        return tuple(sorted(self._paths))


class JsonFields:
    """The fields of one object. Each field may be read once; `end` notes the others."""

    def __init__(self, raw: object, path: str, notes: FieldNotes) -> None:
        """`raw`: decoded JSON; anything but an object counts as an empty one. `path`: where it is, for the notes."""
        self.notes = notes
        self.path = path
        self.raw: dict[str, object] = {}
        if isinstance(raw, Mapping):
            self.raw = {key: value for key, value in islice(raw.items(), MAX_ENTRIES) if isinstance(key, str)}
        elif raw is not None:
            notes.add(path)

    def text(self, name: str) -> str:
        """Return a text; empty if it is missing."""
        value = self.raw.pop(name, None)
        if value is None or is_text(value):
            return str(value or "")
        return self._unreadable(name, "")

    def number(self, name: str, default: int = 0, *, low: int = 0) -> int:
        """Return a whole number of `low` and more; `default` if it is missing."""
        value = self.raw.pop(name, None)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= MAX_NUMBER:
            return value
        return self._unreadable(name, default)

    def flag(self, name: str) -> bool | None:
        """Return true or false; None if it is missing."""
        value = self.raw.pop(name, None)
        return value if value is None or isinstance(value, bool) else self._unreadable(name, None)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; empty if it is missing."""
        value = self.raw.pop(name, None)
        if isinstance(value, list) and len(value) <= MAX_ENTRIES and all(map(is_text, value)):
            return tuple(value)
        return () if value is None else self._unreadable(name, ())

    def labels(self, name: str) -> dict[str, str]:
        """Return an object of texts; empty if it is missing."""
        value = self.raw.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or len(value) > MAX_ENTRIES:
            return self._unreadable(name, {})
        if not all(is_text(key) and is_text(each) for key, each in value.items()):
            return self._unreadable(name, {})
        return dict(value)

    def fields(self, name: str) -> "JsonFields":
        """Return the fields of an object; none if it is missing."""
        return JsonFields(self.raw.pop(name, None), f"{self.path}{name}.", self.notes)

    def each(self, name: str) -> Iterator["JsonFields"]:
        """Yield the fields of each object of a list."""
        value = self.raw.pop(name, None)
        if isinstance(value, list) and len(value) <= MAX_ENTRIES:
            for number, one in enumerate(value):
                yield JsonFields(one, f"{self.path}{name}[{number}].", self.notes)
        elif value is not None:
            self.notes.add(self.path + name)

    def skip(self, *names: str) -> None:
        """Leave out fields that the engine adds by itself."""
        for name in names:
            self.raw.pop(name, None)

    def note(self, name: str) -> None:
        """Note a field whose value has no place."""
        self.notes.add(self.path + name)

    def end(self) -> None:
        """Note the fields that were not read and say something."""
        for name, value in self.raw.items():
            if _says_something(value):
                self.notes.add(self.path + name)

    def _unreadable(self, name: str, instead: T) -> T:
        self.notes.add(self.path + name)
        return instead


def is_text(value: object) -> bool:
    """Return whether a value is a text within the bound, without halves of surrogate pairs, which JSON may have."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _says_something(value: object, depth: int = 0) -> bool:
    """Return whether a value differs from what a missing one means to the engine."""
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        return any(_says_something(each, depth + 1) for each in islice(value.values(), MAX_ENTRIES))
    return bool(value)
