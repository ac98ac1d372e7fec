"""Runs workers of `cluster.py`, or bare watches alone, in a process of their own.

A worker is the daemon's control loop on etcd, over a fake data plane. Everything from a verdict of a probe to the
operations for the kernel is as in the daemon, names included. Times are of CLOCK_MONOTONIC, which all processes of a
machine share.
"""

import asyncio
import gc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop
from typing_extensions import override

from harness import cpu_seconds
from mesh.cluster.records.decode import daemon_session
from mesh.cluster.records.encode import own_prefixes
from mesh.config.etcd_url import EtcdUrl
from mesh.control.dns_zone import ZonePublisher
from mesh.dataplane import OperationFailure
from mesh.dataplane.operations import AddRealServer, DeleteRealServer, Operation
from mesh.model.service import Health, Instance
from mesh.store.etcd import EtcdClient, EtcdStore
from mesh.store.etcd.messages import RequestBody, TransactionResponse, prefix_end
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.worker import FakeWorker, WorkerBed
from mesh.util.offload import shorten_thread_switches
from meshdns.zone import ZoneBuilder

FIELD = WorkerBed(ip_network("10.112.0.0/16"))
LEASE = 600
"""Seconds: nobody is lost here, however busy the machine is."""


class TimedPlane(FakeDataPlane):
    """Notes when an endpoint came and went last, and when anything did."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, bool], float] = {}
        self.changed_at = 0.0

    @override
    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        failures = await super().apply(operations)
        self.changed_at = now = time.monotonic()
        for operation in operations:
            if isinstance(operation, AddRealServer | DeleteRealServer):
                self.seen[operation.real.address, isinstance(operation, AddRealServer)] = now
        return failures

    @property
    def real_servers(self) -> int:
        """How many there are."""
        return sum(len(server.real_servers) for server in self.table.virtual_servers.values())


@dataclass
class Bare:
    """Watches of nothing but etcd: what arrives is decoded and its time is noted."""

    gateway: EtcdClient
    prefix: bytes
    arrived: dict[bytes, list[float]] = field(default_factory=dict)
    open: int = 0

    async def watch(self) -> None:
        """One of them, until cancelled."""
        asked: RequestBody = {"key": self.prefix, "range_end": prefix_end(self.prefix)}
        async with self.gateway.stream({"create_request": asked}) as stream:
            self.open += 1
            try:
                async for answers in stream:
                    now = time.monotonic()
                    for answer in answers:
                        for event in answer.events:
                            self.arrived.setdefault(event.kv.key, []).append(now)
            finally:
                self.open -= 1

    async def put(self, keys: Sequence[str], value: bytes) -> float:
        """Writes in one transaction, as a worker makes them; when it began."""
        began = time.monotonic()
        puts = [{"request_put": {"key": self.prefix + key.encode(), "value": value}} for key in keys]
        await self.gateway.call("kv/txn", {"success": puts}, TransactionResponse)
        return began


@dataclass
class Process:
    """The requests of the parent; each verb is a method."""

    workers: dict[str, FakeWorker]
    planes: dict[str, TimedPlane]
    bare: Bare
    tasks: asyncio.TaskGroup
    watches: list[asyncio.Task[None]] = field(default_factory=list)

    async def finds(self, worker: str, ids: Sequence[str], health: str) -> float:
        """A worker's probes have new verdicts; when that was."""
        began = time.monotonic()
        self.workers[worker].finds(dict.fromkeys(ids, Health(health)))
        return began

    async def runs(self, worker: str, instances: list[Instance]) -> float:
        """These run on a worker now, and no others; when that was."""
        began = time.monotonic()
        self.workers[worker].runs(instances)
        return began

    async def seen(self, address: str, up: bool, since: float) -> list[float]:
        """When each worker had taken an endpoint in or out, of those that have."""
        times = [plane.seen.get((address, up), 0.0) for plane in self.planes.values()]
        return [at for at in times if at >= since]

    async def carried(self) -> list[tuple[int, float, int]]:
        """For each worker: its real servers, since when, and the number of its passes."""
        planes = self.planes
        return [(planes[n].real_servers, planes[n].changed_at, w.loop.stats.passes) for n, w in self.workers.items()]

    async def digests(self) -> list[str | None]:
        """The table digest of each worker."""
        return [worker.loop.snapshots.digest() for worker in self.workers.values()]

    async def listen(self, count: int) -> None:
        """Have so many bare watches."""
        for watch in self.watches:
            watch.cancel()
        self.watches = [self.tasks.create_task(self.bare.watch()) for _ in range(count)]
        while self.bare.open != count:
            await asyncio.sleep(0.05)

    async def put(self, keys: Sequence[str], value: bytes) -> float:
        """See `Bare.put`."""
        return await self.bare.put(keys, value)

    async def arrived(self, key: str, since: float) -> list[float]:
        """When each bare watch had this one, as it was written then."""
        return [at for at in self.bare.arrived.get(self.bare.prefix + key.encode(), []) if at >= since]

    async def used(self) -> tuple[float, float]:
        """CPU seconds so far, and resident megabytes."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cpu_seconds(os.getpid()), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _serve(
    pipe: Connection, url: EtcdUrl, offered: dict[str, list[Instance]], bare_prefix: str, floor: int
) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        workers, planes = {}, {}
        for name, instances in offered.items():
            store = EtcdStore.at(url, EtcdClient(url.members), own_prefixes(name), LEASE, daemon_session)
            stack.push_async_callback(store.close)
            planes[name] = TimedPlane()
            site = replace(FIELD, probe_floor=floor)
            workers[name] = FakeWorker(name, store, site, plane=planes[name], publish=_names())
            workers[name].runs(instances)
        gateway = EtcdClient(url.members)
        stack.push_async_callback(gateway.close)
        async with asyncio.TaskGroup() as tasks:
            process = Process(workers, planes, Bare(gateway, bare_prefix.encode()), tasks)
            running = [tasks.create_task(worker.run()) for worker in workers.values()]
            while (asked := await loop.run_in_executor(None, pipe.recv)) is not None:
                verb, *arguments = asked
                pipe.send(await getattr(process, verb)(*arguments))
            for task in (*running, *process.watches):
                task.cancel()


def _names() -> Callable[[Any], None]:
    """The zone, made as the daemon makes it."""
    draft = ZoneBuilder(["test", "mesh.internal"])
    return ZonePublisher(lambda services: _discard(draft.update(services)))


def _discard(_: object) -> None:
    pass


def serve(pipe: Connection, url: EtcdUrl, offered: dict[str, list[Instance]], bare_prefix: str, floor: int) -> None:
    """The life of the process; ends when None comes through the pipe. `floor`: see `WorkerBed.probe_floor`."""
    shorten_thread_switches()
    uvloop.run(_serve(pipe, url, offered, bare_prefix, floor))
