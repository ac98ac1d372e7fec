"""What stacks ask of the mesh: which instances serve."""

from collections.abc import Mapping
from typing import Protocol

from mesh.platform.stacks.running import EndpointAnswer


class StackReadiness(Protocol):
    """The mesh, as the daemon of this worker sees it."""

    async def answers(self) -> Mapping[str, EndpointAnswer]:
        """Return what is known of each endpoint that is a task, by the id of the task.

        Raises `MeshError` if no daemon answers.
        """
        ...
