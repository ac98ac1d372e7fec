"""The document of `GET /v1/workers`: every worker of the cluster, with or without endpoints. Pure."""

from collections import Counter
from dataclasses import dataclass

from mesh.api.status import StatusNotice, notices, status_notices
from mesh.cluster.cut_off import finding_of
from mesh.cluster.worker_directory import RegisteredWorker
from mesh.control.snapshot import WorkerSnapshot
from mesh.health.snapshot import utc_time


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """One worker. A field is None where nothing is known, as of a worker of an earlier version."""

    name: str
    version: str | None
    """The version of its daemon."""
    data_plane: str | None
    """`ipvs`, `nftables` or `userspace`."""
    lease: str
    """`kept`; `ended`, while its endpoints are still known; `missing`, if this worker has not been registered yet;
    `none` for a worker alone.
    """
    last_seen: str | None
    """When it answered this worker last, in UTC: `2026-11-23T16:15:41+00:00`; None for this worker itself, and of one
    that has not answered or has no address for other workers.
    """
    digest: str | None
    """The digest of its table; that of another worker is up to 10 s old. Equal digests mean equal tables."""
    endpoints: int
    """The number of endpoints that it runs."""


@dataclass(frozen=True, slots=True)
class WorkersDocument:
    """The document of `vipmesh workers --json`."""

    worker: str
    """The worker that answers."""
    workers: tuple[WorkerEntry, ...]
    """All of them, sorted by name."""
    cut_off: tuple[StatusNotice, ...] = ()
    """What is cut off, as in the status. While the store does not answer, leases and digests are those of before."""


def workers_document(observed: WorkerSnapshot) -> WorkersDocument:
    """Return the workers in a snapshot."""
    facts, view = observed.facts, observed.view
    own, registered = facts.worker, observed.registered
    endpoints = Counter(endpoint.worker for endpoint in view.endpoints) if view is not None else Counter[str]()
    if view is not None and observed.instances is not None:
        effective = observed.effective()
        if effective is not None:
            endpoints = Counter(endpoint.worker for endpoint in effective.known.endpoints)
    entries = []
    for name in sorted({own, *registered, *observed.unleased, *endpoints}):
        said = registered.get(name, RegisteredWorker())
        if name == own:
            said = RegisteredWorker(facts.version, facts.data_plane, observed.digest)
        heard = None if name == own else observed.heard.get(name)
        entries.append(
            WorkerEntry(
                name,
                said.version,
                said.data_plane,
                _lease(name, observed),
                None if heard is None else utc_time(int(heard)),
                said.digest,
                endpoints[name],
            )
        )
    told = (each for each in status_notices(notices(observed)) if finding_of(each.code, each.text) is not None)
    return WorkersDocument(own, tuple(entries), tuple(told))


def _lease(name: str, observed: WorkerSnapshot) -> str:
    if observed.facts.store.startswith("sqlite:"):
        return "none"
    if name in observed.registered and name not in observed.unleased:
        return "kept"
    return "missing" if name == observed.facts.worker else "ended"
