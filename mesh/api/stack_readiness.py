"""Says which instances of stacks serve, from a snapshot of this worker."""

from collections.abc import Callable, Mapping

from typing_extensions import override

from mesh.api.status import StatusDetail, WorkerStatus, worker_status
from mesh.control.snapshot import WorkerSnapshot
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.running import EndpointAnswer
from mesh.util.offload import compute


class SnapshotReadiness(StackReadiness):
    """Implements `StackReadiness` for the daemon itself."""

    def __init__(self, observe: Callable[[], WorkerSnapshot]) -> None:
        """`observe` takes a snapshot."""
        self._observe = observe

    @override
    async def answers(self) -> Mapping[str, EndpointAnswer]:
        observed = self._observe()
        return await compute(observed.size, lambda: endpoint_answers(worker_status(observed, StatusDetail.TABLE)))


def endpoint_answers(status: WorkerStatus) -> Mapping[str, EndpointAnswer]:
    """Return what is known of each endpoint that is a task, by the id of the task. Pure."""
    return {
        endpoint.name.rpartition(".")[2]: EndpointAnswer(endpoint.serving, endpoint.health, endpoint.last_probe or "")
        for service in status.services
        for endpoint in service.endpoints
        if endpoint.name  # Swarm names the container of a task SERVICE.SLOT.TASK.
    }
