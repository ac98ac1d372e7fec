"""Keeps records of workers that disappeared from the store, for a limited time.

* A store that returns with another `origin` has lost its records. Until the other workers have registered again, their
  former records count.
* The lease of a worker has ended, and the worker answers (`mesh.cluster.membership`): its endpoints stay.
* The lease of a worker has ended, and it does not answer; its containers may still run. Its endpoints stay for a while,
  and the other workers probe them in its place (`mesh.health.takeover`).

An endpoint that does not answer takes no traffic in any case: retained endpoints are pinged
(`mesh.cluster.failure_detector`).
"""

from collections.abc import Callable, Iterable, Mapping

from mesh.cluster.departed import DepartedWorkers
from mesh.cluster.membership import Membership
from mesh.cluster.records.encode import worker_of
from mesh.cluster.worker_directory import RegisteredWorker, registered_workers
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.store import StoreSnapshot


class RetainedRecords:
    """Keeps records of the other workers, from one worker's point of view. Times are of one clock."""

    def __init__(self, worker: str, answers: Callable[[str], bool]) -> None:
        """`answers`: whether another worker, given by its name, answers this one."""
        self._worker = worker
        self._answers = answers
        self.registered: Mapping[str, RegisteredWorker] = {}
        """The workers that the store has, by name."""
        self._former_records: Mapping[str, bytes] = {}
        """The last records of a store that was lost."""
        self._departed = DepartedWorkers()
        self._unleased = Membership()
        """The other workers: those in the store, and those whose lease has ended while they answered."""

    @property
    def peer_addresses(self) -> Mapping[str, RealKey]:
        """The peer listener of each other worker by name: workers in the store, and workers that answer although their
        lease has ended.
        """
        return self._unleased.workers

    @property
    def admin_addresses(self) -> Mapping[str, RealKey]:
        """The admin API of each other worker that publishes it, by name, like `peer_addresses`."""
        return self._unleased.admins

    @property
    def has_unleased(self) -> bool:
        """Whether records are kept because a worker whose lease has ended answers."""
        return bool(self._unleased.records)

    @property
    def unleased_workers(self) -> frozenset[str]:
        """The other workers whose lease has ended and whose records are kept, whether they answer or are gone."""
        return frozenset(self._unleased.records) | self._departed.workers

    def follow(self, snapshot: StoreSnapshot, before: StoreSnapshot | None, now: float) -> None:
        """Take the next snapshot of the store."""
        self.registered = registered_workers(snapshot, self.registered if before is not None else None)
        if not _affects_daemons(snapshot.changed):
            return
        if before is not None and before.origin == snapshot.origin:
            self._departed.notice(before.records, snapshot.records, self._worker, now)
        self._unleased = self._unleased.after(snapshot, before, self._worker)

    def lose(self, before: StoreSnapshot) -> None:
        """Keep the records of a store that was lost."""
        self._former_records = {**self._former_records, **before.records}

    def forget(self, snapshot: StoreSnapshot | None, now: float) -> None:
        """End the time that workers have to register again with a store that was lost."""
        records = {} if snapshot is None else snapshot.records
        self._departed.notice({**self._former_records, **records}, records, self._worker, now)
        self._former_records = {}

    def tick(self, trouble: object | None, now: float) -> bool:
        """Whether something has changed with time. `trouble`: why the store does not answer; None if it does."""
        return self._departed.tick(trouble, now)

    def records(self, snapshot: StoreSnapshot) -> dict[str, bytes]:
        """The records that count where the store has none."""
        self._unleased = self._unleased.only(self._answers)
        return {**self._former_missing(snapshot), **self._departed.records, **self._unleased.all_records()}

    def _former_missing(self, snapshot: StoreSnapshot) -> dict[str, bytes]:
        """Records from before the store was lost, without those of workers that have registered again since."""
        if not self._former_records:
            return {}
        registered = {worker for key in snapshot.records if (worker := worker_of(key)) is not None}
        return {key: value for key, value in self._former_records.items() if worker_of(key) not in registered}

    def silent(self, seen: ClusterView) -> frozenset[str]:
        """The other workers in the view whose verdicts are no longer valid."""
        return self._departed.silent(seen.workers - {self._worker}) | self._unleased.records.keys()


def _affects_daemons(changed: Iterable[str] | None) -> bool:
    return changed is None or any(key.endswith("/daemon") for key in changed)
