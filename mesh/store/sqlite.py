"""The embedded store of a single worker: one SQLite file.

Assigned VIPs, names and ports must survive a crash of the daemon and of the machine, so a transaction counts only when
it is on the disk: write-ahead log with `synchronous=FULL` (https://sqlite.org/pragma.html). One connection in a
separate thread keeps delays of the disk away from the event loop. A lock file beside the database keeps a second daemon
out.
"""

import asyncio
import errno
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.store import Redaction, Store, StoreError, StoreSnapshot, keep_record
from mesh.store.file_lock import acquire_lock
from mesh.store.private_file import create_private, make_private
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead

T = TypeVar("T")

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.STORE)

_RETRY = 1.0
"""Seconds before a database that could not be read is read again."""

_WITHOUT_REMAINS = 1
"""The `user_version` of a database that has been written with `secure_delete` only: unused parts of it are empty."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL, worker TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO meta VALUES (1, 0);
"""


class SqliteStore(Store):
    """The `Store` in an SQLite file. Create it with `open`."""

    def __init__(self, path: Path, worker: str, redact: Redaction = keep_record) -> None:
        self._path = path
        self._worker = worker
        self._redact = redact
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._watchers: set[asyncio.Event] = set()
        self._lock = -1
        self._database: sqlite3.Connection | None = None
        self._closed = False
        self._trouble: CodedText | None = None
        self._missing: CodedText | None = None
        """Why a new store could not be written yet; None once it is there. Until then it is empty."""

    @classmethod
    async def open(cls, path: Path, worker: str, redact: Redaction = keep_record) -> Self:
        """Open the database; it and its directory are created if they are missing. Raises `StoreError`.

        `redact` says what may stay of the records that an earlier version has written.
        """
        store = cls(path, worker, redact)
        try:
            await store._run(store._open)
        except BaseException:
            await store.close()
            raise
        return store

    @override
    async def read(self) -> StoreSnapshot:
        return await self._run(self._read)

    @override
    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return await self._write(lambda: self._claim(records))

    @override
    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        return await self._write(lambda: self._replace(key, old, new))

    @override
    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        return await self._write(lambda: self._change(before, after))

    @override
    async def register(self, records: Mapping[str, bytes]) -> None:
        await self._write(lambda: self._register(records))

    @override
    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        """Return the value: there is no other worker that could have the key."""
        return value

    @override
    async def release(self, key: str, value: bytes) -> None:
        """Do nothing: no other worker waits for the key."""

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        seen, woken = -1, asyncio.Event()
        backoff = Backoff(_RETRY)
        self._watchers.add(woken)
        try:
            while True:
                woken.clear()  # before the read, so that a change during the read is not missed
                try:
                    snapshot = await self.read()
                except StoreError as error:
                    if self._closed:
                        raise
                    log.error("%s; what was read last stays in force", error, extra=error.code.extra)
                    self._trouble = error.coded
                    await asyncio.sleep(backoff.next_pause())
                    continue
                self._trouble = None
                backoff.reset()
                if snapshot.revision > seen:
                    seen = snapshot.revision
                    yield snapshot
                del snapshot  # it is large, and the wait may be long
                await woken.wait()
        finally:
            self._watchers.discard(woken)

    @property
    @override
    def trouble(self) -> CodedText | None:
        return self._trouble or self._missing

    @override
    async def run(self) -> None:
        """Nothing has to be kept alive: return at once."""

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        finally:
            self._thread.shutdown()

    # --------------------------------------------------------------------------- in the store's thread

    def _open(self) -> None:
        try:
            self._open_or_create()
        except (OSError, sqlite3.OperationalError) as error:
            if not _is_full(error) or self._has_content():
                raise
            # Nothing is lost: there was no store. It is created as soon as there is room.
            text = f"store {self._path}: there is no room to create it; it is empty until then; make room on the disk"
            self._missing = CodedText(text, Code.STORE_UNUSABLE)
            log.error("%s", text, extra=Code.STORE_UNUSABLE.extra)

    def _has_content(self) -> bool:
        try:
            return self._path.stat().st_size > 0
        except OSError:
            return False

    def _open_or_create(self) -> None:
        make_private(self._path, ("-wal", "-shm"))
        if self._lock < 0:
            self._lock = acquire_lock(self._path, "stop that daemon, or set [store] url to another file")
        if not self._path.exists():
            os.close(create_private(self._path))  # the files beside it get the rights of the database
        try:
            self._connect()
        except sqlite3.OperationalError as error:
            if not self._has_content():
                raise  # a new store has to be written
            # On a full disk there is no room for the index of the write-ahead log, which is kept in memory then.
            self._connect("PRAGMA locking_mode = EXCLUSIVE")
            log.error(
                "store %s: %s; it can be read, and what is in force stays; make room on the disk",
                self._path,
                error,
                extra=Code.STORE_UNUSABLE.extra,
            )
        self._read_all()  # refuse a damaged file now, not later
        try:
            self._remove_secrets()
        except sqlite3.OperationalError as error:  # a full disk must not keep the daemon from starting
            log.error(
                "store %s: %s; values of probe headers that an earlier version wrote stay in it until the next start; "
                "make room on the disk",
                self._path,
                error,
                extra=Code.STORE_UNUSABLE.extra,
            )

    def _connect(self, *first: str) -> None:
        """Open the database and execute the statements `first` before all others."""
        if self._database is not None:
            self._database.close()
        self._database = database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for statement in (
            *first,
            "PRAGMA busy_timeout = 2000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA secure_delete = ON",
        ):
            database.execute(statement)
        database.executescript(_SCHEMA)

    def _remove_secrets(self) -> None:
        """Redact the records of an earlier version, and remove what is left of them in unused parts of the files."""
        database = self._open_database()
        found = False
        with _SqliteTransaction(database, self._worker) as transaction:
            for key, value in transaction.registered().items():
                kept = self._redact(key, value)
                if kept is None:
                    transaction.delete(key)
                elif kept != value:
                    transaction.put(key, kept, leased=True)
                found |= kept != value
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if found or version < _WITHOUT_REMAINS:
            database.execute("VACUUM")
            database.execute(f"PRAGMA user_version = {_WITHOUT_REMAINS}")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _read(self) -> StoreSnapshot:
        if self._missing is not None:
            try:
                self._create()
            except (OSError, sqlite3.OperationalError) as error:
                if not _is_full(error):
                    raise
                return StoreSnapshot(0, {})
        return self._read_all()

    def _create(self) -> None:
        """Create the store for which there was no room at the start. Raises `OSError` or `sqlite3.OperationalError`."""
        self._open_or_create()
        self._missing = None
        log.info("store %s: created, since there is room now", self._path)

    def _read_all(self) -> StoreSnapshot:
        database = self._open_database()
        database.execute("BEGIN")
        try:
            (revision,) = database.execute("SELECT revision FROM meta").fetchone()
            return StoreSnapshot(revision, dict(database.execute("SELECT key, value FROM kv ORDER BY key")))
        finally:
            _end(database)

    def _claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        with _SqliteTransaction(self._open_database(), self._worker) as transaction:
            there = {key: value for key in records if (value := transaction.get(key)) is not None}
            if all(there.get(key) == value for key, value in records.items()):
                return {}
            if not there:
                for key, value in records.items():
                    transaction.put(key, value, leased=False)
            return there

    def _replace(self, key: str, old: bytes, new: bytes) -> bool:
        with _SqliteTransaction(self._open_database(), self._worker) as transaction:
            value = transaction.get(key)
            if value == old and value != new:
                transaction.put(key, new, leased=False)
            return value in (old, new)

    def _change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        with _SqliteTransaction(self._open_database(), self._worker) as transaction:
            there = {key: transaction.get(key) for key in before}
            if there == before:
                for key, value in after.items():
                    if value is None and there[key] is not None:
                        transaction.delete(key)
                    elif value is not None and value != there[key]:
                        transaction.put(key, value, leased=False)
            return there in (before, after)

    def _register(self, records: Mapping[str, bytes]) -> None:
        with _SqliteTransaction(self._open_database(), self._worker) as transaction:
            there = transaction.registered()
            for key in there.keys() - records.keys():
                transaction.delete(key)
            for key, value in records.items():
                if there.get(key) != value:
                    transaction.put(key, value, leased=True)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open_database(self) -> sqlite3.Connection:
        assert self._database is not None, "nothing runs in the thread before `_open` or after `_close`"
        return self._database

    # ------------------------------------------------------------------------------ in the event loop's

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError(Code.STORE_UNUSABLE, f"store {self._path} is closed; restart the daemon")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.DatabaseError as error:
            raise StoreError(Code.STORE_UNUSABLE, f"store {self._path}: {error}; {_remedy(error)}") from error
        except OSError as error:
            raise StoreError(
                Code.STORE_UNUSABLE,
                f"store {error.filename or self._path}: {error.strerror}; "
                f"set [store] url to a file that this user may write",
            ) from error

    async def _write(self, work: Callable[[], T]) -> T:
        """Like `_run`, then wake the watchers: in the thread, where the work ends even if the caller is cancelled."""
        loop = asyncio.get_running_loop()

        def write() -> T:
            if self._missing is not None:
                self._create()
            done = work()
            loop.call_soon_threadsafe(bulkhead.callback(self._wake))
            return done

        return await self._run(write)

    def _wake(self) -> None:
        for woken in self._watchers:
            woken.set()


class _SqliteTransaction:
    """One write transaction, with one new revision if it changes anything. Used in the store's thread."""

    def __init__(self, database: sqlite3.Connection, worker: str) -> None:
        self._database = database
        self._worker = worker
        self._revision = 0
        self._changed = False

    def __enter__(self) -> "_SqliteTransaction":
        self._database.execute("BEGIN IMMEDIATE")
        (revision,) = self._database.execute("SELECT revision FROM meta").fetchone()
        self._revision = revision + 1
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._changed:
                self._database.execute("UPDATE meta SET revision = ?", (self._revision,))
                self._database.execute("COMMIT")
        finally:
            _end(self._database)

    def get(self, key: str) -> bytes | None:
        row = self._database.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def registered(self) -> dict[str, bytes]:
        """Return all leased records: there is no other worker, only former names of this one (a renamed host)."""
        return dict(self._database.execute("SELECT key, value FROM kv WHERE worker IS NOT NULL"))

    def put(self, key: str, value: bytes, *, leased: bool) -> None:
        self._changed = True
        self._database.execute(
            "INSERT INTO kv VALUES (?1, ?2, ?3, ?3, ?4) "
            "ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3, worker = ?4",
            (key, value, self._revision, self._worker if leased else None),
        )

    def delete(self, key: str) -> None:
        self._changed = True
        self._database.execute("DELETE FROM kv WHERE key = ?", (key,))


def _end(database: sqlite3.Connection) -> None:
    """Roll back an open transaction, which would block later ones. SQLite itself does so only after some errors."""
    if database.in_transaction:
        database.execute("ROLLBACK")


def _is_full(error: OSError | sqlite3.OperationalError) -> bool:
    """Return whether the disk is full, or what this user may take of it."""
    if isinstance(error, sqlite3.OperationalError):
        return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _remedy(error: sqlite3.DatabaseError) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:  # the low byte: the primary result code
        return "end the other program that has it open for writing"
    if isinstance(error, sqlite3.OperationalError):
        return "check that its directory is writable and that the disk is not full"
    return "it is damaged: restore a copy, or move it away, which gives every service a new VIP"
