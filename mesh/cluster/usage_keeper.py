"""Keeps the time for which claims have not been declared, here and in the store, while the store answers."""

import asyncio
from collections.abc import Callable

from mesh.cluster.claim_usage import ClaimUsage
from mesh.cluster.store_writes import RETRY, StoreWrites
from mesh.model.claims import ClaimLimits, Claims, LapsedClaims
from mesh.model.service import Service
from mesh.model.view import ClusterView
from mesh.store import Store, StoreError, StoreSnapshot
from mesh.util.backoff import Backoff

TICK = 1.0
"""Seconds between two looks."""


class UsageKeeper:
    """Measures the time and writes the records of `mesh.cluster.claim_usage`."""

    def __init__(self, worker: str, store: Store, limits: ClaimLimits, writes: StoreWrites) -> None:
        self.lapsed = LapsedClaims()
        """The claims that others may take."""
        self._worker = worker
        self._store = store
        self._writes = writes
        self._usage = ClaimUsage(limits)
        self._grace = limits.grace
        self._now = 0.0
        """Seconds for which the store has answered."""
        self._turn = 0
        """How many workers come before this one."""
        self._followed: tuple[tuple[Service, ...], Claims] | None = None
        """The services and claims of the last view; None before the first one."""

    def take(self, snapshot: StoreSnapshot) -> None:
        """Take the newest snapshot of the store."""
        self._usage.follow_records(snapshot.records, snapshot.changed, self._now)

    def follow(self, seen: ClusterView) -> None:
        """Take the newest view."""
        self._turn = sum(worker < self._worker for worker in seen.workers)
        before, self._followed = self._followed, (seen.services, seen.claims)
        if before is None or before[0] is not seen.services or before[1] is not seen.claims:
            self._usage.follow_view(seen.services, seen.claims, self._now)
            self.lapsed = self._usage.lapsed(self._now)

    async def run(self, on_change: Callable[[], None], on_blind: Callable[[], None]) -> None:
        """Measure and write, until cancelled.

        `on_change` is called when others may take other claims than before; `on_blind` while this worker has not seen
        the store for so long that others may have taken what it held.
        """
        loop = asyncio.get_running_loop()
        backoff, last, blind = Backoff(RETRY), loop.time(), 0.0
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            passed, last = now - last, now
            blind = passed if self._store.trouble is None else blind + passed
            if blind >= max(self._grace, 2 * TICK):
                on_blind()
            if self._followed is None or self._store.trouble is not None:
                continue
            self._now += min(passed, 2 * TICK)  # a daemon that was suspended has observed nothing meanwhile
            before, self.lapsed = self.lapsed, self._usage.lapsed(self._now)
            if before != self.lapsed:
                on_change()
            changes = self._usage.changes(self._now, self._turn)
            if not changes:
                continue
            try:
                for change in changes:
                    await self._store.change(*change)
            except StoreError as error:
                self._writes.failed("claim usage", error)
                await asyncio.sleep(backoff.next_pause())
            else:
                backoff.reset()
                self._writes.succeeded("claim usage")
