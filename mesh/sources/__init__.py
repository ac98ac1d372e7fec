"""Where instances come from."""

from collections.abc import AsyncIterator
from typing import Protocol

from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Instance


class Source(Protocol):
    """A place that knows which instances run on this worker."""

    name: str
    """What the status and the log call it, unique on the worker: `source 0`."""

    def watch(self) -> AsyncIterator[tuple[tuple[Instance, ...], tuple[Problem, ...]]]:
        """Yields the whole list, ordered by id, at once and again whenever it has changed.

        An empty list means that the source answered and nothing runs. While the source cannot be read, or what it
        says is broken as a whole, nothing is yielded, so that the last list stays in force; the iterator goes on by
        itself once it can. The problems are those of the list, each with `where` filled in; an instance with a
        problem of its own is left out, the others are there.
        """
        ...

    @property
    def trouble(self) -> CodedText | None:
        """Why the last list is frozen, in one line; None while the source answers."""
        ...

    def locate(self, instance: Instance, label: str | None) -> str:
        """Where a user finds this instance's label, or the instance: `compose.yaml:12`, `container web-1`."""
        ...
