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
        self.unleased = Membership()
        """The other workers: those in the store, and those whose lease has ended while they answered."""

    @property
    def workers(self) -> frozenset[str]:
        """Those whose lease has ended."""
        return frozenset(self.unleased.records) | self._gone.workers

    def follow(self, snapshot: StoreSnapshot, before: StoreSnapshot | None, now: float) -> None:
        """The store has become this."""
        if not _tells_of_daemons(snapshot.changed):
            return
        if before is not None and before.origin == snapshot.origin:
            self._gone.notice(before.records, snapshot.records, self._worker, now)
        self.unleased = self.unleased.after(snapshot, before, self._worker)

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
        self.unleased = self.unleased.only(self._answers)
        back = {worker_of(key) for key in snapshot.records} if self._former else set()
        former = {key: value for key, value in self._former.items() if worker_of(key) not in back - {None}}
        return {**former, **self._gone.records, **self.unleased.all_records()}

    def silent(self, seen: ClusterView) -> frozenset[str]:
        """The other workers in the picture whose verdicts have lost their validity."""
        return self._gone.silent(seen.workers - {self._worker}) | self.unleased.records.keys()


def _tells_of_daemons(changed: Iterable[str] | None) -> bool:
    return changed is None or any(key.endswith("/daemon") for key in changed)
