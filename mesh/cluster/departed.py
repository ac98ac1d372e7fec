"""Tracks departed workers and the records that they left behind."""

from collections.abc import Iterable, Mapping

from mesh.cluster.records.encode import daemon_keys, encode_registration, own_prefixes, worker_of
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.eligibility import probe_targets, probeable_by_anyone

VERDICT_VALIDITY = 15.0
"""Seconds for which the last verdicts of other workers count while the store is unreachable."""


RETENTION = 60.0
"""Seconds for which the endpoints of a departed worker are kept; later their addresses may belong to something else."""


def adoptable_records(worker: str, records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The records of a departed worker that other workers can continue with, its last verdicts included; empty if it
    has none.
    """
    seen, _ = ViewBuilder().view(records)
    probed = {key for key, question in probe_targets(seen).items() if probeable_by_anyone(*question)}
    endpoints = [endpoint for endpoint in seen.endpoints if endpoint.key in probed]
    if not endpoints:
        return {}
    owners = {endpoint.owner for endpoint in endpoints}
    verdicts = {
        where: value
        for where, value in records.items()
        if where.startswith(own_prefixes(worker)[1]) and where.count("/") == 2  # of its own endpoints
    }
    return verdicts | encode_registration(
        worker, (service for service in seen.services if service.owner in owners), endpoints
    )


class DepartedWorkers:
    """Tracks workers whose verdicts no longer count, and keeps their records for a while. Times are of one clock."""

    def __init__(self) -> None:
        self._departed: dict[str, tuple[float, dict[str, bytes]]] = {}
        """The end of the retention and the records, by worker."""
        self._unanswered_since: float | None = None
        """When the store stopped answering; None while it answers."""
        self._all_silent = False

    @property
    def workers(self) -> frozenset[str]:
        """Departed workers whose records are kept."""
        return frozenset(self._departed)

    @property
    def records(self) -> dict[str, bytes]:
        """The kept records of all departed workers."""
        return {key: value for _, records in self._departed.values() for key, value in records.items()}

    def notice(self, before: Mapping[str, bytes], after: Mapping[str, bytes], me: str, now: float) -> None:
        """Compare two snapshots of the records: find daemons that left and daemons that returned. `me` never counts as
        departed.
        """
        were, are = daemon_keys(before), daemon_keys(after)
        for worker in are.keys() & self._departed.keys():
            del self._departed[worker]
        for worker in were.keys() - are.keys() - {me}:
            own_records = {key: value for key, value in before.items() if worker_of(key) == were[worker]}
            left = adoptable_records(worker, own_records)
            if left:
                self._departed[worker] = (now + RETENTION, left)

    def tick(self, trouble: object | None, now: float) -> bool:
        """Whether something has changed with time. `trouble`: why the store does not answer; None if it does."""
        if trouble is None:
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = now
        was, since = self._all_silent, self._unanswered_since
        self._all_silent = since is not None and now - since >= VERDICT_VALIDITY
        over = [worker for worker, (until, _) in self._departed.items() if until <= now]
        for worker in over:
            del self._departed[worker]
        return bool(over) or was != self._all_silent

    def silent(self, others: Iterable[str]) -> frozenset[str]:
        """The workers among the view's other workers whose verdicts are no longer valid, and the departed ones."""
        return self.workers.union(others) if self._all_silent else self.workers
