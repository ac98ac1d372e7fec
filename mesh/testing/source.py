"""A source of instances that says what it is told to say."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Instance
from mesh.sources import Source


class FakeSource(Source):
    """Yields each list it is given by `say`; `fall_silent` makes it a source that no longer answers."""

    def __init__(self, name: str = "source 0") -> None:
        self.name = name
        self._lists: asyncio.Queue[tuple[tuple[Instance, ...], tuple[Problem, ...]]] = asyncio.Queue()
        self._trouble: CodedText | None = None

    def say(self, instances: Sequence[Instance], problems: Sequence[Problem] = ()) -> None:
        """These run now."""
        self._trouble = None
        self._lists.put_nowait((tuple(sorted(instances, key=lambda i: i.id)), tuple(problems)))

    def fall_silent(self, why: str) -> None:
        """The last list is frozen from now on."""
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
