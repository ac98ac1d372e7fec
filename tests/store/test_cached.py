"""The saved view: used only while the store is unreachable, replaced as a whole, locked by one daemon."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from mesh.cluster.records.encode import encode_service_claim, encode_vip_claim
from mesh.cluster.sync import ClusterSync
from mesh.control.conditions import LoopConditions
from mesh.model.codes import Code
from mesh.store import StoreError, StoreSnapshot
from mesh.store.cached import STORE_TIMEOUT, CachedStore
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.store.contract import StoreContract, watching


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "view.json"


@asynccontextmanager
async def saving(cluster: MemoryCluster, path: Path) -> AsyncIterator[CachedStore]:
    store = await CachedStore.open(MemoryStore(cluster, "w1"), path)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(store.run())
            yield store
            running.cancel()
    finally:
        await store.close()


async def saved(path: Path, text: bytes) -> None:
    """Wait until the file has this."""
    async with asyncio.timeout(10):
        while not path.exists() or text not in path.read_bytes():
            await asyncio.sleep(0.01)


@pytest.fixture
async def written(cluster: MemoryCluster, path: Path) -> None:
    """A former life has saved a claim and an endpoint."""
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"\xff not text"})
        await anext(snapshots)
        await saved(path, b"workers/w1/x")


class TestContract(StoreContract):
    @pytest.fixture
    async def store(self, cluster: MemoryCluster, path: Path) -> AsyncIterator[CachedStore]:
        async with saving(cluster, path) as store:
            yield store


async def test_a_reachable_store_takes_precedence_over_the_saved_view(
    cluster: MemoryCluster, path: Path, written: None
) -> None:
    cluster.write({"claims/b": b"2"})
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        assert (await anext(snapshots)).records == {"claims/b": b"2"}


async def test_the_first_snapshot_has_what_was_saved_and_the_store_has_dropped_since(
    cluster: MemoryCluster, path: Path, written: None
) -> None:
    """The lease of this worker's records may have ended while it was stopped."""
    cluster.expire("w1")
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        first = await anext(snapshots)
        assert "workers/w1/x" not in first.records
        assert first.saved["workers/w1/x"] == b"\xff not text"
        await store.claim({"claims/c": b"3"})
        assert not (await anext(snapshots)).saved


async def test_the_saved_view_is_used_while_the_store_is_unreachable(
    cluster: MemoryCluster, path: Path, written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.store.cached.STORE_TIMEOUT", 0.05)
    cluster.out_of_reach = True
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        assert (await anext(snapshots)).records == {"claims/a": b"1", "workers/w1/x": b"\xff not text"}
        assert store.trouble is not None
        assert store.trouble.text.endswith(f"the view saved in {path} is in force")
        assert (await store.read()).records["claims/a"] == b"1"
        with pytest.raises(StoreError):
            await store.claim({"claims/c": b"3"})
        cluster.out_of_reach = False
        cluster.write({"claims/a": b"1", "claims/b": b"2"})
        assert (await anext(snapshots)).records == {"claims/a": b"1", "claims/b": b"2"}
        assert store.trouble is None


@pytest.mark.looptime
async def test_a_start_waits_for_the_store_once(
    cluster: MemoryCluster, path: Path, written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read first, and then watched, comes from the file after the patience for one of them."""

    async def hang(_: MemoryStore) -> StoreSnapshot:
        await asyncio.sleep(60)
        raise StoreError(Code.STORE_UNREACHABLE, "no answer; start it")

    monkeypatch.setattr(MemoryStore, "read", hang)
    async with saving(cluster, path) as store:
        begun = asyncio.get_running_loop().time()
        assert "claims/a" in (await store.read()).records
        assert "the view saved in" in str(store.trouble), "said at once"
        async with aclosing(watching(store)) as snapshots:
            assert "claims/a" in (await anext(snapshots)).records
        assert asyncio.get_running_loop().time() - begun == pytest.approx(STORE_TIMEOUT, abs=0.1)


async def test_a_store_lost_meanwhile_has_another_origin(cluster: MemoryCluster, path: Path, written: None) -> None:
    cluster.lose_everything()
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        before, now = await anext(snapshots), await anext(snapshots)
        assert "claims/a" in before.records
        assert now.records == {}
        assert before.origin != now.origin


async def test_saved_claims_are_restored_to_a_store_that_was_lost(cluster: MemoryCluster, path: Path) -> None:
    """Also if it is there before the worker has looked at what was saved."""
    claims = encode_service_claim("web.test", "10.112.0.7") | encode_vip_claim("10.112.0.7", "web.test")
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        await store.claim(claims)
        await anext(snapshots)
        await saved(path, b"web.test")
    cluster.lose_everything()
    async with saving(cluster, path) as store, asyncio.TaskGroup() as tasks:
        share = ClusterSync("w1", store, LoopConditions(), lambda _: ((), ()))
        running = tasks.create_task(share.run(lambda _: None, patient=True))
        async with asyncio.timeout(5):
            while not claims.items() <= cluster.records.items():
                await asyncio.sleep(0.01)
        running.cancel()
    assert {key: value for key, value in cluster.records.items() if key.startswith("claims/")} == claims


async def test_without_a_file_it_waits_for_the_store(cluster: MemoryCluster, path: Path) -> None:
    cluster.out_of_reach = True
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.wait([waiting], timeout=0.1)
        assert not waiting.done()
        with pytest.raises(StoreError):
            await store.read()
        cluster.out_of_reach = False
        assert (await waiting).records == {}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-10], id="cut off"),
        pytest.param(lambda _: b'{"x":' + b"[" * 3000, id="nested too deep"),
        pytest.param(lambda _: b'{"v":1,"revision":1,"origin":"\xff","records":{}}', id="not text"),
    ],
)
async def test_a_damaged_file_is_reported_and_rewritten(
    cluster: MemoryCluster,
    path: Path,
    written: None,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path.write_bytes(damage(path.read_bytes()))
    async with saving(cluster, path) as store, aclosing(watching(store)) as snapshots:
        assert "claims/a" in (await anext(snapshots)).records
        assert "delete the file, it is written again" in caplog.text
        await store.claim({"claims/new": b"1"})
        await anext(snapshots)
        await saved(path, b"claims/new")
    assert not path.with_name("view.json.new").exists(), "replaced as a whole"


async def test_a_second_daemon_is_refused(cluster: MemoryCluster, path: Path) -> None:
    async with saving(cluster, path):
        with pytest.raises(StoreError, match=r"stop that daemon, or set \[store\] saved_view to another file"):
            await CachedStore.open(MemoryStore(cluster, "w1"), path)
    async with saving(cluster, path):
        pass  # later it may


async def test_an_unwritable_path_is_named(cluster: MemoryCluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match=r"set \[store\] saved_view to a file that this user may write"):
        await CachedStore.open(MemoryStore(cluster, "w1"), tmp_path / "file" / "view.json")
