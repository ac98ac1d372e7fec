"""A whole worker for the bench: PORT SERVICES CHANGES [loop | FILE], over a source, a store and a data plane in memory.

Every service has two endpoints with an HTTP probe each, against one server in a process of its own. From one SIGUSR1 to
the next, `CHANGES` endpoints per second are added or removed. The names are nNNN.bench.test. With `loop` the name
server runs in the event loop of the other parts. FILE gets the seconds of each pass of the control loop, one a line.
"""

import asyncio
import signal
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import cast

import uvloop
from typing_extensions import override

from mesh.control.assembly import LoopParts, control_loop
from mesh.control.context import ClusterState, LoopContext
from mesh.control.dns_zone import ZonePublisher
from mesh.control.ports import WorkerConfig
from mesh.control.snapshot import WorkerFacts
from mesh.health.prober import Prober
from mesh.model.service import Instance
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.host import FakeHost
from mesh.testing.source import FakeSource
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.util.histogram import Histogram
from mesh.util.offload import shorten_thread_switches
from meshdns.server import NameServer
from meshdns.thread import ThreadedServer
from meshdns.zone import ZoneBuilder

POOL = ip_network("10.112.0.0/12")
TICK = 0.05


def _instances(services: int, backend: int) -> list[list[Instance]]:
    """Three of each service; the third is the one that comes and goes."""
    found = []
    for number in range(services):
        labels = {
            "mesh.routing.port_80": f"n{number}.bench.test",
            "mesh.probe.url": "http://container:80/",
            "mesh.probe.interval_seconds": "5",
        }
        addresses = [str(ip_address("127.1.0.0") + number * 4 + last) for last in (1, 2, 3)]
        owner = f"s/n{number}"
        found.append([Instance(f"{owner}/{address}", owner, address, labels, backend) for address in addresses])
    return found


async def serve_probes() -> None:
    """The instances: one server for all of them; its port goes to standard output, and it ends with standard input."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    class Instances(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = cast(asyncio.Transport, transport)

        @override
        def data_received(self, data: bytes) -> None:
            self._transport.write(answer)

    server = await asyncio.get_running_loop().create_server(Instances, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the worker is gone


class PassTimes(Histogram):
    """Writes each duration to a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = Path(path).open("w", buffering=1)  # noqa: SIM115 -- until the process is ended

    @override
    def observe(self, seconds: float) -> None:
        super().observe(seconds)
        self._file.write(f"{seconds}\n")


async def serve(port: int, services: int, changes: int, *, threaded: bool, passes: str | None = None) -> None:
    """Until the process is ended."""
    draft = ZoneBuilder(["bench.test"])
    empty = draft.update({})[0]
    names: NameServer | ThreadedServer
    if threaded:
        names = ThreadedServer(lambda: NameServer([("127.0.0.1", port)], empty))
    else:
        names = NameServer([("127.0.0.1", port)], empty)
    await names.start()
    context = LoopContext(ClusterState(POOL))
    if passes is not None:
        context.stats.pass_seconds = PassTimes(passes)
    prober = Prober(context.events.wake.set)
    source = FakeSource()
    loop = control_loop(
        WorkerConfig("w1", "bench.test", POOL, range(30000, 30010), 0.0),
        WorkerFacts("0", "w1", "memory", "a bench"),
        LoopParts(
            host=FakeHost(),
            sources=[source],
            store=MemoryStore(MemoryCluster(), "w1"),
            plane=FakeDataPlane(),
            prober=prober,
            publish=ZonePublisher(lambda found: names.replace(*draft.update(found))),
        ),
        context,
    )
    command = (sys.executable, __file__, "probes")
    pipe = asyncio.subprocess.PIPE
    instances = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert instances.stdout is not None
    backend = int(await instances.stdout.readline())
    changing = asyncio.Event()
    toggle = lambda: changing.clear() if changing.is_set() else changing.set()  # noqa: E731
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, toggle)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(prober.run())
        tasks.create_task(loop.reconciler.run())
        all_of_them = _instances(services, backend)
        first, step = 0, int(changes * TICK / 2)
        while True:
            there = range(first, first + step)
            source.say([i for n, group in enumerate(all_of_them) for i in (group if n in there else group[:2])])
            first = (first + step) % max(1, services - step)
            await asyncio.sleep(TICK)
            await changing.wait()


if __name__ == "__main__":
    if sys.argv[1] == "probes":
        uvloop.run(serve_probes())
    else:
        shorten_thread_switches()
        how = "".join(sys.argv[4:])
        passes = how if how not in ("", "loop") else None
        uvloop.run(serve(*map(int, sys.argv[1:4]), threaded=how != "loop", passes=passes))
