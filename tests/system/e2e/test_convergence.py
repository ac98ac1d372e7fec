"""Control loops of several workers on a real etcd: a burst of changes converges to one table."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network

import pytest

from mesh.cluster.records.decode import daemon_session
from mesh.cluster.records.encode import build_view, own_prefixes
from mesh.config.etcd_url import EtcdUrl
from mesh.control.digest import plan_digest
from mesh.control.planner import make_plan
from mesh.model.service import Health, Instance
from mesh.store.etcd import EtcdClient, EtcdStore
from mesh.testing.worker import FakeWorker, WorkerBed, spread_instances
from tests.store.etcd.server import EtcdServer, etcd

FIELD = WorkerBed(ip_network("10.112.0.0/16"))
SERVICES, COPIES, WORKERS = 50, 4, 5
ALL = SERVICES * COPIES


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def placed() -> list[list[Instance]]:
    return spread_instances(SERVICES, COPIES, WORKERS)


@asynccontextmanager
async def cluster(url: EtcdUrl, placed: list[list[Instance]]) -> AsyncIterator[list[FakeWorker]]:
    """All of them, as soon as each carries everything."""
    async with AsyncExitStack() as stack:
        workers = []
        for number, instances in enumerate(placed):
            store = EtcdStore.at(url, EtcdClient(url.members), own_prefixes(f"w{number}"), 5, daemon_session)
            stack.push_async_callback(store.close)
            workers.append(FakeWorker(f"w{number}", store, FIELD))
            workers[-1].runs(instances)
        async with asyncio.TaskGroup() as tasks:
            lives = [tasks.create_task(worker.run()) for worker in workers]
            await all_carry(workers, ALL)
            yield workers
            for life in lives:
                life.cancel()


async def all_carry(workers: list[FakeWorker], count: int) -> None:
    """Wait until each has so many real servers and all have one digest."""

    def carried(worker: FakeWorker) -> int:
        return sum(len(server.real_servers) for server in worker.plane.table.virtual_servers.values())

    try:
        async with asyncio.timeout(40):
            while {carried(w) for w in workers} != {count} or len({w.loop.snapshots.digest() for w in workers}) != 1:
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{[(carried(w), w.loop.snapshots.digest()) for w in workers]}, and not {count} each")


async def expected(worker: FakeWorker) -> str:
    """What the records alone say."""
    seen, problems = build_view((await worker.store.read()).records)
    assert not problems
    return plan_digest(make_plan(seen, seen.health))


async def test_a_burst_of_verdicts_converges_to_one_table(server: EtcdServer, placed: list[list[Instance]]) -> None:
    async with cluster(server.fresh(), placed) as workers:
        revision = (await workers[0].store.read()).revision
        passes = sum(worker.loop.stats.passes for worker in workers)
        for worker, instances in zip(workers, placed, strict=True):
            for instance in instances:
                worker.finds({instance.id: Health.UNHEALTHY})
        await all_carry(workers, 0)
        assert {worker.loop.snapshots.digest() for worker in workers} == {await expected(workers[0])}
        assert (await workers[0].store.read()).revision - revision <= ALL / 4, "of each worker's many are one"
        assert sum(worker.loop.stats.passes for worker in workers) - passes <= ALL * WORKERS / 4
        for worker, instances in zip(workers, placed, strict=True):
            worker.finds({instance.id: Health.HEALTHY for instance in instances[:-1]})
        await all_carry(workers, ALL - WORKERS)
        assert {worker.loop.snapshots.digest() for worker in workers} == {await expected(workers[0])}


async def test_simultaneous_changes_of_all_kinds_converge_to_one_table(
    server: EtcdServer, placed: list[list[Instance]]
) -> None:
    chance = random.Random(7)
    async with cluster(server.fresh(), placed) as workers:
        for _ in range(300):
            number = chance.randrange(WORKERS)
            worker, instances = workers[number], placed[number]
            if chance.random() < 0.2:
                worker.runs(chance.sample(instances, chance.randrange(1, len(instances))))
            else:
                worker.finds({chance.choice(instances).id: chance.choice([Health.HEALTHY, Health.UNHEALTHY])})
            await asyncio.sleep(0)
        for worker, instances in zip(workers, placed, strict=True):
            worker.runs(instances[1:])
            worker.finds(dict.fromkeys((instance.id for instance in instances), Health.HEALTHY))
        await all_carry(workers, ALL - WORKERS)
        assert {worker.loop.snapshots.digest() for worker in workers} == {await expected(workers[0])}
