"""The embedded store: the contract on a real file, kill -9, a second daemon, damaged and forbidden places."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.store import Snapshot, StoreError
from mesh.store.sqlite import SqliteStore
from tests.store.contract import StoreContract


class TestContract(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "store.db", "w1")
        yield store
        await store.close()


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
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


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: list[str] = []
    for turn in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), str(turn), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            for _ in range(20 * turn + 5):
                acknowledged.append((await process.stdout.readline()).decode().strip())
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
    store = await SqliteStore.open(tmp_path / "store.db", "w1")
    database = store._open_database()
    pragmas = await store._run(
        lambda: [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert pragmas == ["wal", 2], "2 is FULL: a power cut loses nothing that was acknowledged"
    await store.close()


async def test_a_second_daemon_is_told_who_holds_it_and_may_come_later(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first = await SqliteStore.open(path, "w1")
    with pytest.raises(StoreError, match=rf"store\.db is in use by process {os.getpid()}; stop that daemon, or set"):
        await SqliteStore.open(path, "w1")
    await first.close()
    second = await SqliteStore.open(path, "w1")
    await second.close()


async def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"store\.db: file is not a database; it is damaged: put back a copy"):
        await SqliteStore.open(path, "w1")
    assert path.read_bytes() == b"this is no database" * 100


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match=r"set \[store\] url to a place that this user may write"):
        await SqliteStore.open(tmp_path / "file" / "store.db", "w1")


async def test_closed_is_an_error_and_no_hang(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", "w1")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.read()


async def test_a_watch_survives_a_disk_that_fails_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", "w1")
    watch = store.watch()
    await anext(watch)
    read, failures = store._read, ["disk I/O error"]

    def failing() -> Snapshot:
        if failures:
            raise sqlite3.OperationalError(failures.pop())
        return read()

    monkeypatch.setattr(store, "_read", failing)
    monkeypatch.setattr("mesh.store.sqlite._RETRY", 0)
    await store.claim({"claims/a": b"1"})
    async with asyncio.timeout(10):
        assert (await anext(watch)).records == {"claims/a": b"1"}
    assert "disk I/O error; see that its directory can be written and that the disk has room" in caplog.text
    await store.close()
