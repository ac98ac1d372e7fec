"""The cost of 10,000 probed endpoints for the name server in the same process: p99 of paced queries, with and without.

Run as a program it is the worker: PORT PROBED(0 or 1) BACKEND_PORT, over a source, a store and a data plane in memory.
"""

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from subprocess import Popen

import uvloop
from dns_load import pace
from dnslib import DNSRecord
from probes_peers import PORT

from harness import Row, ratio, running
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
from mesh.util.offload import shorten_thread_switches
from meshdns.server import NameServer
from meshdns.thread import ThreadedServer
from meshdns.zone import ZoneBuilder

SERVICES, EACH = 1000, 10
RATE = 1000.0
DNS_PORTS = {"idle": 18153, "probing": 18154}


def dns_row(cpu: int, rounds: int, seconds: float) -> Row:
    """One worker that asks nothing, and one that asks ten thousand endpoints every ten seconds."""
    pick = random.Random(1)
    names = [f"n{pick.randrange(SERVICES)}.bench.test" for _ in range(5000)]
    packets = [bytes(DNSRecord.question(name, "A").pack()) for name in names]
    found: dict[str, list[float]] = {kind: [] for kind in DNS_PORTS}
    with _worker("idle", cpu) as idle, _worker("probing", cpu) as probing:
        workers = {"idle": idle, "probing": probing}
        for port in DNS_PORTS.values():
            _settle(port, packets)
        time.sleep(15)  # until every endpoint has been asked
        for _ in range(rounds):
            for kind in random.sample(sorted(workers), 2):
                found[kind].append(pace(DNS_PORTS[kind], packets, seconds, RATE).quantile(0.99))
    middle, spread = ratio(found["probing"], found["idle"])
    ours, peer = (f"{statistics.median(found[kind]):.0f} us" for kind in ("probing", "idle"))
    bench = "probes: DNS p99 while 10,000 endpoints are asked every 10 s, beside itself idle"
    return Row(bench, ours, peer, middle, spread, "<= 1.5", middle <= 1.5)


@contextmanager
def _worker(kind: str, cpu: int) -> Iterator[Popen[bytes]]:
    probed = "1" if kind == "probing" else "0"
    with running(sys.executable, __file__, str(DNS_PORTS[kind]), probed, str(PORT), cpu=cpu) as process:
        yield process


def _settle(port: int, packets: list[bytes]) -> None:
    """Until it answers."""
    for _ in range(60):
        if pace(port, packets, 1.0, RATE).lost == 0:
            return
    raise RuntimeError(f"no name server answers on {port}")


def _instances(backend: int, probed: bool) -> list[Instance]:
    found = []
    for number in range(SERVICES):
        labels = {"mesh.routing.port_80": f"n{number}.bench.test"}
        if probed:
            labels |= {"mesh.probe.url": "http://container:80/", "mesh.probe.interval_seconds": "10"}
        for last in range(EACH):
            address = str(ip_address("127.1.0.1") + number * EACH + last)
            found.append(Instance(f"s/n{number}/{address}", f"s/n{number}", address, labels, backend))
    return found


async def serve(port: int, probed: bool, backend: int) -> None:
    """Until the process is ended."""
    draft = ZoneBuilder(["bench.test"])
    empty = draft.update({})[0]
    names = ThreadedServer(lambda: NameServer([("127.0.0.1", port)], empty))
    await names.start()
    context = LoopContext(ClusterState(ip_network("10.112.0.0/12")))
    prober, source = Prober(context.events.wake.set), FakeSource()
    loop = control_loop(
        WorkerConfig("w1", "bench.test", ip_network("10.112.0.0/12"), range(30000, 30010), 0.0),
        WorkerFacts("0", "w1", "memory", "a bench"),
        LoopParts(
            host=FakeHost(),
            sources=[source],
            store=MemoryStore(MemoryCluster(), "w1"),
            plane=FakeDataPlane(),
            prober=prober,
            publish=ZonePublisher(lambda services: names.replace(*draft.update(services))),
        ),
        context,
    )
    source.say(_instances(backend, probed))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(prober.run(), name="prober")
        tasks.create_task(loop.reconciler.run(), name="loop")


if __name__ == "__main__":
    shorten_thread_switches()
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2] == "1", int(sys.argv[3])))
