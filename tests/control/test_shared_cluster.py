"""Shares that an operator gives on one worker are in the data plane of every worker, also while the store is away."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from mesh.cluster.share_actions import ShareActions
from mesh.model.service import Health
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.builders import SMALL_POOL, instance

pytestmark = pytest.mark.looptime

LABELS = {"mesh.routing.port_80": "web.test", "mesh.probe.url": "http://container:80"}
PLACES = {"w1": ("old-1", "old-2"), "w2": ("old-3", "new-4"), "w3": ()}
"""The instances of each worker: their release and the last part of their address."""


@asynccontextmanager
async def cluster(shared: MemoryCluster) -> AsyncIterator[Mapping[str, FakeWorker]]:
    workers = {name: FakeWorker(name, MemoryStore(shared, name), WorkerBed(SMALL_POOL)) for name in PLACES}
    for name, ids in PLACES.items():
        workers[name].runs(
            instance(id, {**LABELS, "mesh.routing.release": id[:3]}, address=f"10.2.0.{id[4:]}") for id in ids
        )
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(worker.run()) for worker in workers.values()]
        await asyncio.sleep(2)
        yield workers
        for life in lives:
            life.cancel()


def weights(worker: FakeWorker) -> list[int]:
    """The weights in the data plane of a worker, in the order of the endpoints' addresses."""
    [server] = worker.plane.table.virtual_servers.values()
    return [real.weight for _, real in sorted(server.real_servers.items())]


async def test_every_worker_follows_the_shares_and_forgets_them_with_a_reset() -> None:
    shared = MemoryCluster()
    async with cluster(shared) as workers:
        operator = ShareActions(MemoryStore(shared, "w3"))
        assert [weights(worker) for worker in workers.values()] == [[1, 1, 1, 1]] * 3
        await operator.give("demo/web", {"new": 1000}, "anna")
        await asyncio.sleep(1)
        assert [weights(worker) for worker in workers.values()] == [[3, 3, 3, 1]] * 3
        shared.out_of_reach = True
        await asyncio.sleep(120)
        assert [weights(worker) for worker in workers.values()] == [[3, 3, 3, 1]] * 3
        shared.out_of_reach = False
        await asyncio.sleep(10)
        shared.lose_everything()
        await asyncio.sleep(60)
        assert [weights(worker) for worker in workers.values()] == [[3, 3, 3, 1]] * 3
        await operator.reset("web.test")
        await asyncio.sleep(1)
        assert [weights(worker) for worker in workers.values()] == [[1, 1, 1, 1]] * 3


async def test_a_new_release_that_fails_gives_its_share_back_and_gets_it_again() -> None:
    shared = MemoryCluster()
    async with cluster(shared) as workers:
        await ShareActions(MemoryStore(shared, "w3")).give("demo/web", {"new": 5000}, "anna")
        await asyncio.sleep(1)
        assert weights(workers["w1"]) == [1, 1, 1, 3]
        workers["w2"].finds({"new-4": Health.UNHEALTHY})
        await asyncio.sleep(1)
        assert weights(workers["w1"])[:3] == [1, 1, 1]
        assert not sum(weights(workers["w1"])[3:])
        workers["w2"].finds({"new-4": Health.HEALTHY})
        await asyncio.sleep(1)
        assert [weights(worker) for worker in workers.values()] == [[1, 1, 1, 3]] * 3
