"""The ring of past events in an SQLite file of its own.

Events are no claims: the loss of the last second at a power failure does no harm (`synchronous = NORMAL`,
https://sqlite.org/pragma.html), and a damaged file is replaced by an empty one. One connection in a separate thread
keeps delays of the disk away from the event loop. After an error the file is opened again at the next request.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.past_event import NumberedEvent, PastEvent
from mesh.store.event_ring import EventRing, EventRingError, RingBatch, RingContent, RingLimits
from mesh.store.private_file import create_private, make_private

T = TypeVar("T")

_SUFFIXES = ("-wal", "-shm", "-journal")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, event BLOB NOT NULL);
DROP INDEX IF EXISTS events_by_time;
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run (id INTEGER PRIMARY KEY CHECK (id = 1), alive REAL NOT NULL, stopped INTEGER NOT NULL);
"""
"""An earlier version had an index of the times, which made each event cost twice."""
_DROP_OLD = """
DELETE FROM events WHERE number < coalesce((SELECT number FROM events WHERE at >= ? ORDER BY number LIMIT 1), ?)
"""
"""Events are in the order of their times but for jumps of the clock: one that is young enough is found soon."""
_FIRST = (
    "PRAGMA busy_timeout = 2000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA journal_size_limit = 4194304",
)


class SqliteEventRing(EventRing):
    """The `EventRing` in an SQLite file, which only this user may read."""

    def __init__(self, path: Path, limits: RingLimits) -> None:
        self._path = path
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event ring")
        self._database: sqlite3.Connection | None = None
        self._decoder = msgspec.json.Decoder(PastEvent)

    @override
    async def open(self) -> RingContent:
        return await self._run(self._open)

    @override
    async def write(self, batch: RingBatch) -> int:
        return await self._run(lambda: self._write(batch))

    @override
    async def read(self, *, after: int = 0, since: float = 0.0) -> tuple[NumberedEvent, ...]:
        return await self._run(lambda: self._read(after, since))

    @override
    async def close(self) -> None:
        await self._run(self._disconnect)

    # ---------------------------------------------------------------------------- in the ring's thread

    def _open(self) -> RingContent:
        self._disconnect()
        replaced = False
        try:
            database = self._connect()
        except sqlite3.OperationalError:
            raise  # the disk is full, or the file may not be written
        except sqlite3.DatabaseError:
            self._remove()
            replaced = True
            database = self._connect()
        row = database.execute("SELECT alive, stopped FROM run").fetchone()
        alive, stopped = row if row is not None else (None, 0)
        return RingContent(dict(database.execute("SELECT key, value FROM state")), alive, bool(stopped), replaced)

    def _connect(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        make_private(self._path, _SUFFIXES)
        if not self._path.exists():
            os.close(create_private(self._path))  # the files beside it get the rights of the database
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for statement in _FIRST:
                database.execute(statement)
            database.executescript(_SCHEMA)
            database.execute("SELECT count(*) FROM events").fetchone()  # finds a damaged file now
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _remove(self) -> None:
        for suffix in ("", *_SUFFIXES):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _write(self, batch: RingBatch) -> int:
        database = self._connect()
        database.execute("BEGIN IMMEDIATE")
        try:
            rows = [(event.at, msgspec.json.encode(event)) for event in batch.events]
            database.executemany("INSERT INTO events (at, event) VALUES (?, ?)", rows)
            changed = [(key, value) for key, value in batch.state.items() if value is not None]
            removed = [(key,) for key, value in batch.state.items() if value is None]
            database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", changed)
            database.executemany("DELETE FROM state WHERE key = ?", removed)
            database.execute("INSERT OR REPLACE INTO run VALUES (1, ?, ?)", (batch.at, batch.stopped))
            last = self._last_number(database)
            database.execute("DELETE FROM events WHERE number <= ?", (last - self._limits.events,))
            database.execute(_DROP_OLD, (batch.at - self._limits.seconds, last + 1))
            database.execute("COMMIT")
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        return last - len(batch.events) + 1

    def _last_number(self, database: sqlite3.Connection) -> int:
        """Return the highest number that was ever given: that of a dropped event is not used again."""
        row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return 0 if row is None else int(row[0])

    def _read(self, after: int, since: float) -> tuple[NumberedEvent, ...]:
        found = []
        query = "SELECT number, event FROM events WHERE number > ? AND at >= ? ORDER BY number"
        with closing(self._connect().execute(query, (after, since))) as rows:
            for number, event in rows:
                try:
                    found.append(NumberedEvent(number, self._decoder.decode(event)))
                except msgspec.MsgspecError:
                    continue  # written by a later version, which has other kinds of events
        return tuple(found)

    def _disconnect(self) -> None:
        if self._database is not None:
            database, self._database = self._database, None
            database.close()

    # ------------------------------------------------------------------------------ in the event loop's

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._in_words, work)

    def _in_words(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            try:
                self._disconnect()
            except sqlite3.Error:
                self._database = None
            raise EventRingError(
                Code.EVENTS_NOT_KEPT,
                f"events cannot be kept in {self._path}: {getattr(error, 'strerror', None) or error}; make room on the "
                "disk, or set [events] file to a file that this user may write",
            ) from error
