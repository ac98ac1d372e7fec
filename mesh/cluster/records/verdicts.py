"""Resolves which published health counts for each endpoint. Pure.

The health published by an endpoint's own worker counts. When that worker is departed, the workers that probe in its
place decide: one successful prober is enough. Until one of them has published a result, the last one of the own worker
counts.
"""

from collections.abc import Mapping
from dataclasses import replace

from mesh.cluster.records.decode import MAX_REASON_LENGTH, DaemonPresence, EndpointVerdict, VerdictRecord
from mesh.model.past_event import bounded_text
from mesh.model.persistent_map import PersistentMap
from mesh.model.service import Endpoint, EndpointKey, Health, same_run
from mesh.model.view import ClusterView


class RecordVerdicts:
    """Health verdicts from store records, updated one record at a time."""

    def __init__(self) -> None:
        self.health: PersistentMap[EndpointKey, Health] = PersistentMap()
        """The health that counts, as of the last `settle`."""
        self.reasons: PersistentMap[EndpointKey, str] = PersistentMap()
        """Why endpoints are unhealthy by these verdicts, as of the last `settle`."""
        self._facts: dict[EndpointKey, dict[str, EndpointVerdict]] = {}
        """The verdicts by endpoint and key of the record."""
        self._doubled: dict[str, set[EndpointKey]] = {}
        """The endpoints of each worker for which other workers have published verdicts too."""
        self._workers: set[str] = set()
        self._kept: set[EndpointKey] = set()
        self._held_back: set[EndpointKey] = set()
        self._touched: set[EndpointKey] = set()

    def take(self, where: str, fact: EndpointVerdict | DaemonPresence) -> None:
        """Add a record."""
        match fact:
            case DaemonPresence(worker):
                self._workers.add(worker)
                self._reconsider(worker)
            case EndpointVerdict(worker, endpoint, _):
                self._facts.setdefault(endpoint, {})[where] = fact
                self._touched.add(endpoint)
                if worker != endpoint[0]:
                    self._doubled.setdefault(endpoint[0], set()).add(endpoint)

    def drop(self, where: str, fact: EndpointVerdict | DaemonPresence) -> None:
        """Remove a record."""
        match fact:
            case DaemonPresence(worker):
                self._workers.discard(worker)
                self._reconsider(worker)
            case EndpointVerdict(_, endpoint, _):
                del self._facts[endpoint][where]
                self._touched.add(endpoint)

    def touch(self, endpoint: EndpointKey) -> None:
        """Note that the endpoint itself has changed: it may have another run."""
        if endpoint in self._facts:
            self._touched.add(endpoint)

    def settle(self, endpoints: Mapping[EndpointKey, Endpoint]) -> frozenset[EndpointKey]:
        """Recompute the health of touched endpoints; return the endpoints whose health has changed.

        `endpoints` are all endpoints by key. A verdict on another run of an endpoint does not count.
        """
        settled: dict[EndpointKey, Health | None] = {}
        reasons: dict[EndpointKey, str | None] = {}
        for endpoint in self._touched:
            there = endpoints.get(endpoint)
            counts = self._counts(endpoint, None if there is None else there.run)
            settled[endpoint] = None if counts is None else counts.health
            reason = None if counts is None or counts.health is not Health.UNHEALTHY else counts.reason
            # A record may come from anybody: what it says is shown to people.
            answer = None if reason is None else bounded_text(reason, MAX_REASON_LENGTH)
            if answer != self.reasons.get(endpoint):
                reasons[endpoint] = answer
            self._kept.discard(endpoint)
            self._held_back.discard(endpoint)
            if counts is not None and counts.kept:
                self._kept.add(endpoint)
            if counts is not None and counts.held_back:
                self._held_back.add(endpoint)
        self._touched = set()
        if reasons:
            self.reasons = self.reasons.changed(reasons)
        before, self.health = self.health, self.health.changed(settled)
        return frozenset(endpoint for endpoint, health in settled.items() if before.get(endpoint) is not health)

    def applied_to(self, view: ClusterView, before: ClusterView) -> ClusterView:
        """The view with the health of the last `settle`; parts that equal `before` are the same objects."""
        return replace(
            view,
            health=self.health,
            reasons=self.reasons,
            kept=before.kept if self._kept == before.kept else frozenset(self._kept),
            held_back=before.held_back if self._held_back == before.held_back else frozenset(self._held_back),
            workers=before.workers if self._workers == before.workers else frozenset(self._workers),
        )

    def _reconsider(self, worker: str) -> None:
        self._touched |= self._doubled.get(worker, set())

    def _counts(self, endpoint: EndpointKey, run: str | None) -> VerdictRecord | None:
        facts = self._facts.get(endpoint)
        if not facts:
            self._facts.pop(endpoint, None)
            self._doubled.get(endpoint[0], set()).discard(endpoint)
            return None
        facts = {where: fact for where, fact in facts.items() if same_run(fact.record.run, run)}
        own = next((fact.record for fact in facts.values() if fact.worker == endpoint[0]), None)
        others = [facts[where].record for where in sorted(facts) if facts[where].worker != endpoint[0]]
        if not others or endpoint[0] in self._workers:
            return own
        return next((verdict for verdict in others if verdict.health is Health.HEALTHY), others[0])
