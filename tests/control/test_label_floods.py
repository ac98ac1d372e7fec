"""Containers with many labels that mean nothing: whoever starts them must not hold the event loop."""

import asyncio
import random
from functools import partial
from ipaddress import ip_network

from mesh.config.labels.reader import MAX_SUGGESTIONS, parse_cost
from mesh.model.part import ProblemPart
from mesh.model.service import Instance
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.builders import PROBED_WEB_LABELS, WEB_LABELS
from tests.fuzz.limits import MAX_TURN, TurnSelector, measured_loop

CONTAINERS = 150


def flood(seed: int) -> list[Instance]:
    """Containers whose labels nobody has seen before."""
    chance = random.Random(seed)
    return [
        Instance(
            f"shop/evil{number}/1",
            f"shop/evil{number}",
            f"10.1.0.{number}",
            {**WEB_LABELS, **{f"mesh.{chance.random()}": "x" * 500 for _ in range(40)}},
        )
        for number in range(CONTAINERS)
    ]


def test_ordinary_labels_cost_nothing_and_unknown_and_long_ones_do() -> None:
    assert parse_cost(PROBED_WEB_LABELS) == parse_cost({"com.example": "x" * 100_000}) == 0
    assert parse_cost({"mesh.routing.wieght": "1"}) >= 500
    assert parse_cost({"mesh.probe.cmd": "x" * 100_000}) > 1000
    assert parse_cost({f"mesh.{n}": "" for n in range(1000)}) < MAX_SUGGESTIONS * 500 + 20_000


async def registered(instances: list[Instance]) -> int:
    """How many problems of labels a worker reports after it has seen these instances for the first time."""
    worker = FakeWorker("w1", MemoryStore(MemoryCluster(), "w1"), WorkerBed(ip_network("10.112.0.0/16")))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(worker.run())
        worker.runs(instances)
        while not (found := worker.loop.snapshots.observe().problems.get(ProblemPart.LABELS)):
            await asyncio.sleep(0.01)
        task.cancel()
    return len(found)


def test_a_flood_of_labels_takes_no_long_turn_of_the_loop() -> None:
    turns = []
    for seed in range(3):  # other work on the machine is no failure
        selector = TurnSelector()
        with asyncio.Runner(loop_factory=partial(measured_loop, selector)) as runner:
            assert runner.run(registered(flood(seed))) >= CONTAINERS
        turns.append(selector.longest)
    assert min(turns) < MAX_TURN, turns
