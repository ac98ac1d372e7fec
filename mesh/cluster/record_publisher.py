"""Keeps this worker's records in the store up to date: its services, its endpoints, their health, its daemon.

While the store is out of reach the newest records wait; only those are written afterwards.
"""

import asyncio
from collections.abc import Mapping

from mesh.cluster.departed import RETENTION
from mesh.cluster.name_guard import NameGuard
from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view, encode_verdict, own_prefixes
from mesh.cluster.store_writes import RETRY, StoreWrites
from mesh.model.part import DaemonPart
from mesh.model.service import Endpoint, EndpointKey, Health, same_run
from mesh.model.view import HealthReport
from mesh.store import Store, StoreError, StoreSnapshot
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead
from mesh.util.pacing import PacedSignal

bulkhead = Bulkhead(DaemonPart.CLUSTER)

REST, LONGEST_REST = 1.0, 1.0
"""The pause before the next write, as a multiple of the last one's duration, and its maximum in seconds."""


class RecordPublisher:
    """Writes the records under this worker's lease. `offer` and `judge` may be called again with the same arguments."""

    # 14 attributes: four parts that it drives, and what each kind of record is made from. One write has all of them.

    def __init__(
        self, worker: str, store: Store, daemon: Mapping[str, bytes], guard: NameGuard, writes: StoreWrites
    ) -> None:
        """`daemon` is the record of this daemon: one key and its value."""
        self._worker = worker
        self._store = store
        self._daemon = daemon
        self._described: Mapping[str, bytes] = {}
        """The record with the digest of this worker's table; empty before the first plan."""
        self._guard = guard
        self._writes = writes
        self._due = PacedSignal(REST, LONGEST_REST)
        self._snapshot: StoreSnapshot | None = None
        """None until the store has answered once."""
        self._offered: Mapping[str, bytes] | None = None
        """None until all sources have answered once."""
        self._endpoints: Mapping[str, str | None] = {}
        """The run of each offered endpoint, by ID."""
        self._former: Mapping[str, bytes] = {}
        """The own records that the store, or else the saved view, held at the start."""
        self._are_retained = False
        """Whether the other workers may still retain the endpoints of the earlier run."""
        self._reports: Mapping[EndpointKey, HealthReport] | None = None
        """Health by this worker's probes; None until probing has begun: the verdicts of an earlier run stay until then.
        """
        self._registered: Mapping[str, bytes] = {}
        """The records that the store holds; empty if that is not known, since a write that failed may have been
        applied.
        """

    def offer(self, records: Mapping[str, bytes], endpoints: Mapping[str, str | None]) -> None:
        """Replace the records of everything that this worker runs, and the run of each of its endpoints by ID."""
        self._offered = records
        self._endpoints = endpoints
        self._due.set()

    def describe(self, record: Mapping[str, bytes]) -> None:
        """Replace the record with the digest of this worker's table."""
        if record != self._described:
            self._described = record
            self._due.set()

    def judge(self, reports: Mapping[EndpointKey, HealthReport]) -> None:
        """Replace the health of every endpoint that this worker probes."""
        if reports is not self._reports and reports != self._reports:
            self._reports = reports
            self._due.set()

    def follow(self, snapshot: StoreSnapshot) -> None:
        """Take the newest snapshot of the store."""
        is_first, self._snapshot = self._snapshot is None, snapshot
        if is_first:
            own, _ = own_prefixes(self._worker)
            before = {**snapshot.saved, **snapshot.records}
            self._former = {key: value for key, value in before.items() if key.startswith(own)}
            digest = record_key("workers", self._worker, "digest")
            if not self._described and digest in self._former:
                self._described = {digest: self._former[digest]}
            self._are_retained = bool(self._former.keys() - {digest, *self._daemon})
            if self._are_retained:
                asyncio.get_running_loop().call_later(RETENTION, bulkhead.callback(self._end_retention))
        was_contested = self._guard.is_contested
        self._guard.follow(snapshot.records)
        if was_contested and not self._guard.is_contested:
            # The newer daemon may have replaced any record.
            self._registered = {}
            self._due.set()
        if is_first or self._reports is None or self._offered is None:
            self._due.set()

    def store_was_lost(self) -> None:
        """Write all records again: the store has lost them."""
        self._registered = {}
        self._guard.store_was_lost()
        self._due.set()

    def formerly_kept(self) -> frozenset[EndpointKey]:
        """Own endpoints that an earlier run left in traffic although they failed; empty once `judge` was called."""
        return build_view(self._former_verdicts())[0].kept if self._reports is None else frozenset()

    def former_endpoints(self) -> Mapping[EndpointKey, Endpoint]:
        """The endpoints that an earlier run of this daemon registered last; empty if that is not known."""
        return build_view(self._former)[0].by_key

    async def run(self) -> None:
        """Write changed records, until cancelled."""
        self._registered = {}  # an earlier run may have ended within a write
        self._due.set()
        backoff = Backoff(RETRY)
        while True:
            await self._due.wait()
            records = self._records()
            if records is None or records == self._registered or self._guard.is_contested:
                continue
            try:
                with self._due.work():
                    await self._store.register(records)
            except StoreError as error:
                # A write that failed may have been applied: what the store holds is not known.
                self._registered = {}
                self._writes.failed("registration", error)
                await asyncio.sleep(backoff.next_pause())
                self._due.set()
            else:
                backoff.reset()
                self._registered = records
                self._writes.succeeded("registration")

    def _records(self) -> dict[str, bytes] | None:
        """All records that belong under this worker's lease; None while that is not known.

        A worker whose sources have not answered registers its daemon alone, unless an earlier run has left more: while
        the others retain its endpoints, a registration without them would take them out of traffic.
        """
        if self._snapshot is None:
            return None
        if self._offered is None:
            if self._are_retained:
                return None
            alone = {**self._described, **self._daemon}
            own = own_prefixes(self._worker)
            others = (key for key in self._snapshot.records if key.startswith(own) and key not in alone)
            return alone if self._registered or next(others, None) is None else None
        if self._reports is None:
            reports = self._former_verdicts()
        else:
            reports = dict(
                encode_verdict(self._worker, key, health, kept=kept, held_back=held_back, run=run, reason=reason)
                for key, (health, kept, held_back, run, reason) in self._reports.items()
                if health is not Health.STARTING and (key[0] != self._worker or self._runs_still(key[1], run))
            )
        return {**self._offered, **reports, **self._described, **self._daemon}

    def _end_retention(self) -> None:
        self._are_retained = False
        self._due.set()

    def _runs_still(self, id: str, run: str | None) -> bool:
        """Whether the endpoint is offered and its process is the one that was probed."""
        return id in self._endpoints and same_run(self._endpoints[id], run)

    def _former_verdicts(self) -> dict[str, bytes]:
        """The verdicts of this worker that the store holds."""
        _, health = own_prefixes(self._worker)
        records = {} if self._snapshot is None else self._snapshot.records
        return {key: value for key, value in records.items() if key.startswith(health)}
