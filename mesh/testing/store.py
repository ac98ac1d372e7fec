"""A store in memory, shared by as many workers as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from mesh.store import Snapshot, StoreError


@dataclass
class MemoryCluster:
    """What all workers of one test share. Set `out_of_reach` to take the store away from all of them."""

    records: dict[str, bytes] = field(default_factory=dict)
    registered: dict[str, frozenset[str]] = field(default_factory=dict)
    """Worker -> its leased keys."""
    revision: int = 0
    out_of_reach: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class MemoryStore:
    """The `Store` of one worker in a `MemoryCluster`."""

    def __init__(self, cluster: MemoryCluster, worker: str) -> None:
        self._cluster = cluster
        self._worker = worker

    async def read(self) -> Snapshot:
        """See `Store.read`."""
        self._reach()
        return Snapshot(self._cluster.revision, dict(sorted(self._cluster.records.items())))

    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """See `Store.claim`."""
        self._reach()
        there = {key: self._cluster.records[key] for key in records if key in self._cluster.records}
        if there == dict(records):
            return {}
        if not there:
            await self._write({**self._cluster.records, **records})
        return there

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """See `Store.replace`."""
        self._reach()
        if self._cluster.records.get(key) not in (old, new):
            return False
        await self._write({**self._cluster.records, key: new})
        return True

    async def register(self, records: Mapping[str, bytes]) -> None:
        """See `Store.register`."""
        self._reach()
        before = self._cluster.registered.get(self._worker, frozenset())
        self._cluster.registered[self._worker] = frozenset(records)
        kept = {key: value for key, value in self._cluster.records.items() if key not in before}
        await self._write({**kept, **records})

    async def watch(self) -> AsyncIterator[Snapshot]:
        """See `Store.watch`."""
        seen = -1
        while True:
            async with self._cluster.changed:
                while self._cluster.out_of_reach or self._cluster.revision <= seen:
                    await self._cluster.changed.wait()
            snapshot = await self.read()
            seen = snapshot.revision
            yield snapshot

    async def close(self) -> None:
        """See `Store.close`."""

    async def _write(self, records: dict[str, bytes]) -> None:
        if records == self._cluster.records:
            return
        self._cluster.records = records
        self._cluster.revision += 1
        async with self._cluster.changed:
            self._cluster.changed.notify_all()

    def _reach(self) -> None:
        if self._cluster.out_of_reach:
            raise StoreError("the store is out of reach; bring it back")
