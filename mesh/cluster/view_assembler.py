"""Follows the store and assembles the cluster view from what it shows, what this worker offers, and what is retained.

A store that comes back with another `origin` has lost its records. Its claims are given back before anything new is
claimed, and until the other workers have registered again they are taken to be where they were.
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
from mesh.model.view import ClusterView
from mesh.store import Store, StoreSnapshot
from mesh.util.pacing import PacedSignal

log = logging.getLogger("vipmesh")

REST, LONGEST_REST = 4.0, 1.0
"""How many times as long as a view took until the next one, and how many seconds at most: a burst leaves most of the
time to others."""
GRACE = 15.0
"""Seconds that workers get to register again with a store that lost its records."""
LISTEN = 1.0
"""Seconds between two looks at whether the store answers."""


class ViewAssembler:
    """Assembles one view after another, and tells the publisher and the claimer of each snapshot and view."""

    def __init__(
        self,
        store: Store,
        picture: ViewOverlay,
        retained: RetainedRecords,
        *,
        publisher: RecordPublisher,
        claimer: Claimer,
        reports: ConditionReports,
    ) -> None:
        self._store = store
        self._picture = picture
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
        """The view that was passed on last; None: there was none."""
        self._forgetting: asyncio.TimerHandle | None = None
        """Ends the time that workers get to register again with a lost store."""

    def offer(self, records: Mapping[str, bytes]) -> None:
        """These are the records of everything that this worker runs."""
        self._picture.offer(records)
        self._due.set()

    def review(self) -> None:
        """Assemble the view again if it depends on which workers answer, since that may have changed."""
        if self._retained.has_unleased:
            self._due.set()

    async def run(self, see: Callable[[ClusterView], None], *, patient: bool) -> None:
        """Call `see` with each view that differs from the last; until cancelled.

        `patient`: the first view waits until this worker knows its own offer.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="store")
            tasks.create_task(self._keep_listening(), name="silence")
            while True:
                await self._due.wait()
                self._taken.set()
                if self._snapshot is None or (patient and not self._picture.knows_own_offer(self._snapshot)):
                    continue
                patient = False
                with self._due.work():
                    seen, broken = await self._picture.build(self._snapshot, self._retained.records(self._snapshot))
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
        self._picture.changed(snapshot.changed)
        self._publisher.follow(snapshot)
        self._taken.clear()
        self._due.set()

    def _store_was_lost(self, before: StoreSnapshot) -> None:
        log.error(
            "the store has lost what it knew: it gets all claims back that this worker knows",
            extra=Code.STORE_LOST_DATA.extra,
        )
        self._retained.lose(before)
        self._picture.changed(None)
        self._publisher.store_was_lost()
        self._claimer.store_was_lost(before)
        self._forget_later()

    def _forget_later(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(GRACE, self._forget)

    def _forget(self) -> None:
        if self._claimer.has_claims_to_restore:
            self._forget_later()  # the store could not even be given its claims: nobody could register
            return
        self._retained.forget(self._snapshot, asyncio.get_running_loop().time())
        self._picture.changed(None)
        self._due.set()

    async def _keep_listening(self) -> None:
        """Assemble the view again when the verdicts of others become invalid with time, or valid again."""
        while True:
            if self._retained.listen(self._store.trouble, asyncio.get_running_loop().time()):
                self._picture.changed(None)
                self._due.set()
            await asyncio.sleep(LISTEN)
