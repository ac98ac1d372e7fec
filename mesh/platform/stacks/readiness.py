"""What stacks ask of the mesh: which instances serve, and that some take no new connections."""

from collections.abc import Collection, Mapping
from typing import Protocol

from mesh.platform.stacks.running import EndpointAnswer


class StackReadiness(Protocol):
    """The mesh, as the daemon of this worker sees it."""

    async def answers(self) -> Mapping[str, EndpointAnswer]:
        """Return what is known of each endpoint that is a task, by the id of the task.

        Raises `MeshError` if no daemon answers.
        """
        ...


class StackEndpoints(Protocol):
    """The endpoints of instances, by the IDs of their tasks. What has no endpoint is left out."""

    async def drain(self, tasks: Collection[str]) -> tuple[str, ...]:
        """Drain endpoints, and return when their connections have ended, or the drain timeout is over.

        Returns a line for each worker that cannot be asked. Raises `MeshError` if a worker refuses.
        """
        ...

    async def undrain(self, tasks: Collection[str]) -> tuple[str, ...]:
        """Let endpoints take connections again. Returns and raises as `drain`."""
        ...
