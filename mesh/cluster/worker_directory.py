"""Lists the workers that are registered in the store, with what their daemons say of themselves. Pure.

The digest is in a record of its own, which changes with the table: no view depends on it. So is what a worker tells of
its firewall.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Endpoint
from mesh.model.validation import validate_text
from mesh.store import StoreSnapshot

MAX_TOLD = 8
"""The most problems that a worker tells the others."""


class ToldProblem(msgspec.Struct, frozen=True):
    """What a worker says of its firewall: requests of other workers to a service are dropped there."""

    owner: str
    """The `Service.owner` of the service."""
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """What the daemon of a worker says of itself. A daemon of an earlier version says less."""

    version: str | None = None
    data_plane: str | None = None
    """`ipvs`, `nftables` or `userspace`."""
    digest: str | None = None
    """The digest of its table, at most `mesh.control.digest_publisher.INTERVAL` old."""
    told: tuple[ToldProblem, ...] = ()
    """What it tells the others of its firewall."""


class _DaemonDescription(msgspec.Struct, frozen=True):
    version: str | None = None
    data_plane: str | None = None
    digest: str | None = None
    told: tuple[ToldProblem, ...] = ()


def registered_workers(
    snapshot: StoreSnapshot, before: Mapping[str, RegisteredWorker] | None = None
) -> Mapping[str, RegisteredWorker]:
    """Return the registered workers by name. With `before`, the result for the last snapshot, only what has changed is
    read: each worker's digest changes every few seconds, and a snapshot may have 100,000 records.
    """
    records, changed = snapshot.records, snapshot.changed
    if before is None or changed is None:
        daemons = (key for key in records if key.endswith("/daemon"))
        return {unquote(worker): _registered(records, worker) for key in daemons if (worker := _described(key))}
    touched = {worker for key in changed if (worker := _described(key))}
    if not touched:
        return before
    found = dict(before)
    for worker in touched:
        if f"workers/{worker}/daemon" in records:
            found[unquote(worker)] = _registered(records, worker)
        else:
            found.pop(unquote(worker), None)
    return found


def _registered(records: Mapping[str, bytes], worker: str) -> RegisteredWorker:
    """Return what the records of a worker, by its name as in their keys, say of it."""
    of_daemon = _read(records[f"workers/{worker}/daemon"])
    digest = records.get(f"workers/{worker}/digest")
    of_table = _DaemonDescription() if digest is None else _read(digest)
    return RegisteredWorker(of_daemon.version, of_daemon.data_plane, of_table.digest, of_table.told[:MAX_TOLD])


def _described(key: str) -> str | None:
    """Return the name, as in keys, of the worker that a record describes; None for other records."""
    match key.split("/"):
        case ["workers", worker, "daemon" | "digest"]:
            return worker
    return None


def _read(value: bytes) -> _DaemonDescription:
    """Return what a record says; nothing if it cannot be used, which the view reports."""
    try:
        said = msgspec.json.decode(value, type=_DaemonDescription)
        for text in (said.version, said.data_plane, said.digest):
            if text is not None:
                validate_text(text, "a description of a worker")
        for told in said.told[:MAX_TOLD]:
            for text in (told.owner, told.reason, told.remedy):
                validate_text(text, "a problem of a worker")
    except (ValueError, RecursionError):
        return _DaemonDescription()
    return said


def told_problems(
    registered: Mapping[str, RegisteredWorker], endpoints: Iterable[Endpoint], own: str
) -> tuple[Problem, ...]:
    """Return what the other workers tell, each about the services of its own endpoints only. `own`: this worker."""
    told = {worker: said.told for worker, said in registered.items() if said.told and worker != own}
    if not told:
        return ()
    runs = {(endpoint.worker, endpoint.owner) for endpoint in endpoints if endpoint.worker in told}
    return tuple(
        Problem(Code.PEERS_DROPPED, Severity.ERROR, f"worker {worker}", each.reason, each.remedy, owner=each.owner)
        for worker in sorted(told)
        for each in told[worker]
        if (worker, each.owner) in runs
    )


def dropping_worker(problem: Problem, own: str) -> str:
    """Return the worker that drops requests by a problem with the code `PEERS_DROPPED`. `own`: this worker."""
    return problem.subject.removeprefix("worker ") if problem.subject.startswith("worker ") else own
