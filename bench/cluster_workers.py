"""Some of the workers of `cluster.py`, in a process of their own: the daemon's control loop on etcd, over fake data planes.

Everything between a verdict of a probe and the operations for the kernel is what the daemon does. Times are of
CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import gc
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_network
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from harness import cpu_seconds
from mesh.dataplane import Failure
from mesh.diff import AddRealServer, DeleteRealServer, Operation
from mesh.etcd_url import EtcdUrl
from mesh.model import Health, Instance
from mesh.naming import Names
from mesh.offload import answer_promptly
from mesh.store.etcd import EtcdStore, Gateway
from mesh.store.etcd.wire import Body, TransactionAnswer, prefix_end
from mesh.store.records import own_prefixes
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.worker import FakeWorker, Field
from meshdns.zone import Draft

FIELD = Field(ip_network("10.112.0.0/16"))
LEASE = 30
"""Seconds: nobody is lost here, however busy the machine is."""


class TimedPlane(FakeDataPlane):
    """Notes when an endpoint came and went."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, bool], float] = {}

    async def apply(self, operations: Sequence[Operation]) -> Sequence[Failure]:
        """See `DataPlane.apply`."""
        failures = await super().apply(operations)
        now = time.monotonic()
        for operation in operations:
            if isinstance(operation, AddRealServer | DeleteRealServer):
                self.seen[operation.real.address, isinstance(operation, AddRealServer)] = now
        return failures


@dataclass
class Bare:
    """Watches of nothing but etcd: what arrives is decoded and its time is noted."""

    gateway: Gateway
    prefix: bytes
    arrived: dict[bytes, list[float]] = field(default_factory=dict)
    open: int = 0

    async def watch(self) -> None:
        asked: Body = {"key": self.prefix, "range_end": prefix_end(self.prefix)}
        async with self.gateway.stream({"create_request": asked}) as stream:
            self.open += 1
            async for answers in stream:
                now = time.monotonic()
                for answer in answers:
                    for event in answer.events:
                        self.arrived.setdefault(event.kv.key, []).append(now)

    async def put(self, key: str, value: bytes) -> float:
        """A write of the kind that a worker makes; when it began."""
        began = time.monotonic()
        put = {"request_put": {"key": self.prefix + key.encode(), "value": value}}
        await self.gateway.call("kv/txn", {"success": [put]}, TransactionAnswer)
        return began


@dataclass
class Process:
    """What one process is asked; answers go back through the pipe."""

    workers: dict[str, FakeWorker]
    bare: Bare
    tasks: asyncio.TaskGroup
    watches: list[asyncio.Task[None]] = field(default_factory=list)

    async def answer(self, verb: str, *arguments: Any) -> Any:
        return await getattr(self, verb)(*arguments)

    async def finds(self, worker: str, ids: Sequence[str], health: str) -> float:
        began = time.monotonic()
        self.workers[worker].finds(dict.fromkeys(ids, Health(health)))
        return began

    async def listen(self, on: bool) -> None:
        """Open as many bare watches as there are workers, or close them."""
        for watch in self.watches:
            watch.cancel()
        self.watches = [self.tasks.create_task(self.bare.watch()) for _ in self.workers] if on else []
        while on and self.bare.open < len(self.workers):
            await asyncio.sleep(0.05)

    async def put(self, key: str, value: bytes) -> float:
        return await self.bare.put(key, value)

    async def arrived(self, key: str) -> list[float]:
        return self.bare.arrived.pop(self.bare.prefix + key.encode(), [])

    async def seen(self, address: str, up: bool) -> dict[str, float]:
        planes = {name: worker.plane for name, worker in self.workers.items()}
        return {
            name: p.seen[address, up]
            for name, p in planes.items()
            if isinstance(p, TimedPlane) and (address, up) in p.seen
        }

    async def forget(self) -> None:
        for worker in self.workers.values():
            assert isinstance(worker.plane, TimedPlane)
            worker.plane.seen.clear()

    async def digests(self) -> dict[str, tuple[str | None, int, int]]:
        """Of each worker: its digest, its passes, its real servers."""
        return {
            name: (
                worker.loop.digest(),
                worker.loop.passes,
                sum(len(server.real_servers) for server in worker.plane.table.virtual_servers.values()),
            )
            for name, worker in self.workers.items()
        }

    async def used(self) -> tuple[float, int]:
        """CPU seconds so far, and resident bytes."""
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return cpu_seconds(os.getpid()), pages * os.sysconf("SC_PAGE_SIZE")


async def _serve(pipe: Connection, url: EtcdUrl, offered: dict[str, list[Instance]]) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        workers = {}
        for name, instances in offered.items():
            store = EtcdStore.at(url, Gateway(url.members), own_prefixes(name), LEASE)
            stack.push_async_callback(store.close)
            draft = Draft(["test", "mesh.internal"])
            publish = Names(lambda services, draft=draft: draft.update(services))  # type: ignore[misc]
            workers[name] = FakeWorker(name, store, FIELD, plane=TimedPlane(), publish=publish)
            workers[name].runs(instances)
        gateway = Gateway(url.members)
        stack.push_async_callback(gateway.close)
        bare = Bare(gateway, url.prefix.rstrip("/").encode() + b"-bare/")
        async with asyncio.TaskGroup() as tasks:
            process = Process(workers, bare, tasks)
            running = [tasks.create_task(worker.run()) for worker in workers.values()]
            while (asked := await loop.run_in_executor(None, pipe.recv)) is not None:
                pipe.send(await process.answer(*asked))
            for task in (*running, *process.watches):
                task.cancel()


def serve(pipe: Connection, url: EtcdUrl, offered: dict[str, list[Instance]]) -> None:
    """The life of the process; ends when None comes through the pipe."""
    answer_promptly()
    uvloop.run(_serve(pipe, url, offered))
