"""The cost of the ring of past events: CPU time of a worker with it, beside the same worker without.

    PYTHONPATH=. python bench/events.py

A worker's control loop over its own store, with a thousand services of ten endpoints each and a fake data plane; each
change is a verdict of a probe. Everything from there to the record in the store, the operations for the kernel, the
names, and the event with its line in the log is as in the daemon. With and without take turns in the same process. CPU
time is that of all its threads for each change.
"""

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import cycle
from pathlib import Path

import uvloop

from harness import Row, main, ratio, scratch
from mesh.control.dns_zone import ZonePublisher
from mesh.control.event_recorder import ContainerExits, EventRecorder
from mesh.model.service import Health
from mesh.store.event_ring import RingLimits
from mesh.store.sqlite import SqliteStore
from mesh.store.sqlite_event_ring import SqliteEventRing
from mesh.testing.worker import FakeWorker, WorkerBed, spread_instances
from mesh.util.logging.handler import QueuedLogHandler
from mesh.util.offload import shorten_thread_switches
from meshdns.zone import ZoneBuilder

SERVICES, COPIES = 1000, 10
RATE = 1000
"""Changes in a second at the most, each of another endpoint."""
STEP = 250
"""Changes at once. The next ones come when the table has these: a busy machine makes as many passes for them as an idle
one.
"""
LIMITS = RingLimits(10_000, 7 * 86400.0)
"""The defaults of the settings; a full ring drops its oldest events."""
GOAL = 1.1
PATIENCE = 120.0


@dataclass
class Load:
    """A worker whose endpoints fail and recover, each in its turn."""

    worker: FakeWorker
    ring: SqliteEventRing
    changes: "cycle[tuple[str, Health]]"
    down: int = 0
    """Endpoints that fail now."""

    async def cost(self, steps: int) -> float:
        """CPU seconds of a change, over so many steps."""
        used = time.process_time()
        for _ in range(steps):
            turned = dict(next(self.changes) for _ in range(STEP))
            self.worker.finds(turned)
            self.down += sum(1 if health is Health.UNHEALTHY else -1 for health in turned.values())
            async with asyncio.timeout(PATIENCE):
                await asyncio.sleep(STEP / RATE)
                while self.served() != SERVICES * COPIES - self.down:
                    await asyncio.sleep(0.05)
        await self.settled()
        return (time.process_time() - used) / (steps * STEP)

    def served(self) -> int:
        """How many real servers the table has."""
        return sum(len(each.real_servers) for each in self.worker.plane.table.virtual_servers.values())

    async def settled(self) -> None:
        """Wait until no more passes follow, and so what this worker wrote into its store has come back."""
        before = -1
        async with asyncio.timeout(PATIENCE):
            while before != self.worker.loop.stats.passes:
                before = self.worker.loop.stats.passes
                await asyncio.sleep(1.0)

    @asynccontextmanager
    async def recorded(self) -> AsyncIterator[None]:
        """The events are kept meanwhile. It begins once what was there before is kept."""
        kept = asyncio.Event()
        control = self.worker.loop
        recorder = EventRecorder(
            self.worker.name,
            self.ring,
            look=control.event_moment,
            due=self.worker.recording,
            exits=ContainerExits(),
            conditions=control.conditions,
            on_events=lambda _: kept.set(),
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(recorder.run())
            await asyncio.wait_for(kept.wait(), PATIENCE)
            yield
            task.cancel()
        await recorder.stop()


def discard(_: object) -> None:
    """Let go of what the name server would get."""


async def measure(directory: Path, rounds: int, steps: int) -> tuple[list[float], list[float], int]:
    """CPU seconds of a change with the ring and without, of each round, and how many events the ring has."""
    names = ZoneBuilder(["test", "mesh.internal"])
    publisher = ZonePublisher(lambda services: discard(names.update(services)))
    store = await SqliteStore.open(directory / "store.db", "w1")
    worker = FakeWorker("w1", store, WorkerBed(ip_network("10.112.0.0/16")), publish=publisher)
    (instances,) = spread_instances(SERVICES, COPIES, 1)
    worker.runs(instances)
    # One endpoint of each service, then the next one of each: changes at one time are those of many services.
    turn = [each.id for copy in range(COPIES) for each in instances[copy::COPIES]]
    flips = [(id, health) for health in (Health.UNHEALTHY, Health.HEALTHY) for id in turn]
    ring = SqliteEventRing(directory / "events.db", LIMITS)
    load = Load(worker, ring, cycle(flips))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            while load.served() < SERVICES * COPIES:
                await asyncio.sleep(0.1)
        gc.freeze()
        await load.settled()
        await load.cost(steps)
        with_ring, without = [], []
        for number in range(rounds):
            for recorded in (True, False) if number % 2 else (False, True):
                if not recorded:
                    without.append(await load.cost(steps))
                    continue
                async with load.recorded():
                    with_ring.append(await load.cost(steps))
        kept = len(await ring.read())
        await ring.close()
        task.cancel()
    await store.close()
    return with_ring, without, kept


def run(quick: bool) -> Sequence[Row]:
    """`quick`: three short rounds, else seven."""
    shorten_thread_switches()
    rounds, steps = (3, 8) if quick else (7, 20)
    log, nowhere = logging.getLogger("vipmesh"), os.open(os.devnull, os.O_WRONLY)
    handler = QueuedLogHandler(nowhere)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with scratch() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ours, alone, kept = runner.run(measure(directory, rounds, steps))
    finally:
        log.removeHandler(handler)
        handler.close()
        os.close(nowhere)
    middle, spread = ratio(ours, alone)
    name = f"CPU of a change, {RATE:,} a second, {SERVICES} services x {COPIES}, with the ring of events beside without"
    texts = [f"{sorted(times)[len(times) // 2] * 1e6:.0f} us" for times in (ours, alone)]
    return [Row(name, f"{texts[0]}, {kept} events kept", texts[1], middle, spread, f"<= {GOAL}", middle <= GOAL)]


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
