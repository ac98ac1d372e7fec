"""Usage records on real etcd: the contract, and that no watch of the cluster carries them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from mesh.config.etcd_url import EtcdUrl, usage_prefix
from mesh.store import StoreError
from mesh.store.etcd import EtcdClient
from mesh.store.etcd.usage import EtcdUsageStore
from mesh.store.usage import USAGE_LIFETIME
from tests.store.contract import watching
from tests.store.etcd.server import EtcdServer, etcd, until, worker
from tests.store.usage_contract import UsageStoreContract


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


def usage_store(url: EtcdUrl) -> EtcdUsageStore:
    return EtcdUsageStore(EtcdClient(url.members), usage_prefix(url.prefix))


@pytest.fixture
def url(single: EtcdServer) -> EtcdUrl:
    return single.fresh()


@pytest.fixture
async def store(url: EtcdUrl) -> AsyncIterator[EtcdUsageStore]:
    store = usage_store(url)
    yield store
    await store.close()


class TestEtcdUsageStore(UsageStoreContract):
    pass


async def test_no_watch_of_the_cluster_carries_usage(url: EtcdUrl, store: EtcdUsageStore) -> None:
    async with worker(url) as cluster, aclosing(watching(cluster)) as snapshots:
        await anext(snapshots)
        await store.write("usage/w1", b"1")
        await cluster.claim({"claims/a": b"1"})
        await until(snapshots, lambda seen: "claims/a" in seen)
        assert (await cluster.read()).records == {"claims/a": b"1"}
        assert await store.read() == {"usage/w1": b"1"}


async def test_a_record_has_a_lease_and_another_one_if_that_ended(
    single: EtcdServer, url: EtcdUrl, store: EtcdUsageStore
) -> None:
    for turn in range(5):
        await store.write("usage/w1", str(turn).encode())
    leases = (await asyncio.to_thread(single.ctl, "lease", "list")).split()[3:]
    shown = [await asyncio.to_thread(single.ctl, "lease", "timetolive", "--keys", lease) for lease in leases]
    (mine,) = [
        lease for lease, text in zip(leases, shown, strict=True) if f"{usage_prefix(url.prefix)}usage/w1" in text
    ]
    assert any(f"granted with TTL({USAGE_LIFETIME}s)" in text for text in shown)
    await asyncio.to_thread(single.ctl, "lease", "revoke", mine)
    assert await store.read() == {}
    await store.write("usage/w1", b"again")
    assert await store.read() == {"usage/w1": b"again"}


async def test_an_etcd_that_is_away_is_an_error_of_the_store() -> None:
    store = usage_store(EtcdUrl(("http://127.0.0.1:1",), "/x/"))
    with pytest.raises(StoreError):
        await store.write("usage/w1", b"1")
    await store.close()
