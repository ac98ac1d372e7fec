"""What operators requested stays in force after a restart, also if the lease has ended meanwhile."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from mesh.cluster.records.encode import encode_registration
from mesh.daemon.wiring import read_own_endpoints
from mesh.model.service import DrainReason
from mesh.store.cached import CachedStore
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import endpoint
from tests.store.contract import watching

DRAINED = endpoint("a", "w1", drain=DrainReason.ASKED)
HEAVY = replace(endpoint("b", "w1"), weight=7, asked_weight=7)
OTHER = replace(endpoint("c", "w2"), weight=7, asked_weight=7)


async def test_the_saved_view_has_what_the_store_has_lost(tmp_path: Path) -> None:
    cluster, path = MemoryCluster(), tmp_path / "view.json"
    store = await CachedStore.open(MemoryStore(cluster, "w1"), path)
    async with asyncio.TaskGroup() as tasks, aclosing(watching(store)) as snapshots:
        running = tasks.create_task(store.run())
        cluster.change(encode_registration("w2", [], [OTHER]))
        await store.register(encode_registration("w1", [], [DRAINED, HEAVY]))
        await anext(snapshots)
        async with asyncio.timeout(30):
            while not path.exists() or b"workers/w1/endpoints/b" not in path.read_bytes():
                await asyncio.sleep(0.01)
        running.cancel()
    assert await read_own_endpoints(store, "w1") == [DRAINED, HEAVY]
    cluster.change(dict.fromkeys(encode_registration("w1", [], [DRAINED, HEAVY])))
    assert sorted(await read_own_endpoints(store, "w1"), key=lambda each: each.id) == [DRAINED, HEAVY]
    now = replace(HEAVY, weight=1, asked_weight=None)
    cluster.change(encode_registration("w1", [], [now]))
    assert sorted(await read_own_endpoints(store, "w1"), key=lambda each: each.id) == [DRAINED, now], "the store counts"
    await store.close()
