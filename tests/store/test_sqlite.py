"""The embedded store: the contract on a real file, kill -9, a second daemon, damaged files and unwritable paths."""

import asyncio
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from typing_extensions import override

from mesh.store import StoreError, StoreSnapshot
from mesh.store.sqlite import SqliteStore
from tests.store.contract import StoreContract


class TestContract(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "store.db", "w1")
        yield store
        await store.close()


class SteeredStore(SqliteStore):
    """A store that a test steers: what the next reads fail with, what a claim waits for, and statements of its own."""

    failures: Sequence[str] = ()
    """What the next reads fail with, the last one first."""
    before_claim: Callable[[], None] | None = None
    """Called in the store's thread."""

    async def execute(self, statement: str) -> list[object]:
        """Run a statement on the store's connection."""
        return await self._run(lambda: self._open_database().execute(statement).fetchall())

    @override
    def _read(self) -> StoreSnapshot:
        if self.failures:
            *self.failures, failure = self.failures
            raise sqlite3.OperationalError(failure)
        return super()._read()

    @override
    def _claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        if self.before_claim is not None:
            self.before_claim()
        return super()._claim(records)


async def test_all_records_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "store.db"
    store = await SqliteStore.open(path, "w1")
    await store.claim({"claims/a": b"1"})
    await store.register({"workers/w1/x": b"x"})
    before = await store.read()
    await store.close()
    store = await SqliteStore.open(path, "w1")
    assert await store.read() == before
    await store.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from mesh.store.sqlite import SqliteStore

async def work():
    store = await SqliteStore.open(Path(sys.argv[1]), "w1")
    for number in range(100_000):
        key = f"claims/{sys.argv[2]}-{number}"
        assert await store.claim({key: b"1", key + "/other": b"2"}) == {}
        print(key, flush=True)

asyncio.run(work())
"""


async def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: list[str] = []
    for turn in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), str(turn), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(20):
                for _ in range(20 * turn + 5):
                    acknowledged.append((await process.stdout.readline()).decode().strip())  # noqa: PERF401 (some of it counts)
        finally:
            process.send_signal(signal.SIGKILL)
        acknowledged += (await process.stdout.read()).decode().split()
        await process.wait()
    store = await SqliteStore.open(path, "w1")
    records = (await store.read()).records
    await store.close()
    assert len(acknowledged) > 200
    assert all(key in records and key + "/other" in records for key in acknowledged)
    assert len(records) % 2 == 0, "no transaction is there by half"


async def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = await SteeredStore.open(tmp_path / "store.db", "w1")
    pragmas = [await store.execute(f"PRAGMA {name}") for name in ("journal_mode", "synchronous")]
    assert pragmas == [[("wal",)], [(2,)]], "2 is FULL: a power cut loses nothing that was acknowledged"
    await store.close()


async def test_a_second_daemon_is_refused_with_the_holder_and_may_start_later(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first = await SqliteStore.open(path, "w1")
    with pytest.raises(StoreError, match=rf"store\.db is in use by process {os.getpid()}; stop that daemon, or set"):
        await SqliteStore.open(path, "w1")
    await first.close()
    second = await SqliteStore.open(path, "w1")
    await second.close()


async def test_a_damaged_file_is_named_and_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"store\.db: file is not a database; it is damaged: restore a copy"):
        await SqliteStore.open(path, "w1")
    assert path.read_bytes() == b"this is no database" * 100


async def test_an_unwritable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match=r"set \[store\] url to a file that this user may write"):
        await SqliteStore.open(tmp_path / "file" / "store.db", "w1")


async def test_a_closed_store_raises_and_does_not_hang(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", "w1")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.read()


async def test_a_watch_survives_a_temporary_disk_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mesh.store.sqlite._RETRY", 0)
    store = await SteeredStore.open(tmp_path / "store.db", "w1")
    watch = store.watch()
    await anext(watch)
    store.failures = ["disk I/O error"]
    await store.claim({"claims/a": b"1"})
    async with asyncio.timeout(10):
        assert (await anext(watch)).records == {"claims/a": b"1"}
    assert "disk I/O error; check that its directory is writable and that the disk is not full" in caplog.text
    await store.close()


async def test_a_renamed_host_leaves_no_records_under_its_old_name(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", "old-name")
    await store.claim({"claims/a": b"1"})
    await store.register({"workers/old-name/x": b"x"})
    await store.close()
    store = await SqliteStore.open(tmp_path / "store.db", "new-name")
    await store.register({"workers/new-name/x": b"x"})
    assert (await store.read()).records == {"claims/a": b"1", "workers/new-name/x": b"x"}
    await store.close()


async def test_a_change_whose_caller_was_cancelled_is_watched_like_any_other(tmp_path: Path) -> None:
    store = await SteeredStore.open(tmp_path / "store.db", "w1")
    watch = store.watch()
    await anext(watch)
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(10)

    store.before_claim = hold
    writing = asyncio.ensure_future(store.claim({"claims/a": b"1"}))
    async with asyncio.timeout(10):
        await begun.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        go_on.set()
        assert (await anext(watch)).records == {"claims/a": b"1"}
    await store.close()


async def test_a_full_disk_is_reported_and_the_store_recovers(tmp_path: Path) -> None:
    store = await SteeredStore.open(tmp_path / "store.db", "w1")
    await store.execute("PRAGMA max_page_count = 1")  # it cannot go below what is used: nothing more fits
    with pytest.raises(StoreError, match="full; check that its directory is writable and that the disk is not full"):
        await store.claim({"claims/a": b"1" * 100_000})
    assert await store.read() == StoreSnapshot(0, {})
    await store.execute("PRAGMA max_page_count = 1000")
    assert await store.claim({"claims/a": b"1" * 100_000}) == {}
    await store.close()


async def test_a_failed_commit_is_rolled_back_and_later_transactions_succeed(tmp_path: Path) -> None:
    store = await SteeredStore.open(tmp_path / "store.db", "w1")
    await store.execute("CREATE TEMP TRIGGER failing BEFORE UPDATE ON main.meta BEGIN SELECT RAISE (FAIL, 'torn'); END")
    with pytest.raises(StoreError, match="torn"):
        await store.claim({"claims/a": b"1"})
    assert await store.read() == StoreSnapshot(0, {})
    await store.execute("DROP TRIGGER failing")
    assert await store.claim({"claims/a": b"2"}) == {}
    await store.close()


async def test_another_program_that_locks_the_database_is_reported(tmp_path: Path) -> None:
    store = await SteeredStore.open(tmp_path / "store.db", "w1")
    await store.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked; end the other program that has it open for writing"):
        await store.claim({"claims/a": b"1"})
    other.execute("ROLLBACK")
    other.close()
    assert await store.claim({"claims/a": b"1"}) == {}
    await store.close()
