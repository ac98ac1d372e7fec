"""A worker loses its power: how long its clients notice it, beside a virtual address that keepalived moves.

    PYTHONPATH=. python bench/failover.py

Three workers, etcd and a client in network namespaces. Ours: the client opens connections to a published port of the
first worker without a pause, and the third worker fails; a third of the connections would go there. keepalived with
VRRP version 3: the third worker holds an address, the first is ready to take it, and an advertisement is sent each 0.3
s (below that a busy master loses its address); the client connects to that address. The result is the time from the
failure to the moment after which no connection fails. The loss is total there and partial here, so the share of failed
connections is printed too. Needs root.
"""

import asyncio
import socket
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import Row, main, need, ratio, running, scratch
from tests.netns import private_network
from tests.store.etcd.server import etcd
from tests.system.cluster.lab import ETCD, WORKERS, Lab
from tests.system.cluster.load import Way, load
from tests.system.cluster.workers import PUBLISHED, Worker, agree, all_running, met
from tests.system.e2e.programs import eventually
from tests.system.ipvs.lab import PORT, Echo

SHARED = "10.1.0.100"
ADVERTISED = 0.3
CALM = 3.0
"""Seconds without a failure after which it is over."""
LIMIT = 30.0

KEEPALIVED = """
global_defs {{
    vrrp_version 3
}}
vrrp_instance shared {{
    state BACKUP
    interface u0
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {address}/24
    }}
}}
"""


@dataclass(frozen=True)
class Loss:
    """The loss that the client noticed."""

    seconds: float
    failed: int
    asked: int


async def felt(lab: Lab, way: Way, dark: str) -> Loss:
    """Ask without a pause while a worker goes dark, until nothing has failed for a while."""
    loop = asyncio.get_running_loop()
    async with load(lab, [way] * 4, patience=0.5) as counted:
        await asyncio.sleep(1)
        if counted.failures:
            raise AssertionError(f"it fails before anything has happened: {counted.failures[0]}")
        cut = loop.time()
        lab.power_off(dark)
        while True:
            await asyncio.sleep(0.1)
            last = max((asked for asked, _, _ in counted.failures), default=cut)
            if loop.time() - last > CALM or loop.time() > cut + LIMIT:
                break
    return Loss(last - cut, len(counted.failures), counted.answers.total() + len(counted.failures))


async def ours(directory: Path) -> Loss:
    """One time, with the settings that everybody has."""
    with private_network():
        lab = Lab()
        with etcd(directory / "etcd", host=ETCD, inside=lab.inside("etcd")) as server:
            store = "etcd://" + ",".join(url.removeprefix("http://") for url in server.urls) + "/vipmesh"
            workers = [Worker(lab, directory, number) for number in WORKERS]
            for worker in workers:
                worker.configure(driver="nftables", store=store)
            async with lab.answering(), all_running(workers):
                await agree(workers)
                await met(workers)
                loss = await felt(lab, Way("client", workers[0].address, PUBLISHED), "w3")
        lab.close()
    return loss


@asynccontextmanager
async def echoing(lab: Lab, place: str) -> AsyncIterator[None]:
    """A worker answers by itself."""
    sock = lab.socket(place)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", PORT))
    server = await asyncio.start_server(Echo(place), sock=sock)
    try:
        yield
    finally:
        server.close()


async def keepalived(directory: Path) -> Loss:
    """One time."""
    program = need("keepalived", "keepalived")
    with private_network():
        lab = Lab()
        commands = {}
        for place, priority in (("w3", 150), ("w1", 100)):
            configuration = directory / f"{place}.conf"
            configuration.write_text(KEEPALIVED.format(priority=priority, interval=ADVERTISED, address=SHARED))
            files = [f"--{kind}={directory}/{place}-{kind}" for kind in ("pid", "vrrp_pid", "checkers_pid")]
            commands[place] = [*lab.inside(place), program, "-n", "-l", "-P", "-f", str(configuration), *files]

        async def holder() -> list[bool]:
            return [
                SHARED in await lab.run(place, "ip", "-o", "address", "show", "dev", "u0") for place in ("w3", "w1")
            ]

        with running(*commands["w3"], quiet=True), running(*commands["w1"], quiet=True):
            async with echoing(lab, "w3"), echoing(lab, "w1"):
                await eventually(holder, lambda holds: holds == [True, False])
                loss = await felt(lab, Way("client", SHARED, PORT), "w3")
        lab.close()
    return loss


def run(quick: bool) -> Sequence[Row]:
    """`quick`: three times each, else nine."""
    mine, theirs = [], []
    for _ in range(3 if quick else 9):
        with scratch() as directory:
            mine.append(asyncio.run(ours(directory)))
        with scratch() as directory:
            theirs.append(asyncio.run(keepalived(directory)))
    middle, spread = ratio([loss.seconds for loss in mine], [loss.seconds for loss in theirs])
    bench = f"a worker without power, until clients of another feel nothing, beside VRRP each {ADVERTISED:g} s"
    return [Row(bench, _text(mine), _text(theirs), middle, spread, "", True)]


def _text(losses: Sequence[Loss]) -> str:
    seconds = statistics.median(loss.seconds for loss in losses)
    return f"{seconds:.1f} s, {sum(loss.failed for loss in losses)} of {sum(loss.asked for loss in losses)} failed"


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
