"""Two real engines as one swarm: what a rebalancing and the drain of a worker leave, and where affinities lead."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from typing_extensions import override

from mesh.control.conditions import LoopConditions
from mesh.platform.fleet.protocol import FleetAvailability, FleetContainer, FleetSpec
from mesh.platform.fleet.swarm import SwarmFleet
from mesh.platform.stacks.acting_daemon import ActingDaemon
from mesh.platform.stacks.affinity import runs_service
from mesh.platform.stacks.model import SERVICE_LABEL, STACK_LABEL
from mesh.platform.stacks.mover import StackMover
from mesh.platform.stacks.readiness import StackEndpoints, StackReadiness
from mesh.platform.stacks.running import EndpointAnswer
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.netns import Namespace
from tests.system.docker.engine import IMAGE, Engine, missing
from tests.system.e2e.programs import eventually

MANAGER, WORKER = "10.99.0.1", "10.99.0.2"
PATIENCE = 120.0


@pytest.fixture
def engines() -> Iterator[tuple[Engine, Engine]]:
    """A manager and a worker of one swarm, each in a network namespace."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    found = (Engine(Namespace()), Engine(Namespace()))
    try:
        for engine in found:
            engine.namespace.ip("link set lo up")
            engine.start()
            engine.import_image()
        first, second = found
        first.namespace.ip(
            f"link add swarm0 type veth peer name swarm0 netns {second.pid}",
            f"address add {MANAGER}/24 dev swarm0",
            "link set swarm0 up",
        )
        second.namespace.ip(f"address add {WORKER}/24 dev swarm0", "link set swarm0 up")
        first.docker("swarm", "init", "--advertise-addr", MANAGER, "--listen-addr", MANAGER)
        token = first.docker("swarm", "join-token", "-q", "worker")
        second.docker("swarm", "join", "--advertise-addr", WORKER, "--token", token, f"{MANAGER}:2377")
        yield first, second
    finally:
        for engine in reversed(found):
            subprocess.run(engine.command("swarm", "leave", "--force"), capture_output=True, check=False, timeout=50)
            engine.close()


class NoMesh(StackReadiness, StackEndpoints):
    """The services of these tests are not routed."""

    @override
    async def answers(self) -> Mapping[str, EndpointAnswer]:
        raise NotImplementedError

    @override
    async def drain(self, tasks: object) -> tuple[str, ...]:
        raise NotImplementedError

    @override
    async def undrain(self, tasks: object) -> tuple[str, ...]:
        raise NotImplementedError


def spec_of(name: str, instances: int, *constraints: str) -> FleetSpec:
    container = FleetContainer(IMAGE, args=("sh", "-c", "trap exit TERM; sleep 600 & wait"))
    labels = {STACK_LABEL: "shop", SERVICE_LABEL: f"shop/{name}"}
    return FleetSpec(f"shop_{name}--1", container, labels, instances, constraints=constraints)


async def spread(fleet: SwarmFleet, service: str) -> Counter[str]:
    """How many instances run on each worker, by its ID."""
    return Counter(
        task.worker_id for task in await fleet.tasks(service) if (task.state, task.desired) == ("running", "running")
    )


async def test_instances_move_between_two_engines_and_never_fewer_run(engines: tuple[Engine, Engine]) -> None:
    fleet = SwarmFleet(engines[0].url)
    id = await fleet.create(spec_of("web", 4))
    workers = await eventually(fleet.workers, lambda now: len(now) == 2 and all(each.is_ready for each in now), 60)
    (second,) = [each for each in workers if each.role == "worker"]
    (first,) = [each for each in workers if each.role == "manager"]
    mover = StackMover(fleet, NoMesh(), NoMesh(), wait=PATIENCE)
    await eventually(lambda: spread(fleet, id), lambda now: now.total() == 4, 60)

    lowest, ends = 4, asyncio.Event()

    async def watch() -> None:
        nonlocal lowest
        while not ends.is_set():
            lowest = min(lowest, (await spread(fleet, id)).total())
            await asyncio.sleep(0.1)

    watching = asyncio.ensure_future(watch())
    try:
        outcome = await mover.drain(second.id)
        assert outcome.failures == ()
        assert await eventually(lambda: spread(fleet, id), lambda now: now.total() == 4, 60) == {first.id: 4}
        assert (await mover.undrain(second.id)).failures == ()
        assert await spread(fleet, id) == {first.id: 4}
        assert (await mover.rebalance([id])).failures == ()
        assert await eventually(lambda: spread(fleet, id), lambda now: now.total() == 4, 60) == {
            first.id: 2,
            second.id: 2,
        }
        before = await fleet.services()
        done = mover.done
        assert (await mover.rebalance([id])).steps == done
        assert await fleet.services() == before
    finally:
        ends.set()
        await watching
    assert lowest == 4
    assert [(each.spec.instances, set(each.spec.labels)) for each in before] == [(4, {STACK_LABEL, SERVICE_LABEL})]


async def test_an_affinity_holds_on_real_engines_when_its_service_moves(engines: tuple[Engine, Engine]) -> None:
    fleet, cluster = SwarmFleet(engines[0].url), MemoryCluster()
    reports = LoopConditions()
    acting = ActingDaemon("w1", fleet, MemoryStore(cluster, "w1"), reports, lease=5)
    running = asyncio.ensure_future(acting.run())
    try:
        await eventually(fleet.workers, lambda now: len(now) == 2 and all(each.is_ready for each in now), 60)
        db = await fleet.create(spec_of("db", 1))
        web = await fleet.create(spec_of("web", 2, f"node.labels.{runs_service('shop', 'db')}==true"))
        first = await eventually(lambda: spread(fleet, web), lambda now: now.total() == 2, 60)
        assert set(first) == set(await spread(fleet, db))
        assert reports.acting == "w1"
        (place,) = [each for each in await fleet.workers() if each.id in first]
        await fleet.set_worker(place.id, place.version, place.labels, FleetAvailability.DRAIN)
        moved = await eventually(lambda: spread(fleet, web), lambda now: now.total() == 2 and place.id not in now, 90)
        assert set(moved) == set(await spread(fleet, db))
    finally:
        running.cancel()
        await asyncio.wait([running])
