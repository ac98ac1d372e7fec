"""From a change on one worker to the tables of all workers: real loops, a store in memory, virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest
from typing_extensions import override

from mesh.cluster.records.encode import build_view
from mesh.control.digest import plan_digest
from mesh.control.planner import make_plan
from mesh.dataplane import OperationFailure
from mesh.dataplane.operations import Operation
from mesh.model.service import Health, Instance
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed, spread_instances

pytestmark = pytest.mark.looptime

FIELD = WorkerBed(ip_network("10.112.0.0/16"), drain_timeout=2.0)
SERVICES, COPIES, WORKERS = 40, 3, 6


class RecordingPlane(FakeDataPlane):
    """Keeps every weight that an endpoint ever had, and takes its time if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, list[int]] = {}
        self.takes = 0.0

    @override
    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        await asyncio.sleep(self.takes)
        failures = await super().apply(operations)
        for server in self.table.virtual_servers.values():
            for real, settings in server.real_servers.items():
                seen = self.weights.setdefault(real.address, [])
                if not seen or seen[-1] != settings.weight:
                    seen.append(settings.weight)
        return failures


class SlowStore(MemoryStore):
    """Every write takes its time."""

    takes = 0.0

    @override
    async def register(self, records: Mapping[str, bytes]) -> None:
        await asyncio.sleep(self.takes)
        await super().register(records)


@dataclass
class Cluster:
    """Some workers on one store."""

    shared: MemoryCluster = field(default_factory=MemoryCluster)
    workers: list[FakeWorker] = field(default_factory=list)
    lives: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    where: WorkerBed = FIELD
    placed: list[list[Instance]] = field(default_factory=lambda: spread_instances(SERVICES, COPIES, WORKERS))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        async with asyncio.TaskGroup() as tasks:
            self.tasks = tasks
            for number in range(WORKERS):
                self.start(number)
            await asyncio.sleep(5)
            yield self
            for life in self.lives.values():
                life.cancel()

    def start(self, number: int) -> None:
        """A daemon, on the data plane that its former life has left."""
        plane = self.workers[number].plane if number < len(self.workers) else RecordingPlane()
        worker = FakeWorker(f"w{number}", SlowStore(self.shared, f"w{number}"), self.where, plane=plane)
        worker.runs(self.placed[number])
        self.workers[number:] = [worker, *self.workers[number + 1 :]]
        self.lives[worker.name] = self.tasks.create_task(worker.run())

    async def stop(self, number: int) -> None:
        life = self.lives.pop(f"w{number}")
        life.cancel()
        await asyncio.wait([life])

    def digests(self) -> set[str | None]:
        return {worker.loop.snapshots.digest() for worker in self.workers}

    def expected(self) -> str:
        """From the records alone, by one that has seen nothing before."""
        seen, problems = build_view(self.shared.records)
        assert not problems
        return plan_digest(make_plan(seen, seen.health))

    def reals(self) -> set[int]:
        """How many real servers each carries."""
        planes = [worker.plane.table.virtual_servers.values() for worker in self.workers]
        return {sum(len(server.real_servers) for server in servers) for servers in planes}

    def passes(self) -> int:
        return sum(worker.loop.stats.passes for worker in self.workers)


def ids(instances: Iterable[Instance]) -> list[str]:
    return [instance.id for instance in instances]


async def test_all_workers_converge_to_one_table() -> None:
    async with Cluster().running() as cluster:
        assert cluster.reals() == {SERVICES * COPIES}
        assert cluster.digests() == {cluster.expected()}
        assert {frozenset(worker.plane.table.virtual_servers) for worker in cluster.workers} == {
            frozenset(cluster.workers[0].plane.table.virtual_servers)
        }


async def test_a_single_change_is_applied_without_delay() -> None:
    async with Cluster().running() as cluster:
        began = asyncio.get_running_loop().time()
        cluster.workers[2].finds({cluster.placed[2][0].id: Health.UNHEALTHY})
        for _ in range(200):
            await asyncio.sleep(0)
        assert cluster.reals() == {SERVICES * COPIES - 1}
        assert asyncio.get_running_loop().time() - began < 0.001


async def test_a_burst_of_changes_is_coalesced_and_all_workers_converge() -> None:
    async with Cluster().running() as cluster:
        before, passes = cluster.shared.revision, cluster.passes()
        digests = cluster.digests()
        for instances, worker in zip(cluster.placed, cluster.workers, strict=True):
            for id in ids(instances):
                worker.finds({id: Health.UNHEALTHY})
        await asyncio.sleep(1)
        assert cluster.reals() == {0}
        assert cluster.shared.revision - before <= 2 * WORKERS, f"for {SERVICES * COPIES} changes"
        assert cluster.passes() - passes <= 6 * WORKERS
        assert cluster.digests() == {cluster.expected()}
        assert cluster.digests() != digests


@pytest.mark.parametrize("seed", range(5))
async def test_a_mass_failure_keeps_the_same_half_on_all_workers(seed: int) -> None:
    """Each worker learns of its own endpoints first; what stays in traffic must not depend on that."""
    async with Cluster(where=replace(FIELD, probe_floor=50)).running() as cluster:
        chance = random.Random(seed)
        failures = [
            (worker, id) for worker, own in zip(cluster.workers, cluster.placed, strict=True) for id in ids(own)
        ]
        for worker, id in chance.sample(failures, len(failures)):
            worker.finds({id: Health.UNHEALTHY})
            await asyncio.sleep(chance.choice([0, 0.001, 0.05]))
        await asyncio.sleep(5)
        assert cluster.reals() == {SERVICES * 2}, "of three endpoints each"
        assert len(cluster.digests()) == 1
        for worker, id in failures:
            worker.finds({id: Health.HEALTHY})
        await asyncio.sleep(5)
        assert cluster.digests() == {cluster.expected()}


async def test_a_trickle_of_changes_is_coalesced_while_workers_are_busy() -> None:
    """As probes fail in reality: one after the other, while stores and kernels take their time."""
    async with Cluster().running() as cluster:
        for worker in cluster.workers:
            assert isinstance(worker.plane, RecordingPlane)
            assert isinstance(worker.store, SlowStore)
            worker.plane.takes = worker.store.takes = 0.005
        before, passes = cluster.shared.revision, cluster.passes()
        pairs = [(w, id) for w, instances in zip(cluster.workers, cluster.placed, strict=True) for id in ids(instances)]
        random.Random(1).shuffle(pairs)
        for worker, id in pairs:
            worker.finds({id: Health.UNHEALTHY})
            await asyncio.sleep(0.0005)
        await asyncio.sleep(1)
        assert cluster.reals() == {0}
        assert cluster.digests() == {cluster.expected()}
        assert cluster.shared.revision - before < len(pairs) / 2
        assert cluster.passes() - passes < len(pairs) * WORKERS / 5


async def test_changes_of_one_endpoint_arrive_in_their_order() -> None:
    """A later weight is never followed by an earlier one, whatever is left out between them."""
    async with Cluster().running() as cluster:
        first = cluster.placed[0][0]
        for weight in range(2, 60):
            heavy = Instance(first.id, first.owner, first.address, {**first.labels, "mesh.routing.weight": str(weight)})
            cluster.workers[0].runs([heavy, *cluster.placed[0][1:]])
            for _ in range(random.Random(weight).randint(0, 12)):
                await asyncio.sleep(0)
        await asyncio.sleep(1)
        for worker in cluster.workers:
            assert isinstance(worker.plane, RecordingPlane)
            seen = worker.plane.weights[first.address]
            assert seen == sorted(seen)
            assert seen[-1] == 59
        assert cluster.digests() == {cluster.expected()}


async def test_a_flapping_endpoint_ends_in_its_last_state() -> None:
    async with Cluster().running() as cluster:
        id = cluster.placed[1][0].id
        for turn in range(41):
            cluster.workers[1].finds({id: Health.UNHEALTHY if turn % 2 else Health.HEALTHY})
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        assert cluster.reals() == {SERVICES * COPIES}
        assert cluster.digests() == {cluster.expected()}


async def test_a_quiet_cluster_has_no_passes_but_audits() -> None:
    async with Cluster().running() as cluster:
        await asyncio.sleep(30)
        passes, revision = cluster.passes(), cluster.shared.revision
        await asyncio.sleep(100)
        assert cluster.shared.revision == revision
        assert cluster.passes() - passes == 10 * WORKERS


@pytest.mark.parametrize("seed", range(5))
async def test_workers_converge_after_any_faults(seed: int) -> None:
    async with Cluster().running() as cluster:
        chance = random.Random(seed)
        for _ in range(100):
            number = chance.randrange(WORKERS)
            worker, instances = cluster.workers[number], cluster.placed[number]
            match chance.randrange(20):
                case 0:
                    cluster.shared.out_of_reach = not cluster.shared.out_of_reach
                case 1:
                    cluster.shared.expire(worker.name)
                    await asyncio.sleep(0.1)
                    worker.runs(instances[: chance.randrange(len(instances))])
                case 2 if len(cluster.lives) == WORKERS:
                    await cluster.stop(number)
                    await asyncio.sleep(chance.uniform(0, 3))
                    cluster.start(number)
                case 3 | 4:
                    worker.runs(chance.sample(instances, chance.randrange(1, len(instances))))
                case _:
                    worker.finds({chance.choice(instances).id: chance.choice([Health.HEALTHY, Health.UNHEALTHY])})
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.01, 0.3]))
        cluster.shared.out_of_reach = False
        for number, worker in enumerate(cluster.workers):
            cluster.shared.expire(worker.name)
            cluster.placed[number] = cluster.placed[number][1:]
            worker.runs(cluster.placed[number])
        await asyncio.sleep(30)
        assert cluster.digests() == {cluster.expected()}
        assert cluster.reals() != {0}
        assert len(cluster.reals()) == 1
