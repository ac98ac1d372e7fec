"""A source of instances whose lists a test sets."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Instance
from mesh.sources import Source


class FakeSource(Source):
    """Implements `Source`: yields each list that is given to `say`."""

    def __init__(self, name: str = "source 0") -> None:
        self.name = name
        self._lists: asyncio.Queue[tuple[tuple[Instance, ...], tuple[Problem, ...]]] = asyncio.Queue()
        self._trouble: CodedText | None = None

    def say(self, instances: Sequence[Instance], problems: Sequence[Problem] = ()) -> None:
        """Yield these instances and problems as the next list; the source answers again."""
        self._trouble = None
        self._lists.put_nowait((tuple(sorted(instances, key=lambda i: i.id)), tuple(problems)))

    def fall_silent(self, why: str) -> None:
        """Report trouble, as a source does that no longer answers; the last list stays in force."""
        self._trouble = CodedText(why, Code.COMPOSE_NOT_YAML)

    @override
    async def watch(self) -> AsyncIterator[tuple[tuple[Instance, ...], tuple[Problem, ...]]]:
        while True:
            yield await self._lists.get()

    @property
    @override
    def trouble(self) -> CodedText | None:
        return self._trouble

    @override
    def locate(self, instance: Instance, label: str | None) -> str:
        return f"fake {instance.id}" + (f" {label}" if label else "")
