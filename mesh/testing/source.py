"""A source of instances whose lists a test sets, and processes of containers that a test starts."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from ipaddress import ip_interface

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Instance
from mesh.sources import Source
from mesh.sources.docker.process_facts import ContainerProcess, ObservedContainer
from mesh.sources.docker.processes import ContainerProcesses


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

    def fall_silent(self, why: str, code: Code = Code.COMPOSE_NOT_YAML) -> None:
        """Report trouble, as a source does that no longer answers; the last list stays in force."""
        self._trouble = CodedText(why, code)

    def see_in_silence(self, instances: Sequence[Instance]) -> None:
        """Yield these instances as the next list while the source goes on not to answer: what the host shows."""
        self._lists.put_nowait((tuple(sorted(instances, key=lambda i: i.id)), ()))

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


class FakeContainerProcesses(ContainerProcesses):
    """Implements `ContainerProcesses`: those that `start` has started and `end` has not ended."""

    def __init__(self) -> None:
        self._running: dict[str, ObservedContainer] = {}
        self._began = 0

    def start(self, container: str, *interfaces: str) -> int:
        """Start the first process of a container and return its PID. `interfaces`: `172.18.0.2/16`; none: the host's
        network.
        """
        self._began += 1
        process = ContainerProcess(1000 + self._began, self._began)
        self._running[container] = ObservedContainer(process, frozenset(map(ip_interface, interfaces)))
        return process.pid

    def end(self, container: str) -> None:
        """End the process of a container."""
        del self._running[container]

    @override
    def identify(self, container: str, pid: int) -> ContainerProcess | None:
        found = self._running.get(container)
        return found.process if found is not None and found.process.pid == pid else None

    @override
    def is_running(self, process: ContainerProcess) -> bool:
        return any(found.process == process for found in self._running.values())

    @override
    def look(self, wanted: Collection[str]) -> Mapping[str, ObservedContainer]:
        return {id: found for id, found in self._running.items() if id in wanted}

    @override
    def forget(self) -> None:
        pass
