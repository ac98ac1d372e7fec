"""An etcd restored from an older backup is another store incarnation, and all workers notice."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.cluster.records.encode import encode_daemon
from mesh.store import StoreSnapshot
from mesh.store.etcd import EtcdStore
from tests.store.contract import watching
from tests.store.etcd.server import EtcdServer, SteeredEtcdClient, ends_as, etcd, following, until, worker

RECORDS = {"workers/w1/x": b"x", **encode_daemon("w1", "0.1.0", "now")}


@pytest.fixture
def single(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path) as server:
        yield server


def put_back(server: EtcdServer, backup: Path, token: str = "etcd-cluster") -> None:
    """Its disks are as they were; not started."""
    server.stop()
    (member,) = server.members
    data = server.directory / "m0"
    shutil.rmtree(data)
    peer = member.command[member.command.index("--initial-advertise-peer-urls") + 1]
    command = ["etcdctl", "snapshot", "restore", str(backup), "--name", "m0", "--data-dir", str(data)]
    command += ["--initial-cluster", f"m0={peer}", "--initial-advertise-peer-urls", peer]
    subprocess.run([*command, "--initial-cluster-token", token], check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("token", ["etcd-cluster", "another"], ids=["the same cluster", "as another cluster"])
async def test_an_older_backup_is_another_incarnation(single: EtcdServer, tmp_path: Path, token: str) -> None:
    url = single.fresh()
    async with worker(url, ttl=60) as store, worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        async with following(store) as seen:
            await store.read()  # from now on it has an origin
            await store.claim({"claims/a": b"1"})
            await store.register({**RECORDS, **encode_daemon("w1", "0.1.0", "before")})
            single.ctl("snapshot", "save", str(tmp_path / "backup"))
            await store.register(RECORDS)
            await store.claim({"claims/b": b"2"})
            newest = {"claims/a": b"1", "claims/b": b"2", **RECORDS}
            before = await until(snapshots, lambda seen: seen == newest)
            await ends_as(seen, newest)
            await asyncio.to_thread(put_back, single, tmp_path / "backup", token)
            await asyncio.to_thread(single.start)
            await ends_as(seen, {"claims/a": b"1", **RECORDS})
        after = await until(snapshots, lambda seen: seen == {"claims/a": b"1", **RECORDS})
        assert after.origin != before.origin
        assert (await store.read()).origin == after.origin, "for all of them"


async def test_a_backup_written_to_by_others_is_another_incarnation(single: EtcdServer, tmp_path: Path) -> None:
    """Its revision is as high as it was by then, and tells nothing."""
    url = single.fresh()
    gateway = SteeredEtcdClient(url.members)
    async with worker(url, gateway=gateway) as store, aclosing(watching(store)) as snapshots:
        await store.read()  # from now on it has an origin
        await store.claim({"claims/a": b"1"})
        single.ctl("snapshot", "save", str(tmp_path / "backup"))
        await store.claim({"claims/b": b"2"})
        before = await until(snapshots, lambda seen: "claims/b" in seen)
        put_back(single, tmp_path / "backup")
        gateway.drop_watches()
        await asyncio.to_thread(single.start)
        for number in range(3):
            single.ctl("put", f"{url.prefix}claims/{number}", "other")
        after = await until(snapshots, lambda seen: "claims/2" in seen)
        assert after.origin != before.origin
        assert after.revision > before.revision


async def test_a_backup_restored_while_the_daemon_was_stopped_is_another_incarnation(
    single: EtcdServer, tmp_path: Path
) -> None:
    url = single.fresh()
    async with worker(url) as store:
        await store.read()  # from now on it has an origin
        await store.claim({"claims/a": b"1"})
        single.ctl("snapshot", "save", str(tmp_path / "backup"))
        await store.claim({"claims/b": b"2"})
        last = await store.read()
    put_back(single, tmp_path / "backup")
    await asyncio.to_thread(single.start)
    async with worker(url) as store, worker(url, "w2") as fresh:
        store.remember(last)
        seen = await _first(store)
        assert (seen.records, seen.origin == last.origin) == ({"claims/a": b"1"}, False)
        assert (await _first(fresh)).origin == seen.origin


async def test_restarts_and_compactions_keep_the_incarnation(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url) as store, worker(url, "w2") as other, aclosing(watching(store)) as snapshots:
        await store.claim({"claims/a": b"1"})
        before = after = await until(snapshots, lambda seen: "claims/a" in seen)
        for turn in range(3):
            single.stop()
            await asyncio.to_thread(single.start)
            await other.claim({f"claims/{turn}": b"1"})
            single.ctl("compact", str((await other.read()).revision))
            after = await until(snapshots, lambda seen, turn=turn: f"claims/{turn}" in seen)  # type: ignore[misc]
            assert after.origin == before.origin
        other.remember(after)
        assert (await _first(other)).origin == before.origin


async def _first(store: EtcdStore) -> StoreSnapshot:
    async with aclosing(watching(store)) as snapshots:
        return await anext(snapshots)
