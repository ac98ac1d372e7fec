"""What is said of the endpoints' health, and by whom. Pure.

The own worker of an endpoint has the word. When it is gone, those that ask in its place have it: one that had an answer
is enough. Until one of them has spoken, the last word of the own worker counts.
"""

from dataclasses import replace

from mesh.cluster.records.decode import DaemonPresence, EndpointVerdict, VerdictRecord
from mesh.model.persistent_map import PersistentMap
from mesh.model.service import EndpointKey, Health
from mesh.model.view import ClusterView


class RecordVerdicts:
    """As the store's records have them, record by record."""

    def __init__(self) -> None:
        self.health: PersistentMap[EndpointKey, Health] = PersistentMap()
        """What counts now, as it was settled last."""
        self._said: dict[EndpointKey, dict[str, EndpointVerdict]] = {}
        """By endpoint and key of the record."""
        self._doubled: dict[str, set[EndpointKey]] = {}
        """By worker: its endpoints of which others say something too."""
        self._workers: set[str] = set()
        self._kept: set[EndpointKey] = set()
        self._held_back: set[EndpointKey] = set()
        self._touched: set[EndpointKey] = set()

    def take(self, where: str, fact: EndpointVerdict | DaemonPresence) -> None:
        """There is this record."""
        match fact:
            case DaemonPresence(worker):
                self._workers.add(worker)
                self._reconsider(worker)
            case EndpointVerdict(worker, endpoint, _):
                self._said.setdefault(endpoint, {})[where] = fact
                self._touched.add(endpoint)
                if worker != endpoint[0]:
                    self._doubled.setdefault(endpoint[0], set()).add(endpoint)

    def drop(self, where: str, fact: EndpointVerdict | DaemonPresence) -> None:
        """There is no such record any more."""
        match fact:
            case DaemonPresence(worker):
                self._workers.discard(worker)
                self._reconsider(worker)
            case EndpointVerdict(_, endpoint, _):
                del self._said[endpoint][where]
                self._touched.add(endpoint)

    def settle(self) -> frozenset[EndpointKey]:
        """Work out what counts now; returns the endpoints whose health is another one than before."""
        now_said: dict[EndpointKey, Health | None] = {}
        for endpoint in self._touched:
            counts = self._counts(endpoint)
            now_said[endpoint] = None if counts is None else counts.health
            self._kept.discard(endpoint)
            self._held_back.discard(endpoint)
            if counts is not None and counts.kept:
                self._kept.add(endpoint)
            if counts is not None and counts.held_back:
                self._held_back.add(endpoint)
        self._touched = set()
        before, self.health = self.health, self.health.changed(now_said)
        return frozenset(endpoint for endpoint, said in now_said.items() if before.get(endpoint) is not said)

    def told(self, view: ClusterView, before: ClusterView) -> ClusterView:
        """The view with what was settled; what is as `before` is the same object."""
        return replace(
            view,
            health=self.health,
            kept=before.kept if self._kept == before.kept else frozenset(self._kept),
            held_back=before.held_back if self._held_back == before.held_back else frozenset(self._held_back),
            workers=before.workers if self._workers == before.workers else frozenset(self._workers),
        )

    def _reconsider(self, worker: str) -> None:
        self._touched |= self._doubled.get(worker, set())

    def _counts(self, endpoint: EndpointKey) -> VerdictRecord | None:
        said = self._said.get(endpoint)
        if not said:
            self._said.pop(endpoint, None)
            self._doubled.get(endpoint[0], set()).discard(endpoint)
            return None
        own = next((fact.said for fact in said.values() if fact.worker == endpoint[0]), None)
        others = [said[where].said for where in sorted(said) if said[where].worker != endpoint[0]]
        if not others or endpoint[0] in self._workers:
            return own
        return next((word for word in others if word.health is Health.HEALTHY), others[0])
