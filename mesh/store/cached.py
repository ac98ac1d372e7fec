"""Saves the last view on this worker's disk, so that a worker can start while the store is not available.

It wraps another store. Only the first snapshot may come from the file, and only if the store does not answer in time;
after that, only the store counts. The file is replaced as a whole, so that a crash leaves either the old or the new
one.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import msgspec
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.store import Redaction, Store, StoreError, StoreSnapshot, keep_record
from mesh.store.file_lock import acquire_lock
from mesh.store.private_file import create_private, make_private
from mesh.util.bulkhead import Bulkhead
from mesh.util.regular_file import read_regular_file

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.STORE)

STORE_TIMEOUT = 3.0
"""Seconds that a starting worker waits for the store before it uses the saved view."""
MAX_SAVED_BYTES = 512 << 20
"""The most bytes of the file that are read."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
SAVE_INTERVAL = 2.0
"""Minimum seconds between two writes: a burst of changes is saved once."""
SAVE_REST, LONGEST_REST = 20.0, 60.0
"""A large view is saved less often: the pause is `SAVE_REST` times as long as the write took, at most `LONGEST_REST`
seconds.
"""


class _CacheFile(msgspec.Struct, frozen=True):
    v: int
    revision: int
    origin: str
    records: dict[str, bytes]


class CachedStore(Store):
    """A `Store` whose last view survives a restart. Create it with `open`."""

    def __init__(self, store: Store, path: Path, lock: int, redact: Redaction = keep_record) -> None:
        self._store = store
        self._path = path
        self._lock = lock
        self._redact = redact
        self._newest: StoreSnapshot | None = None
        self._dirty = asyncio.Event()
        self._from_file = False
        self._waited = False
        """Whether the store has had its time already: a start must not wait twice."""

    @classmethod
    async def open(cls, store: Store, path: Path, redact: Redaction = keep_record) -> "CachedStore":
        """Lock the file and return the store. `redact` says what may be saved of a record.

        Raises `StoreError` if another daemon has the file, or if it cannot be created.
        """
        remedy = "stop that daemon, or set [store] saved_view to another file"
        try:
            return cls(store, path, await asyncio.to_thread(_lock_file, path, remedy), redact)
        except OSError as error:
            if error.errno in _FULL:
                log.error("%s", _cannot_be_written(path, error), extra=Code.SAVED_VIEW.extra)
                return cls(store, path, -1, redact)  # what was saved can still be read
            raise StoreError(Code.SAVED_VIEW, _cannot_be_written(path, error)) from error

    @property
    @override
    def trouble(self) -> CodedText | None:
        if self._from_file:
            text, code = self._store.trouble or ("no answer yet", Code.FROZEN)
            return CodedText(f"{text}; the view saved in {self._path} is in force", code)
        return self._store.trouble

    async def saved(self) -> StoreSnapshot | None:
        """Return the view that a previous run saved, or None if there is none that can be read."""
        return await asyncio.to_thread(self._load)

    @override
    async def read(self) -> StoreSnapshot:
        """Read from the store, or from the file if the store does not answer."""
        saved = await self.saved()
        if saved is None:
            return await self._store.read()
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                return await self._store.read()
        except (StoreError, TimeoutError):
            self._waited = self._from_file = True
            return saved

    @override
    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return await self._store.claim(records)

    @override
    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        return await self._store.replace(key, old, new)

    @override
    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        return await self._store.change(before, after)

    @override
    async def register(self, records: Mapping[str, bytes]) -> None:
        await self._store.register(records)

    @override
    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        return await self._store.hold(key, value)

    @override
    async def release(self, key: str, value: bytes) -> None:
        await self._store.release(key, value)

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        saved = await self.saved()
        shown = False
        async with aclosing(_generator(self._store)) as snapshots:
            first = asyncio.ensure_future(anext(snapshots))
            try:
                patience = 0 if self._waited else STORE_TIMEOUT
                await asyncio.wait([first], timeout=None if saved is None else patience)
                if saved is not None and not first.done():
                    log.warning(
                        "the store does not answer: starting with the view saved in %s",
                        self._path,
                        extra=Code.SAVED_VIEW.extra,
                    )
                    self._from_file = shown = True
                    yield saved
                snapshot = await first
            finally:
                first.cancel()
                await asyncio.wait([first])
            if saved is not None and saved.origin != snapshot.origin and not shown:
                # The store lost its data while this worker was down: consumers must see what it contained before.
                yield saved
            self._from_file = False
            before = {} if saved is None or shown else saved.records
            while True:
                self._newest = snapshot
                self._dirty.set()
                yield replace(snapshot, saved=before)
                before = {}
                snapshot = await anext(snapshots)

    @override
    async def run(self) -> None:
        """Run the store, and save what it shows."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bulkhead.keep_running("store", self._store.run), name="store")
            tasks.create_task(bulkhead.keep_running("saved view", self._keep_saved), name="saved view")

    @override
    async def close(self) -> None:
        await self._store.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _keep_saved(self) -> None:
        if self._newest is not None:
            self._dirty.set()  # an earlier run may have ended before it was saved
        failed = False
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            snapshot = self._newest
            assert snapshot is not None, "it is set before the event"
            began = time.monotonic()
            try:
                await asyncio.to_thread(self._save, snapshot)
            except OSError as error:
                if not failed:
                    log.error("%s", _cannot_be_written(self._path, error), extra=Code.SAVED_VIEW.extra)
                failed = True
                self._dirty.set()  # a full disk may have room again before the view changes
            else:
                failed = False
            await asyncio.sleep(max(SAVE_INTERVAL, min(LONGEST_REST, SAVE_REST * (time.monotonic() - began))))

    # ------------------------------------------------------------------------------------------- in a thread

    def _save(self, snapshot: StoreSnapshot) -> None:
        content = msgspec.json.encode(
            _CacheFile(1, snapshot.revision, snapshot.origin, self._redacted(snapshot.records))
        )
        new = self._path.with_name(self._path.name + ".new")
        try:
            with os.fdopen(create_private(new), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            new.unlink(missing_ok=True)  # half of it would take the last room of a full disk
            raise

    def _load(self) -> StoreSnapshot | None:
        try:
            saved = msgspec.json.decode(read_regular_file(self._path, MAX_SAVED_BYTES), type=_CacheFile)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.error(
                "saved view %s: %s; delete the file, it is written again",
                self._path,
                error,
                extra=Code.SAVED_VIEW.extra,
            )
            return None
        snapshot = StoreSnapshot(saved.revision, self._redacted(saved.records), saved.origin)
        if snapshot.records != saved.records:  # an earlier version has saved more
            try:
                self._save(snapshot)
            except OSError as error:
                log.error("%s", _cannot_be_written(self._path, error), extra=Code.SAVED_VIEW.extra)
        return snapshot

    def _redacted(self, records: Mapping[str, bytes]) -> dict[str, bytes]:
        return {key: kept for key, value in records.items() if (kept := self._redact(key, value)) is not None}


def _lock_file(path: Path, remedy: str) -> int:
    make_private(path, (".new",))
    return acquire_lock(path, remedy)


async def _generator(store: Store) -> AsyncGenerator[StoreSnapshot, None]:
    async for snapshot in store.watch():
        yield snapshot


def _cannot_be_written(path: Path, error: OSError) -> str:
    return f"saved view {path}: {error.strerror}; set [store] saved_view to a file that this user may write"
