"""Instances of a service are replaced one by one by others with other labels: no moment without a working endpoint."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import permutations

import pytest

from mesh.cluster.records.encode import build_view
from mesh.model.probe import ProbeKind
from mesh.model.service import Health, Instance, Scheduler, Transport
from mesh.model.table import RealKey, VirtualServer
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.builders import SMALL_POOL, instance

pytestmark = pytest.mark.looptime

NAMES = ("w1", "w2", "w3")
OLD = {"mesh.routing.port_80": "web.test", "mesh.probe.url": "http://container:80/old"}
NEW = {
    "mesh.routing.port_8080": "http://web.test",
    "mesh.routing.scheduler": "lc",
    "mesh.probe.url": "tcp://container:8080",
}


def running(name: str, labels: Mapping[str, str], generation: int) -> Instance:
    return instance(f"demo/web/{name}-{generation}", labels, address=f"10.2.{generation}.{NAMES.index(name) + 1}")


@asynccontextmanager
async def cluster(shared: MemoryCluster) -> AsyncIterator[Mapping[str, FakeWorker]]:
    workers = {name: FakeWorker(name, MemoryStore(shared, name), WorkerBed(SMALL_POOL)) for name in NAMES}
    for name, worker in workers.items():
        worker.runs([running(name, OLD, 1)])
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(worker.run()) for worker in workers.values()]
        await asyncio.sleep(2)
        yield workers
        for life in lives:
            life.cancel()


def server_of(worker: FakeWorker) -> VirtualServer:
    [(key, server)] = worker.plane.table.virtual_servers.items()
    assert (key.port, key.transport) == (80, Transport.TCP)
    return server


def used(worker: FakeWorker) -> set[RealKey]:
    """The real servers that get new connections."""
    return {real for real, server in server_of(worker).real_servers.items() if server.weight}


@pytest.mark.parametrize("order", [*permutations(NAMES)])
async def test_replacing_one_by_one_ends_with_the_new_declaration(order: tuple[str, ...]) -> None:
    async with cluster(MemoryCluster()) as workers:
        first = server_of(workers["w1"])
        assert first.scheduler is Scheduler.WRR
        for number, name in enumerate(order, start=1):
            workers[name].runs([])
            await asyncio.sleep(1)
            workers[name].runs([running(name, NEW, 2)])
            await asyncio.sleep(1)
            # Each endpoint is reached at the port that its own labels declare, whichever declaration is in force.
            wanted = {RealKey(f"10.2.2.{NAMES.index(n) + 1}", 8080) for n in order[:number]}
            wanted |= {RealKey(f"10.2.1.{NAMES.index(n) + 1}", 80) for n in order[number:]}
            scheduler = Scheduler.LC if number > 1 else Scheduler.WRR
            for worker in workers.values():
                assert used(worker) == wanted
                assert server_of(worker).scheduler is scheduler
        records = (await workers["w1"].store.read()).records
        seen, problems = build_view(records)
        assert problems == ()
        [service] = seen.services
        assert seen.claims.declarations == {"demo/web": service.shared}


@pytest.mark.parametrize("name", NAMES)
async def test_a_newcomer_changes_nothing_for_the_others(name: str) -> None:
    async with cluster(MemoryCluster()) as workers:
        workers[name].runs([running(name, OLD, 1), instance("demo/web/-", NEW, address="10.2.9.9")])
        await asyncio.sleep(1)
        for worker in workers.values():
            assert server_of(worker).scheduler is Scheduler.WRR
            assert len(used(worker)) == 4
        _, [problem] = build_view((await workers["w1"].store.read()).records)
        assert "instance demo/web/- of worker" in str(problem)


async def test_each_endpoint_is_probed_as_its_own_labels_say() -> None:
    async with cluster(MemoryCluster()) as workers:
        workers["w1"].runs([running("w1", OLD, 1), running("w1", NEW, 2)])
        workers["w2"].runs([running("w2", {"mesh.routing.port_80": "web.test"}, 3)])
        await asyncio.sleep(1)
        probes = {id: target.probe.kind for (_, id), target in workers["w1"].probes.targets.items()}
        assert probes == {"demo/web/w1-1": ProbeKind.HTTP, "demo/web/w1-2": ProbeKind.TCP}
        assert workers["w2"].probes.targets == {}
        for worker in workers.values():
            assert RealKey("10.2.3.2", 80) in used(worker), "it has no probe: it serves at once"


async def test_an_endpoint_whose_labels_lack_a_port_gets_no_traffic_from_it() -> None:
    async with cluster(MemoryCluster()) as workers:
        other = {"mesh.routing.port_9000": "web.test:90", "mesh.probe.url": "tcp://container:9000"}
        workers["w3"].runs([running("w3", OLD, 1), running("w3", other, 2)])
        await asyncio.sleep(1)
        assert used(workers["w1"]) == {RealKey(f"10.2.1.{n}", 80) for n in (1, 2, 3)}


async def test_a_failing_old_endpoint_no_longer_decides_and_its_return_changes_nothing() -> None:
    async with cluster(MemoryCluster()) as workers:
        for name in ("w1", "w2"):
            workers[name].runs([])
        workers["w3"].runs([running("w3", OLD, 1), running("w3", NEW, 2)])
        await asyncio.sleep(1)
        assert server_of(workers["w1"]).scheduler is Scheduler.WRR
        workers["w3"].finds({"demo/web/w3-1": Health.UNHEALTHY})
        await asyncio.sleep(1)
        assert server_of(workers["w1"]).scheduler is Scheduler.LC
        workers["w3"].finds({"demo/web/w3-1": Health.HEALTHY})
        await asyncio.sleep(1)
        assert server_of(workers["w1"]).scheduler is Scheduler.LC, "one of two is not more than half"


async def test_a_worker_without_memory_comes_to_the_same_result() -> None:
    shared = MemoryCluster()
    async with cluster(shared) as workers:
        workers["w3"].runs([])
        workers["w1"].runs([running("w1", NEW, 2)])
        await asyncio.sleep(1)
        newcomer = FakeWorker("a", MemoryStore(shared, "a"), WorkerBed(SMALL_POOL))
        async with asyncio.TaskGroup() as tasks:
            life = tasks.create_task(newcomer.run())
            await asyncio.sleep(2)
            assert server_of(newcomer) == server_of(workers["w1"]) == server_of(workers["w2"])
            assert server_of(newcomer).scheduler is Scheduler.WRR
            life.cancel()
