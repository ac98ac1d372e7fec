"""Sources report which instances run on this worker."""

from collections.abc import AsyncIterator
from typing import Protocol

from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Instance


class Source(Protocol):
    """Reports the instances that run on this worker."""

    name: str
    """The name in the status and the log, unique on the worker: `source 0`."""

    def watch(self) -> AsyncIterator[tuple[tuple[Instance, ...], tuple[Problem, ...]]]:
        """Yield the complete list, ordered by ID, immediately and again after every change.

        An empty list means that the source answered and nothing runs. While the source cannot be read, or its data is
        broken as a whole, nothing is yielded, so that the last list stays in force; the iterator continues by itself
        afterwards. The problems belong to the list, each with `where` set. An instance with a problem of its own is
        left out; the others are included.
        """
        ...

    @property
    def trouble(self) -> CodedText | None:
        """Why the last list is frozen, in one line; None while the source answers."""
        ...

    def locate(self, instance: Instance, label: str | None) -> str:
        """Return where a user finds this label of the instance, or the instance: `compose.yaml:12`, `container web`."""
        ...
