"""Ends the shares of services of which one release is left.

Shares that are not in force do not count at once (`mesh.model.release_shares`). Their record is deleted when it has
been so for `ENDING`: a release that is started again much later must not find the shares of an earlier rollout. A
worker that restarts takes less. A service without any endpoint keeps its shares.
"""

import asyncio

from mesh.cluster.records.decode import record_key
from mesh.cluster.records.encode import build_view
from mesh.cluster.store_writes import StoreWrites
from mesh.model.view import ClusterView
from mesh.store import Store, StoreError

ENDING = 600.0
"""Seconds for which one release is left before the shares of a service are deleted."""
TICK = 5.0
"""Seconds between two looks."""


class ShareKeeper:
    """Deletes shares that have ended. Every worker does it, and the first one succeeds."""

    def __init__(self, store: Store, writes: StoreWrites) -> None:
        self._store = store
        self._writes = writes
        self._view: ClusterView | None = None
        self._lonely: dict[str, float] = {}
        """The services of which one release is left, by owner, with the loop time since when."""

    def follow(self, seen: ClusterView) -> None:
        """Take the newest view."""
        self._view = seen

    async def run(self) -> None:
        """Look and delete, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK)
            if self._view is None or not self._view.shares or self._store.trouble is not None:
                self._lonely = {}
                continue
            lonely = ended_shares(self._view)
            now = loop.time()
            self._lonely = {owner: self._lonely.get(owner, now) for owner in sorted(lonely)}
            due = [owner for owner, since in self._lonely.items() if now - since >= ENDING]
            if not due:
                continue
            try:
                await self._end(due)
            except StoreError as error:
                self._writes.failed("shares", error)
            else:
                self._writes.succeeded("shares")

    async def _end(self, owners: list[str]) -> None:
        records = (await self._store.read()).records
        for owner in owners:
            key = record_key("claims", "shares", owner)
            there = records.get(key)
            # Shares that were given meanwhile are others, and count anew.
            if there is not None and self._view is not None:
                given = build_view({key: there})[0].shares.get(owner)
                if given is None or given == self._view.shares.get(owner):
                    await self._store.change({key: there}, {key: None})
            self._lonely.pop(owner, None)


def ended_shares(view: ClusterView) -> frozenset[str]:
    """Return the owners of services that have endpoints, and shares that are not in force. Pure."""
    found = set()
    for owner, shares in view.shares.items():
        group = view.groups.get(owner)
        if group is not None and not shares.are_in_force(endpoint.release or "" for endpoint in group.endpoints):
            found.add(owner)
    return frozenset(found)
