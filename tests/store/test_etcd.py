"""The cluster's store on real etcd: the contract, and what two workers see of one another."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from mesh.etcd_url import EtcdUrl
from mesh.store.etcd import EtcdStore, Gateway
from tests.store.contract import StoreContract
from tests.store.etcd_server import EtcdServer, etcd


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd3"), 3) as server:
        yield server


@asynccontextmanager
async def worker(url: EtcdUrl, name: str = "w1", ttl: int = 5) -> AsyncIterator[EtcdStore]:
    """A store whose lease is kept alive."""
    store = EtcdStore.at(url, Gateway(url.members), (f"workers/{name}/", f"health/{name}/"), ttl)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(store.run())
        try:
            yield store
        finally:
            keeping.cancel()
            await store.close()


class TestSingle(StoreContract):
    @pytest.fixture
    async def store(self, single: EtcdServer) -> AsyncIterator[EtcdStore]:
        async with worker(single.fresh()) as store:
            yield store


class TestThreeMembers(StoreContract):
    @pytest.fixture
    async def store(self, three: EtcdServer) -> AsyncIterator[EtcdStore]:
        async with worker(three.fresh()) as store:
            yield store
