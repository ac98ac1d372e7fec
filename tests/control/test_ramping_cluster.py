"""A new endpoint ramps in the data plane of every worker, by few passes, and a restart of a daemon ramps nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from mesh.model.service import Health, Instance
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.builders import SMALL_POOL, instance

pytestmark = pytest.mark.looptime

LABELS = {
    "mesh.routing.port_80": "web.test",
    "mesh.probe.url": "http://container:80",
    "mesh.routing.slow_start_seconds": "20",
}
OLD, NEW = ("old-1", "old-2", "old-3"), "new-4"


def instances(ids: Iterable[str]) -> list[Instance]:
    return [instance(id, LABELS, address=f"10.2.0.{id[4:]}") for id in ids]


@asynccontextmanager
async def running(*workers: FakeWorker) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(worker.run()) for worker in workers]
        yield
        for life in lives:
            life.cancel()


def weights(worker: FakeWorker) -> list[int]:
    """The weights in the data plane of a worker, in the order of the endpoints' addresses."""
    [server] = worker.plane.table.virtual_servers.values()
    return [real.weight for _, real in sorted(server.real_servers.items())]


def passes(worker: FakeWorker) -> int:
    return worker.loop.stats.passes


async def test_every_worker_ramps_and_makes_a_pass_for_each_step_and_no_other() -> None:
    shared = MemoryCluster()
    workers = [FakeWorker(name, MemoryStore(shared, name), WorkerBed(SMALL_POOL)) for name in ("w1", "w2")]
    first, second = workers
    first.runs(instances(OLD))
    async with running(*workers):
        await asyncio.sleep(60)
        before = passes(second)
        await asyncio.sleep(100)
        idle = passes(second) - before
        assert [weights(worker) for worker in workers] == [[1, 1, 1]] * 2
        first.runs(instances((*OLD, NEW)))
        await asyncio.sleep(1)
        assert [weights(worker) for worker in workers] == [[10, 10, 10, 1]] * 2
        before = passes(second)
        grown = []
        for _ in range(22):
            await asyncio.sleep(1)
            assert weights(first) == weights(second)
            grown.append(weights(second)[3])
        assert grown[:19] == sorted(grown[:19])
        assert set(grown[:19]) >= set(range(2, 10))
        assert weights(second) == [1, 1, 1, 1]
        assert first.loop.snapshots.digest() == second.loop.snapshots.digest()
        assert passes(second) - before <= 9 + 22 * idle / 100 + 2
        before = passes(second)
        await asyncio.sleep(100)
        assert passes(second) - before <= idle + 1


async def test_a_restart_in_the_middle_of_a_ramp_ends_it_there_and_is_no_difference_of_the_digests() -> None:
    shared, plane = MemoryCluster(), FakeDataPlane()
    first = FakeWorker("w1", MemoryStore(shared, "w1"), WorkerBed(SMALL_POOL))
    second = FakeWorker("w2", MemoryStore(shared, "w2"), WorkerBed(SMALL_POOL), plane=plane)
    first.runs(instances(OLD))
    async with running(first):
        async with running(second):
            await asyncio.sleep(5)
            first.runs(instances((*OLD, NEW)))
            await asyncio.sleep(5)
            assert weights(second)[0] == 10
        again = FakeWorker("w2", MemoryStore(shared, "w2"), WorkerBed(SMALL_POOL), plane=plane)
        again.runs([])
        async with running(again):
            await asyncio.sleep(3)
            assert weights(again) == [1, 1, 1, 1]
            assert weights(first)[0] == 10
            assert first.loop.snapshots.digest() == again.loop.snapshots.digest()


async def test_an_endpoint_that_failed_ramps_again() -> None:
    worker = FakeWorker("w1", MemoryStore(MemoryCluster(), "w1"), WorkerBed(SMALL_POOL))
    worker.runs(instances(OLD))
    async with running(worker):
        await asyncio.sleep(60)
        worker.finds({"old-2": Health.UNHEALTHY})
        await asyncio.sleep(1)
        assert [weight for weight in weights(worker) if weight] == [1, 1]
        worker.finds({"old-2": Health.HEALTHY})
        await asyncio.sleep(1)
        assert weights(worker) == [10, 1, 10]
        await asyncio.sleep(21)
        assert weights(worker) == [1, 1, 1]


@pytest.mark.parametrize("keeps_table", [True, False])
async def test_a_worker_that_starts_again_with_an_empty_store_ramps_nothing(keeps_table: bool) -> None:
    plane = FakeDataPlane()
    worker = FakeWorker("w1", MemoryStore(MemoryCluster(), "w1"), WorkerBed(SMALL_POOL), plane=plane)
    worker.runs(instances((*OLD, NEW)))
    async with running(worker):
        await asyncio.sleep(30)
    plane = plane if keeps_table else FakeDataPlane()
    again = FakeWorker("w1", MemoryStore(MemoryCluster(), "w1"), WorkerBed(SMALL_POOL), plane=plane)
    again.runs(instances((*OLD, NEW)))
    async with running(again):
        for _ in range(30):
            await asyncio.sleep(1)
            assert weights(again) == [1, 1, 1, 1]
