"""Workers that are gone, and the records they left behind."""

from collections.abc import Iterable, Mapping

from mesh.cluster.records.encode import daemon_keys, encode_registration, own_prefixes, worker_of
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.eligibility import probe_targets, probeable_by_anyone

VERDICT_VALIDITY = 15.0
"""Seconds for which the last verdicts of the others count while the store is away."""


RETENTION = 60.0
"""Seconds for which the endpoints of a worker that is gone are remembered; later their addresses may be another's."""


def adoptable_records(worker: str, records: Mapping[str, bytes]) -> dict[str, bytes]:
    """Of the records of a worker that is gone, those that others can go on with, its last verdicts included; empty if
    there are none."""
    seen, _ = ViewBuilder().view(records)
    asked = {key for key, question in probe_targets(seen).items() if probeable_by_anyone(*question)}
    endpoints = [endpoint for endpoint in seen.endpoints if endpoint.key in asked]
    if not endpoints:
        return {}
    owners = {endpoint.owner for endpoint in endpoints}
    said = {
        where: value
        for where, value in records.items()
        if where.startswith(own_prefixes(worker)[1]) and where.count("/") == 2  # of its own endpoints
    }
    return said | encode_registration(
        worker, (service for service in seen.services if service.owner in owners), endpoints
    )


class DepartedWorkers:
    """The workers whose word does not count any more, and what they left behind. Times are of one clock."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, dict[str, bytes]]] = {}
        """By worker: until when it is remembered, and its records."""
        self._silent_since: float | None = None
        """Since when the store does not answer."""
        self._all = False

    @property
    def workers(self) -> frozenset[str]:
        """Those that are gone and remembered."""
        return frozenset(self._left)

    @property
    def records(self) -> dict[str, bytes]:
        """Theirs."""
        return {key: value for _, records in self._left.values() for key, value in records.items()}

    def notice(self, before: Mapping[str, bytes], after: Mapping[str, bytes], me: str, now: float) -> None:
        """These records have become those: see which daemons are gone, and which are back. `me` never is."""
        were, are = daemon_keys(before), daemon_keys(after)
        for worker in are.keys() & self._left.keys():
            del self._left[worker]
        for worker in were.keys() - are.keys() - {me}:
            mine = {key: value for key, value in before.items() if worker_of(key) == were[worker]}
            left = adoptable_records(worker, mine)
            if left:
                self._left[worker] = (now + RETENTION, left)

    def listen(self, trouble: object | None, now: float) -> bool:
        """Whether something has changed with time. `trouble`: why the store does not answer; None: it does."""
        if trouble is None:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        was, self._all = self._all, self._silent_since is not None and now - self._silent_since >= VERDICT_VALIDITY
        over = [worker for worker, (until, _) in self._left.items() if until <= now]
        for worker in over:
            del self._left[worker]
        return bool(over) or was != self._all

    def silent(self, others: Iterable[str]) -> frozenset[str]:
        """Of the other workers in the picture, those whose verdicts have lost their validity."""
        return self.workers.union(others) if self._all else self.workers
