"""A store in memory, shared by as many workers as a test wants."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.store import Store, StoreError, StoreSnapshot


class MemoryCluster:
    """What all workers of one test share. Set `out_of_reach` to take the store away from all of them."""

    def __init__(self) -> None:
        self.registered: dict[str, frozenset[str]] = {}
        """Worker -> its leased keys."""
        self.revision = 0
        self.origin = ""
        self.watchers: set[asyncio.Event] = set()
        self._records: dict[str, bytes] = {}
        self._changes: list[frozenset[str]] = []
        """Of each revision."""
        self._shown: tuple[int, dict[str, bytes]] = (0, {})
        self._out_of_reach = False

    @property
    def records(self) -> dict[str, bytes]:
        """All of them; not to be changed."""
        if self._shown[0] != self.revision:
            self._shown = self.revision, dict(self._records)
        return self._shown[1]

    def changed_since(self, revision: int) -> frozenset[str]:
        """The keys that may differ from what they were at that revision."""
        return frozenset().union(*self._changes[revision:])

    def get(self, key: str) -> bytes | None:
        """One record."""
        return self._records.get(key)

    def expire(self, worker: str) -> None:
        """The worker's lease has ended."""
        self.change(dict.fromkeys(self.registered.pop(worker, frozenset())))

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

    def write(self, records: Mapping[str, bytes]) -> None:
        """Make these the records; a new revision if they are other ones."""
        self.change({**dict.fromkeys(self._records.keys() - records.keys()), **records})

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Make these records so, None: gone; a new revision if they are other ones."""
        real = {key: value for key, value in changes.items() if self._records.get(key) != value}
        if not real:
            return
        for key, value in real.items():
            if value is None:
                del self._records[key]
            else:
                self._records[key] = value
        self._changes.append(frozenset(real))
        self.revision += 1
        self._wake()

    def _wake(self) -> None:
        for woken in self.watchers:
            woken.set()


_OUT_OF_REACH = CodedText("the store is out of reach; bring it back", Code.STORE_UNREACHABLE)


class MemoryStore(Store):
    """The `Store` of one worker in a `MemoryCluster`."""

    def __init__(self, cluster: MemoryCluster, worker: str) -> None:
        self._cluster = cluster
        self._worker = worker
        self._wanted: Mapping[str, bytes] | None = None

    @property
    @override
    def trouble(self) -> CodedText | None:
        return _OUT_OF_REACH if self._cluster.out_of_reach else None

    @override
    async def run(self) -> None:
        """Register again what the test has expired."""
        woken = asyncio.Event()
        self._cluster.watchers.add(woken)
        try:
            while True:
                await woken.wait()
                woken.clear()
                await asyncio.sleep(0)  # whoever waits for the change comes first
                if self._wanted is not None and self._worker not in self._cluster.registered:
                    if self._cluster.out_of_reach:
                        continue  # the return wakes all
                    await self.register(self._wanted)
        finally:
            self._cluster.watchers.discard(woken)

    @override
    async def read(self) -> StoreSnapshot:
        self._reach()
        return StoreSnapshot(self._cluster.revision, self._cluster.records, self._cluster.origin)

    @override
    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        self._reach()
        there = {key: value for key in records if (value := self._cluster.get(key)) is not None}
        if there == dict(records):
            return {}
        if not there:
            self._cluster.change(records)
        return there

    @override
    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        self._reach()
        if self._cluster.get(key) not in (old, new):
            return False
        self._cluster.change({key: new})
        return True

    @override
    async def register(self, records: Mapping[str, bytes]) -> None:
        self._reach()
        self._wanted = dict(records)
        before = self._cluster.registered.get(self._worker, frozenset())
        self._cluster.registered[self._worker] = frozenset(records)
        self._cluster.change({**dict.fromkeys(before - records.keys()), **records})

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        seen, woken = -1, asyncio.Event()
        self._cluster.watchers.add(woken)
        try:
            while True:
                woken.clear()
                if not self._cluster.out_of_reach and self._cluster.revision > seen:
                    snapshot = await self.read()
                    if seen >= 0:
                        snapshot = replace(snapshot, changed=self._cluster.changed_since(seen))
                    seen = snapshot.revision
                    yield snapshot
                await woken.wait()
        finally:
            self._cluster.watchers.discard(woken)

    @override
    async def close(self) -> None:
        """Nothing is open."""

    def _reach(self) -> None:
        if self._cluster.out_of_reach:
            raise StoreError(_OUT_OF_REACH.code, _OUT_OF_REACH.text)
