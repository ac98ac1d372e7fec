"""A store in memory, shared by as many workers as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from mesh.store import Snapshot, StoreError


class MemoryCluster:
    """What all workers of one test share. Set `out_of_reach` to take the store away from all of them."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.registered: dict[str, frozenset[str]] = {}
        """Worker -> its leased keys."""
        self.revision = 0
        self.origin = ""
        self.watchers: set[asyncio.Event] = set()
        self._out_of_reach = False

    def expire(self, worker: str) -> None:
        """The worker's lease has ended."""
        gone = self.registered.pop(worker, frozenset())
        self.write({key: value for key, value in self.records.items() if key not in gone})

    @property
    def out_of_reach(self) -> bool:
        """While it is set every call fails and no watch yields; watches go on by themselves afterwards."""
        return self._out_of_reach

    @out_of_reach.setter
    def out_of_reach(self, gone: bool) -> None:
        self._out_of_reach = gone
        self._wake()

    def lose_everything(self) -> None:
        """All of its disks are replaced by empty ones."""
        self.registered = {}
        self.origin += "again"
        self.write({})

    def write(self, records: dict[str, bytes]) -> None:
        """Make these the records; a new revision if they are other ones."""
        if records != self.records:
            self.records = records
            self.revision += 1
            self._wake()

    def _wake(self) -> None:
        for woken in self.watchers:
            woken.set()


class MemoryStore:
    """The `Store` of one worker in a `MemoryCluster`."""

    def __init__(self, cluster: MemoryCluster, worker: str) -> None:
        self._cluster = cluster
        self._worker = worker

    @property
    def trouble(self) -> str | None:
        """See `Store.trouble`."""
        return "the store is out of reach; bring it back" if self._cluster.out_of_reach else None

    async def run(self) -> None:
        """See `Store.run`. What is registered here stays until the test expires it."""

    async def read(self) -> Snapshot:
        """See `Store.read`."""
        self._reach()
        return Snapshot(self._cluster.revision, dict(sorted(self._cluster.records.items())), self._cluster.origin)

    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Store.claim`."""
        self._reach()
        there = {key: self._cluster.records[key] for key in records if key in self._cluster.records}
        if there == dict(records):
            return {}
        if not there:
            self._cluster.write({**self._cluster.records, **records})
        return there

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """See `Store.replace`."""
        self._reach()
        if self._cluster.records.get(key) not in (old, new):
            return False
        self._cluster.write({**self._cluster.records, key: new})
        return True

    async def register(self, records: Mapping[str, bytes]) -> None:
        """See `Store.register`."""
        self._reach()
        before = self._cluster.registered.get(self._worker, frozenset())
        self._cluster.registered[self._worker] = frozenset(records)
        kept = {key: value for key, value in self._cluster.records.items() if key not in before}
        self._cluster.write({**kept, **records})

    async def watch(self) -> AsyncIterator[Snapshot]:
        """See `Store.watch`."""
        seen, woken = -1, asyncio.Event()
        self._cluster.watchers.add(woken)
        try:
            while True:
                woken.clear()
                if not self._cluster.out_of_reach and self._cluster.revision > seen:
                    snapshot = await self.read()
                    seen = snapshot.revision
                    yield snapshot
                await woken.wait()
        finally:
            self._cluster.watchers.discard(woken)

    async def close(self) -> None:
        """See `Store.close`."""

    def _reach(self) -> None:
        if self._cluster.out_of_reach:
            raise StoreError("the store is out of reach; bring it back")
