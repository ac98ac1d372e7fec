"""Reports whether the store takes what this worker writes."""

from mesh.cluster.ports import ConditionReports
from mesh.store import StoreError

RETRY = 1.0
"""Seconds until the next attempt after a write to the store failed."""


class StoreWrites:
    """Joins the outcomes of several writers into one condition: the store answers when every writer's last write
    succeeded."""

    def __init__(self, reports: ConditionReports) -> None:
        self._reports = reports
        self._failed: set[str] = set()
        """Writers whose last write failed."""

    def failed(self, writer: str, error: StoreError) -> None:
        """A write of this writer failed."""
        self._failed.add(writer)
        self._reports.froze("store", error)

    def succeeded(self, writer: str) -> None:
        """A write of this writer succeeded."""
        self._failed.discard(writer)
        if not self._failed:
            self._reports.thawed("store")
