"""The status of a worker under test, as its operator sees it."""

from mesh.api.status import WorkerStatus, worker_status
from mesh.control.reconciler import Reconciler


def status_of(loop: Reconciler) -> WorkerStatus:
    return worker_status(loop.observe(), in_detail=True)
