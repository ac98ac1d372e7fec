"""A mesh in memory that probes the tasks of a fleet in memory."""

from collections.abc import Callable, Collection, Mapping

from typing_extensions import override

from mesh.model.errors import MeshError
from mesh.platform.fleet.protocol import FleetTask
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.running import EndpointAnswer
from mesh.testing.fleet import FakeFleet


class FakeReadiness(StackReadiness):
    """Implements `StackReadiness`: an instance serves when it has run for a while, unless its image is broken."""

    def __init__(
        self, fleet: FakeFleet, clock: Callable[[], float], *, after: float = 0.0, broken: Collection[str] = ()
    ) -> None:
        """`after`: in seconds. `broken`: images whose instances never serve."""
        self.after = after
        self.broken = set(broken)
        self.error: MeshError | None = None
        self._fleet = fleet
        self._clock = clock

    @override
    async def answers(self) -> Mapping[str, EndpointAnswer]:
        if self.error is not None:
            raise self.error
        images = {each.id: each.spec.container.image for each in await self._fleet.services()}
        return {
            task.id: self._answer(task, images.get(task.service_id, ""))
            for task in await self._fleet.tasks()
            if task.state == "running"
        }

    def _answer(self, task: FleetTask, image: str) -> EndpointAnswer:
        if image in self.broken:
            return EndpointAnswer(False, "unhealthy", "status 503")
        serving = self._clock() >= task.since + self.after
        return EndpointAnswer(serving, "healthy" if serving else "starting", "status 200" if serving else "")
