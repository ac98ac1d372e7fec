"""What counts although the store has it no more: what other workers offered before the store lost them.

* A store that comes back with another `origin` has lost what it knew. Until they have registered anew, the others are
  taken to be where they were.
* The lease of a worker has ended, and the worker answers (`mesh.cluster.membership`): its endpoints stay.
* The lease of a worker has ended, and it is gone; its containers may well run on. For a while they stay, and the others
  ask them in its place (`mesh.health.takeover`).

Whoever does not answer takes no traffic all the same: what remains is asked (`mesh.cluster.failure_detector`).
"""

from collections.abc import Callable, Iterable, Mapping

from mesh.cluster.departed import DepartedWorkers
from mesh.cluster.membership import Membership
from mesh.cluster.records.encode import worker_of
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.store import StoreSnapshot


class RetainedRecords:
    """Of the other workers, as one of them sees it. Times are of one clock."""

    def __init__(self, worker: str, answers: Callable[[str], bool]) -> None:
        """`answers`: whether another worker is there, as this one finds out by itself."""
        self._worker = worker
        self._answers = answers
        self._former: Mapping[str, bytes] = {}
        """The last picture of a store that was lost."""
        self._gone = DepartedWorkers()
        self._unleased = Membership()
        """The other workers: those in the store, and those whose lease has ended while they answered."""

    @property
    def peer_addresses(self) -> Mapping[str, RealKey]:
        """Where each of the other workers answers, by name: workers in the store, and those that answer although their
        lease has ended."""
        return self._unleased.workers

    @property
    def has_unleased(self) -> bool:
        """Whether records are kept because a worker answers whose lease has ended."""
        return bool(self._unleased.records)

    @property
    def unleased_workers(self) -> frozenset[str]:
        """The other workers whose lease has ended and whose records are kept, whether they answer or are gone."""
        return frozenset(self._unleased.records) | self._gone.workers

    def follow(self, snapshot: StoreSnapshot, before: StoreSnapshot | None, now: float) -> None:
        """The store has become this."""
        if not _tells_of_daemons(snapshot.changed):
            return
        if before is not None and before.origin == snapshot.origin:
            self._gone.notice(before.records, snapshot.records, self._worker, now)
        self._unleased = self._unleased.after(snapshot, before, self._worker)

    def lose(self, before: StoreSnapshot) -> None:
        """The store has lost what it knew, which was this."""
        self._former = {**self._former, **before.records}

    def forget(self, snapshot: StoreSnapshot | None, now: float) -> None:
        """The workers have had their time to register anew with a store that was lost."""
        records = {} if snapshot is None else snapshot.records
        self._gone.notice({**self._former, **records}, records, self._worker, now)
        self._former = {}

    def listen(self, trouble: object | None, now: float) -> bool:
        """Whether something has changed with time. `trouble`: why the store does not answer; None: it does."""
        return self._gone.listen(trouble, now)

    def records(self, snapshot: StoreSnapshot) -> dict[str, bytes]:
        """What counts where the store has nothing."""
        self._unleased = self._unleased.only(self._answers)
        return {**self._former_records(snapshot), **self._gone.records, **self._unleased.all_records()}

    def _former_records(self, snapshot: StoreSnapshot) -> dict[str, bytes]:
        """Records from before the store was lost, without those of workers that have registered again since."""
        if not self._former:
            return {}
        registered = {worker for key in snapshot.records if (worker := worker_of(key)) is not None}
        return {key: value for key, value in self._former.items() if worker_of(key) not in registered}

    def silent(self, seen: ClusterView) -> frozenset[str]:
        """The other workers in the picture whose verdicts have lost their validity."""
        return self._gone.silent(seen.workers - {self._worker}) | self._unleased.records.keys()


def _tells_of_daemons(changed: Iterable[str] | None) -> bool:
    return changed is None or any(key.endswith("/daemon") for key in changed)
