"""The status of a worker under test, as its operator reads it."""

from mesh.api.status import StatusDetail, WorkerStatus, worker_status
from mesh.control.assembly import ControlLoop


def status_of(loop: ControlLoop) -> WorkerStatus:
    return worker_status(loop.snapshots.observe(), StatusDetail.FULL)
