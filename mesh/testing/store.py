"""A store in memory, shared by any number of workers in a test."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.store import Store, StoreError, StoreSnapshot


class MemoryCluster:
    """The shared store of one test. Set `out_of_reach` to make it unreachable for all of its workers."""

    def __init__(self) -> None:
        self.registered: dict[str, frozenset[str]] = {}
        """The leased keys of each worker."""
        self.revision = 0
        """The number of changes so far."""
        self.origin = ""
        """The incarnation of the store; it changes when the store loses everything."""
        self.held: dict[str, tuple[str, bytes]] = {}
        """The worker that has each held key, and its value."""
        self.watchers: set[asyncio.Event] = set()
        """The event of each watcher, which every change sets."""
        self._records: dict[str, bytes] = {}
        self._changes: list[frozenset[str]] = []
        """The keys that each revision changed; index 0 is revision 1."""
        self._shown: tuple[int, dict[str, bytes]] = (0, {})
        """The revision of the last copy of the records, and the copy."""
        self._out_of_reach = False

    @property
    def records(self) -> dict[str, bytes]:
        """A copy of all records, which must not be changed."""
        if self._shown[0] != self.revision:
            self._shown = self.revision, dict(self._records)
        return self._shown[1]

    def changed_since(self, revision: int) -> frozenset[str]:
        """Return the keys that may have changed since a revision."""
        return frozenset().union(*self._changes[revision:])

    def get(self, key: str) -> bytes | None:
        """Return the value of a record, or None if it does not exist."""
        return self._records.get(key)

    def expire(self, worker: str) -> None:
        """End the worker's leases: its leased records and the keys that it holds disappear."""
        self.held = {key: kept for key, kept in self.held.items() if kept[0] != worker}
        self.change(dict.fromkeys(self.registered.pop(worker, frozenset())))

    @property
    def out_of_reach(self) -> bool:
        """Whether the store is unreachable: every call fails and no watch yields; watches continue afterwards."""
        return self._out_of_reach

    @out_of_reach.setter
    def out_of_reach(self, gone: bool) -> None:
        self._out_of_reach = gone
        self._wake()

    def lose_everything(self) -> None:
        """Lose all records, as if all disks were replaced by empty ones."""
        self.registered, self.held = {}, {}
        self.origin += "again"
        self.write({})

    def write(self, records: Mapping[str, bytes]) -> None:
        """Replace all records by these; a new revision if they differ."""
        self.change({**dict.fromkeys(self._records.keys() - records.keys()), **records})

    def change(self, changes: Mapping[str, bytes | None]) -> None:
        """Set these records, where None deletes one; a new revision if anything differs."""
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
    """Implements `Store` for one worker of a `MemoryCluster`."""

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
        """Register the records again after the test has expired them."""
        woken = asyncio.Event()
        self._cluster.watchers.add(woken)
        try:
            while True:
                await woken.wait()
                woken.clear()
                await asyncio.sleep(0)  # tasks that wait for the change run first
                if self._wanted is not None and self._worker not in self._cluster.registered:
                    if self._cluster.out_of_reach:
                        continue  # this task is woken again when the store is reachable
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
    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        self._reach()
        there = {key: self._cluster.get(key) for key in before}
        if there == before:
            self._cluster.change(after)
        return there in (before, after)

    @override
    async def register(self, records: Mapping[str, bytes]) -> None:
        self._reach()
        self._wanted = dict(records)
        before = self._cluster.registered.get(self._worker, frozenset())
        self._cluster.registered[self._worker] = frozenset(records)
        self._cluster.change({**dict.fromkeys(before - records.keys()), **records})

    @override
    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        self._reach()
        if value is not None and key not in self._cluster.held:
            self._cluster.held[key] = self._worker, value
        return self._cluster.held.get(key, ("", None))[1]

    @override
    async def release(self, key: str, value: bytes) -> None:
        self._reach()
        if self._cluster.held.get(key, ("", None))[1] == value:
            del self._cluster.held[key]

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
        """Do nothing: there is nothing to close."""

    def _reach(self) -> None:
        if self._cluster.out_of_reach:
            raise StoreError(_OUT_OF_REACH.code, _OUT_OF_REACH.text)
