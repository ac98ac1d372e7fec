"""Follows the store and assembles the cluster view from its snapshots, this worker's offer, and retained records.

A store that returns with another `origin` has lost its records. Its claims are restored before anything new is claimed,
and until the other workers have registered again their former records count.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from mesh.cluster.claimer import Claimer
from mesh.cluster.ports import ConditionReports
from mesh.cluster.record_publisher import RecordPublisher
from mesh.cluster.retained import RetainedRecords
from mesh.cluster.view_overlay import ViewOverlay
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.service import Address
from mesh.model.view import ClusterView
from mesh.store import Store, StoreSnapshot
from mesh.util.bulkhead import Bulkhead
from mesh.util.pacing import PacedSignal

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.CLUSTER)

REST, LONGEST_REST = 4.0, 1.0
"""The pause before the next view, as a multiple of the last one's duration, and its maximum in seconds: a burst leaves
most of the time to other tasks.
"""
GRACE = 15.0
"""Seconds that workers have to register again with a store that lost its records."""
TICK = 1.0
"""Seconds between two checks of whether the store answers."""


class ViewAssembler:
    """Assembles one view after another, and passes each snapshot to the publisher and each view to the claimer."""

    def __init__(
        self,
        store: Store,
        overlay: ViewOverlay,
        retained: RetainedRecords,
        *,
        publisher: RecordPublisher,
        claimer: Claimer,
        reports: ConditionReports,
    ) -> None:
        self._store = store
        self._overlay = overlay
        self._retained = retained
        self._publisher = publisher
        self._claimer = claimer
        self._reports = reports
        self._due = PacedSignal(REST, LONGEST_REST)
        self._taken = asyncio.Event()
        """The newest snapshot is being assembled: the next one may be read."""
        self._snapshot: StoreSnapshot | None = None
        """None until the store has answered once."""
        self._view: ClusterView | None = None
        """The view that was passed on last; None before the first one."""
        self._forgetting: asyncio.TimerHandle | None = None
        """Ends the time that workers have to register again with a lost store."""

    def offer(self, records: Mapping[str, bytes]) -> None:
        """Replace the records of everything that this worker runs."""
        self._overlay.offer(records)
        self._due.set()

    def review(self) -> None:
        """Assemble the view again if it depends on which workers answer."""
        if self._retained.has_unleased:
            self._due.set()

    def judge_again(self, addresses: frozenset[Address]) -> None:
        """Assemble the view again if endpoints are at these addresses: others may be refused than before."""
        if self._overlay.judge_again(addresses):
            self._due.set()

    async def run(self, see: Callable[[ClusterView], None], *, patient: bool) -> None:
        """Call `see` with each view that differs from the last, until cancelled.

        `patient`: the first view waits until this worker knows its own offer.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bulkhead.keep_running("store", self._follow), name="store")
            tasks.create_task(bulkhead.keep_running("silence", self._keep_ticking), name="silence")
            while True:
                await self._due.wait()
                self._taken.set()
                if self._snapshot is None or (patient and not self._overlay.knows_own_offer(self._snapshot)):
                    continue
                patient = False
                try:
                    await self._assemble(self._snapshot, see)
                except Exception:
                    # All of it is due as soon as this is started again, whatever has been done of it.
                    self._view = None
                    self._overlay.begin_again()
                    self._due.set()
                    raise

    async def _assemble(self, snapshot: StoreSnapshot, see: Callable[[ClusterView], None]) -> None:
        with self._due.work():
            seen, broken = await self._overlay.build(snapshot, self._retained.records(snapshot))
        self._reports.found("store", broken)
        if silent := self._retained.silent(seen):
            seen = seen.with_silent(silent)
        self._claimer.follow(seen)
        if seen != self._view:  # what this worker offered itself comes back from the store
            self._view = seen
            see(seen)

    async def _follow(self) -> None:
        async for snapshot in self._store.watch():
            self._take(snapshot)
            del snapshot  # it is large, and the wait may be long: only the newest is kept
            await self._taken.wait()  # changes until then come as one snapshot

    def _take(self, snapshot: StoreSnapshot) -> None:
        before, self._snapshot = self._snapshot, snapshot
        if before is not None and before.origin != snapshot.origin:
            self._store_was_lost(before)
        self._retained.follow(snapshot, before, asyncio.get_running_loop().time())
        self._overlay.changed(snapshot.changed)
        self._publisher.follow(snapshot)
        self._claimer.take(snapshot)
        self._taken.clear()
        self._due.set()

    def _store_was_lost(self, before: StoreSnapshot) -> None:
        log.error(
            "the store has lost its records; this worker restores all claims that it knows",
            extra=Code.STORE_LOST_DATA.extra,
        )
        self._retained.lose(before)
        self._overlay.changed(None)
        self._publisher.store_was_lost()
        self._claimer.store_was_lost(before)
        self._forget_later()

    def _forget_later(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(GRACE, bulkhead.callback(self._forget))

    def _forget(self) -> None:
        if self._claimer.has_claims_to_restore:
            self._forget_later()  # not even the claims could be restored, so no worker could register either
            return
        self._retained.forget(self._snapshot, asyncio.get_running_loop().time())
        self._overlay.changed(None)
        self._due.set()

    async def _keep_ticking(self) -> None:
        """Assemble the view again when the verdicts of other workers become invalid with time, or valid again."""
        while True:
            if self._retained.tick(self._store.trouble, asyncio.get_running_loop().time()):
                self._overlay.changed(None)
                self._due.set()
            await asyncio.sleep(TICK)
