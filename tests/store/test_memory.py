"""The fake store fulfils the contract, is shared, and can be made unreachable."""

import asyncio

import pytest

from mesh.store import StoreError, StoreSnapshot
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.store.contract import StoreContract


class TestContract(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore(MemoryCluster(), "w1")


async def test_workers_share_claims_and_keep_to_their_own_registrations() -> None:
    cluster = MemoryCluster()
    one, two = MemoryStore(cluster, "w1"), MemoryStore(cluster, "w2")
    assert await one.claim({"claims/a": b"1"}) == {}
    assert await two.claim({"claims/a": b"2"}) == {"claims/a": b"1"}
    await one.register({"workers/w1/x": b"x"})
    await two.register({"workers/w2/x": b"x"})
    await one.register({})
    assert set((await two.read()).records) == {"claims/a", "workers/w2/x"}


async def test_while_unreachable_every_call_fails_and_watches_resume_afterwards() -> None:
    cluster = MemoryCluster()
    store = MemoryStore(cluster, "w1")
    watch = store.watch()
    await anext(watch)
    cluster.out_of_reach = True
    for attempt in (store.read(), store.claim({}), store.replace("a", b"", b""), store.register({})):
        with pytest.raises(StoreError, match="out of reach"):
            await attempt
    cluster.out_of_reach = False
    waiting = asyncio.ensure_future(anext(watch))
    await store.claim({"claims/a": b"1"})
    assert (await waiting).records == {"claims/a": b"1"}


async def test_a_watch_started_while_unreachable_yields_once_the_store_is_back() -> None:
    cluster = MemoryCluster()
    cluster.out_of_reach = True
    waiting = asyncio.ensure_future(anext(MemoryStore(cluster, "w1").watch()))
    await asyncio.sleep(0)
    assert not waiting.done()
    cluster.out_of_reach = False
    async with asyncio.timeout(10):
        assert await waiting == StoreSnapshot(0, {})
