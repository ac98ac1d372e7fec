"""Detects a second daemon that runs with this worker's name.

Two daemons with one name would overwrite each other's records for ever. So the older one stops writing as soon as it
reads the newer one's record, and continues when that record is gone.
"""

import logging
from collections.abc import Mapping

from mesh.cluster.ports import ConditionReports
from mesh.cluster.records.decode import daemon_session
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity

log = logging.getLogger("vipmesh")


class NameGuard:
    """Compares the daemon record that the store holds with the one that this daemon writes."""

    def __init__(self, worker: str, record: Mapping[str, bytes], reports: ConditionReports) -> None:
        """`record` is the daemon record that this worker writes: one key and its value."""
        self._worker = worker
        [(self._key, self._own)] = record.items()
        self._reports = reports
        self._was_registered = False
        """Whether the store has shown this daemon's record. Until then a different record is an older daemon's."""
        self.is_contested = False
        """Whether a newer daemon has the name: this one must not write."""

    def follow(self, records: Mapping[str, bytes]) -> None:
        """Update `is_contested` from the newest records of the store, and report it."""
        there = records.get(self._key)
        self._was_registered |= there == self._own
        if (
            self._was_registered
            and there is not None
            and daemon_session(there) not in (None, daemon_session(self._own))
        ):
            self.is_contested = True
            remedy = "give each worker another [node] name and restart this one"
            reason = f"another daemon runs with the name {self._worker}; this one no longer registers its endpoints"
            self._reports.found(
                "name", [Problem(Code.WORKER_NAME_TAKEN, Severity.ERROR, f"worker {self._worker}", reason, remedy)]
            )
        elif self.is_contested:
            self.is_contested = False
            log.info(
                "worker %s: the other daemon of this name is gone; this one registers its endpoints again", self._worker
            )
            self._reports.found("name", [])

    def store_was_lost(self) -> None:
        """Forget that this daemon's record was in the store: a record in the new store may be an older daemon's."""
        self._was_registered = False
