"""A version with more fields is rolled out and back, worker by worker; every worker sees all records."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from mesh.cluster.claims import ClaimRequest, plan_claims
from mesh.cluster.records.encode import build_view, own_prefixes
from mesh.cluster.sync import ClusterSync
from mesh.config.etcd_url import EtcdUrl
from mesh.control.conditions import LoopConditions
from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Health
from mesh.model.view import ClusterView, HealthReport
from mesh.store import Store
from mesh.store.etcd import EtcdStore
from tests.builders import service
from tests.store.etcd.server import EtcdServer, etcd, worker

WORKERS = ("w1", "w2", "w3", "w4")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path, 3) as server:
        yield server


class Newer:
    """The store as a newer version writes to it: with more in each record, and with records of more kinds."""

    def __init__(self, store: EtcdStore, name: str) -> None:
        self._name = name
        self._store = store
        self.read, self.watch, self.replace = store.read, store.watch, store.replace
        self.change, self.run, self.close = store.change, store.run, store.close
        self.hold, self.release = store.hold, store.release

    @property
    def trouble(self) -> CodedText | None:
        return self._store.trouble

    async def claim(self, records: Mapping[str, bytes]) -> Mapping[str, bytes]:
        refused = await self._store.claim({key: _more(value) for key, value in records.items()})
        return {} if all(_same(value, records[key]) for key, value in refused.items()) else refused

    async def register(self, records: Mapping[str, bytes]) -> None:
        more = {f"workers/{self._name}/shapes/x": b'{"v":2}', f"health/{self._name}/x/y/z": b'{"v":2}'}
        await self._store.register({key: _more(value) for key, value in records.items()} | more)


def _more(value: bytes) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(value), "v": 2, "shape": {"new": [1]}})


def _same(value: bytes, other: bytes) -> bool:
    return bool(msgspec.json.decode(value).items() >= (msgspec.json.decode(other) | {"v": 2}).items())


class Upgraded:
    """One worker, before or after it has got the newer version."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.journal = LoopConditions()
        self.view = ClusterView()

    @asynccontextmanager
    async def running(self, url: EtcdUrl, *, newer: bool) -> AsyncIterator[None]:
        async with worker(url, self.name) as etcd_store, asyncio.TaskGroup() as tasks:
            store: Store = Newer(etcd_store, self.name) if newer else etcd_store
            share = ClusterSync(self.name, store, self.journal, self._decide)
            task = tasks.create_task(share.run(self._see, patient=False))
            name = f"{self.name}.test"
            own = service(name, owner=f"demo/{self.name}")
            shared = service("all.test")
            ends = [Endpoint(f"e{s.owner}", s.owner, self.name, f"10.2.0.{self.name[1:]}") for s in (own, shared)]
            share.offer((own, shared), tuple(ends))
            share.judge({endpoint.key: HealthReport(Health.HEALTHY) for endpoint in ends})
            yield
            task.cancel()

    def _see(self, seen: ClusterView) -> None:
        self.view = replace(seen, workers=frozenset())  # nobody is among its own others

    def _decide(self, seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=ip_network("10.112.0.0/24"), ports=range(30000, 30010))

    @property
    def sees_all(self) -> bool:
        return len(self.view.endpoints) == len(self.view.health) == 2 * len(WORKERS) and len(self.view.claims.vips) == 5


async def test_a_newer_version_is_rolled_out_and_back(three: EtcdServer) -> None:
    url = three.fresh()
    workers = {name: Upgraded(name) for name in WORKERS}
    async with AsyncExitStack() as all_of_them:
        lives = {name: await all_of_them.enter_async_context(AsyncExitStack()) for name in WORKERS}

        async def start(name: str, *, newer: bool) -> None:
            await lives[name].enter_async_context(workers[name].running(url, newer=newer))

        for number, name in enumerate(WORKERS):
            await start(name, newer=number % 2 == 0)
        await agree([*workers.values()])
        vips = workers["w1"].view.claims.vips
        async with worker(url, "reader") as reader:
            for name, newer in (("w2", True), ("w4", True), ("w1", False), ("w2", False)):
                before = (await reader.read()).records
                await lives[name].aclose()
                await start(name, newer=newer)
                async with asyncio.timeout(10):
                    while (b'"shape"' in (await reader.read()).records[f"workers/{name}/daemon"]) != newer:
                        await asyncio.sleep(0.05)
                await agree([*workers.values()])
                after = (await reader.read()).records
                changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
                assert all(key.startswith(own_prefixes(name)) for key in changed), "nobody writes for others"
                assert build_view(after)[0].claims.vips == vips, "and nothing is claimed anew"
    assert not any(problem for one in workers.values() for problem in one.journal.problems.values())


async def agree(workers: Sequence[Upgraded]) -> None:
    """All see all, and the same."""
    async with asyncio.timeout(20):
        while not all(one.sees_all and one.view == workers[0].view for one in workers):
            await asyncio.sleep(0.05)
