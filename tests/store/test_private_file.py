"""What the store has on disk is for this user alone; what an earlier version left open is closed at a start."""

import os
import stat
from pathlib import Path

from mesh.store.cached import CachedStore
from mesh.store.sqlite import SqliteStore
from mesh.testing.store import MemoryCluster, MemoryStore


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in sorted(directory.iterdir())}


async def test_the_embedded_store_is_private_from_the_beginning(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = await SqliteStore.open(tmp_path / "state" / "store.db", "w1")
        await store.claim({"claims/a": b"secret"})
        assert set(modes(tmp_path / "state").values()) == {0o600}
        assert {"store.db", "store.db-wal", "store.db-shm", "store.db.lock"} == modes(tmp_path / "state").keys()
        assert modes(tmp_path)["state"] == 0o700
        await store.close()
    finally:
        os.umask(before)


async def test_what_an_earlier_version_left_open_is_closed(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "state" / "store.db", "w1")
    await store.claim({"claims/a": b"1"})
    await store.close()
    (tmp_path / "state" / "store.db").chmod(0o644)
    (tmp_path / "state").chmod(0o755)
    store = await SqliteStore.open(tmp_path / "state" / "store.db", "w1")
    assert (await store.read()).records == {"claims/a": b"1"}
    assert set(modes(tmp_path / "state").values()) == {0o600}
    assert modes(tmp_path)["state"] == 0o700
    await store.close()


async def test_the_saved_view_is_private(tmp_path: Path) -> None:
    path = tmp_path / "view.json"
    path.write_bytes(b"{}")
    path.chmod(0o666)
    (tmp_path / "view.json.new").write_bytes(b"half")
    (tmp_path / "view.json.new").chmod(0o666)
    store = await CachedStore.open(MemoryStore(MemoryCluster(), "w1"), path)
    store._save(await store.read())  # noqa: SLF001
    await store.close()
    assert set(modes(tmp_path).values()) == {0o600}


async def test_a_directory_with_other_files_and_a_link_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "shared").chmod(0o755)
    (tmp_path / "shared" / "of another program").touch()
    target = tmp_path / "target.db"
    target.touch()
    target.chmod(0o644)
    (tmp_path / "shared" / "store.db").symlink_to(target)
    store = await SqliteStore.open(tmp_path / "shared" / "store.db", "w1")
    await store.close()
    assert modes(tmp_path)["shared"] == 0o755
    assert modes(tmp_path)["target.db"] == 0o644
