"""Full disks are survived: by the store and the saved view, while they run and at a start."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mesh.cli.settings import load_settings
from mesh.model.errors import CodedText, SettingsError
from mesh.store import StoreError
from mesh.store.cached import CachedStore
from mesh.store.sqlite import SqliteStore
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.util.regular_file import read_regular_file


def fill(directory: Path) -> Path:
    """Take all of the room of a file system."""
    filler = directory / "filler"
    file = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while True:
            os.write(file, b"x" * 1024)
    except OSError:
        return filler
    finally:
        os.close(file)


def trouble(store: SqliteStore) -> CodedText | None:
    return store.trouble


def on_small_disk(work: Callable[[Path], Coroutine[Any, Any, None]], directory: Path) -> None:
    """Run in a file system of 256 KiB, which is gone afterwards; skips where we may not mount one."""
    if os.geteuid():
        pytest.skip("needs the right to mount a file system: run as root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=True)
    try:
        asyncio.run(work(directory))
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.parametrize("stopped_well", [True, False])
def test_a_store_on_a_full_disk_is_read_at_a_start_and_written_when_there_is_room(
    tmp_path: Path, stopped_well: bool
) -> None:
    async def work(disk: Path) -> None:
        store = await SqliteStore.open(disk / "store.db", "w1")
        await store.claim({"claims/a": b"1"})
        if not stopped_well:
            fill(disk)
            with pytest.raises(StoreError, match="the disk is not full"):
                await store.claim({f"claims/{number}": b"x" * 2000 for number in range(100)})
            assert (await store.read()).records == {"claims/a": b"1"}, "what is there can be read"
        await store.close()
        filler = fill(disk)
        again = await SqliteStore.open(disk / "store.db", "w1")
        try:
            assert (await again.read()).records == {"claims/a": b"1"}
            with pytest.raises(StoreError, match="the disk is not full"):
                await again.claim({"claims/b": b"2" * 5000})
            filler.unlink()
            assert await again.claim({"claims/b": b"2"}) == {}
        finally:
            await again.close()

    on_small_disk(work, tmp_path)


def test_a_new_store_on_a_full_disk_is_empty_and_is_created_when_there_is_room(tmp_path: Path) -> None:
    async def work(disk: Path) -> None:
        filler = fill(disk)
        store = await SqliteStore.open(disk / "state" / "store.db", "w1")
        try:
            assert (await store.read()).records == {}
            assert "make room on the disk" in str(trouble(store))
            with pytest.raises(StoreError, match="the disk is not full"):
                await store.claim({"claims/a": b"1"})
            watching = store.watch()
            assert (await anext(watching)).records == {}
            filler.unlink()
            assert await store.claim({"claims/a": b"1"}) == {}
            assert (await anext(watching)).records == {"claims/a": b"1"}
            assert trouble(store) is None
        finally:
            await store.close()
        again = await SqliteStore.open(disk / "state" / "store.db", "w1")
        assert (await again.read()).records == {"claims/a": b"1"}
        await again.close()

    on_small_disk(work, tmp_path)


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_disk_without_room_for_a_file_is_a_full_disk(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may have no inode, and no room for an entry of a directory."""

    async def work() -> None:
        error = OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, mock.Mock(side_effect=error))
            store = await SqliteStore.open(tmp_path / "state" / "store.db", "w1")
            assert trouble(store) is not None
            assert (await store.read()).records == {}
            with pytest.raises(StoreError):
                await store.claim({"claims/a": b"1"})
        assert await store.claim({"claims/a": b"1"}) == {}
        assert trouble(store) is None
        with pytest.raises(StoreError, match="in use"):
            await SqliteStore.open(tmp_path / "state" / "store.db", "w1")
        await store.close()

    asyncio.run(work())


def test_a_saved_view_on_a_full_disk_stays_as_it_was(tmp_path: Path) -> None:
    async def work(disk: Path) -> None:
        cluster = MemoryCluster()
        path = disk / "view.json"
        await show(CachedStore, cluster, path, {"a": b"1"})
        before = path.read_bytes()
        filler = fill(disk)
        store = await CachedStore.open(MemoryStore(cluster, "w1"), path)
        saved = await store.saved()
        assert saved is not None
        with pytest.raises(OSError, match="No space left"):
            store._save(saved)  # noqa: SLF001
        assert path.read_bytes() == before
        assert not (disk / "view.json.new").exists(), "half of it would keep the disk full"
        filler.unlink()
        await store.close()

    on_small_disk(work, tmp_path)


async def show(kind: type[CachedStore], cluster: MemoryCluster, path: Path, records: dict[str, bytes]) -> None:
    """Save a view with these records."""
    store = await kind.open(MemoryStore(cluster, "w1"), path)
    await store.register(records)
    store._save(await store.read())  # noqa: SLF001
    await store.close()


def test_a_fifo_in_the_place_of_a_file_blocks_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / "vipmesh.toml"
    os.mkfifo(fifo)
    with pytest.raises(SettingsError, match="not a regular file"):
        load_settings(fifo)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev", "/proc/self/fd"])
def test_what_is_no_regular_file_is_refused(name: str) -> None:
    with pytest.raises(OSError, match=r"not a regular file|Is a directory|more than"):
        read_regular_file(Path(name))


def test_the_empty_device_is_an_empty_file() -> None:
    assert read_regular_file(Path("/dev/null")) == b""


def test_a_pipe_is_read_where_it_is_allowed_and_its_writer_must_write(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"services: {}")
    with pytest.raises(OSError, match="nobody writes to it"):
        read_regular_file(Path(f"/dev/fd/{reading}"), patience=0.05)
    os.write(writing, b"services: {}")
    os.close(writing)
    assert read_regular_file(Path(f"/dev/fd/{reading}"), patience=5.0) == b"services: {}"
    os.close(reading)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 1001)
    assert read_regular_file(tmp_path / "x", 1001) == b"x" * 1001
    with pytest.raises(OSError, match="more than 1000 bytes"):
        read_regular_file(tmp_path / "x", 1000)
