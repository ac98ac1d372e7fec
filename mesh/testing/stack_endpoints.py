"""The endpoints of the tasks of a fleet in memory, as a mesh in memory drains them."""

from collections.abc import Collection, Mapping

from typing_extensions import override

from mesh.model.errors import MeshError
from mesh.platform.stacks.readiness import StackEndpoints, StackReadiness
from mesh.platform.stacks.running import EndpointAnswer


class FakeStackEndpoints(StackEndpoints, StackReadiness):
    """Implements `StackEndpoints`, and the answers of a mesh in which what is drained does not serve."""

    def __init__(self, readiness: StackReadiness) -> None:
        """`readiness`: what serves if it is not drained."""
        self.drained: set[str] = set()
        self.error: MeshError | None = None
        """What the next requests raise."""
        self._readiness = readiness

    @override
    async def answers(self) -> Mapping[str, EndpointAnswer]:
        found = await self._readiness.answers()
        return {
            task: EndpointAnswer(False, answer.health, answer.last_probe) if task in self.drained else answer
            for task, answer in found.items()
        }

    @override
    async def drain(self, tasks: Collection[str]) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        self.drained.update(tasks)
        return ()

    @override
    async def undrain(self, tasks: Collection[str]) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        self.drained.difference_update(tasks)
        return ()
