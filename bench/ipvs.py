"""The IPVS data plane: programming, reading back, one change, the event loop meanwhile, and traffic through a VIP.

Needs root and a kernel with IPVS: `tests/on-ipvs-kernel .venv/bin/python bench/ipvs.py`. It runs in network namespaces
of its own. An emulating virtual machine slows user space down more than the kernel, to the disadvantage of programs
that compute in Python.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from ipaddress import ip_address, ip_network

import ipvs_peers as peers
import uvloop
from ipvs_daemon import resident
from ipvs_traffic import traffic

from harness import MissingError, Row, main, ratio
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.plane import IpvsDataPlane, unavailable_reason
from mesh.dataplane.operations import EditRealServer
from mesh.model.service import Address, Scheduler, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from mesh.testing.netns import Namespace, run_ip

POOL = ip_network("10.112.0.0/12")
TURNS = 20
"""Changes of one endpoint in a round."""


class NoVips:
    """The interface that holds the VIPs, as far as this bench needs one."""

    async def addresses(self) -> frozenset[Address]:
        """None."""
        return frozenset()

    async def bind(self, address: Address) -> None:
        """Not asked for."""
        raise NotImplementedError

    async def unbind(self, address: Address) -> None:
        """Not asked for."""
        raise NotImplementedError


def table(services: int, endpoints: int) -> Table:
    """So many virtual servers with so many real servers each."""
    first = int(ip_address("10.112.0.1"))
    reals = [[f"10.{64 + endpoint}.{n >> 8}.{n & 255}" for endpoint in range(endpoints)] for n in range(services)]
    return Table(
        {
            VirtualKey(str(ip_address(first + n)), 80, Transport.TCP): VirtualServer(
                Scheduler.WRR, 0, {RealKey(address, 8080): RealServer() for address in reals[n]}
            )
            for n in range(services)
        }
    )


def in_loop(work: Callable[[IpvsDataPlane], Awaitable[float]]) -> float:
    """The figure that the work returns, on the daemon's kind of event loop."""

    async def run() -> float:
        plane = IpvsDataPlane(POOL, NoVips())
        await plane.read()  # opens the socket, as the daemon has before it programs
        try:
            return await work(plane)
        finally:
            await plane.close()

    return float(uvloop.run(run()))


async def program(plane: IpvsDataPlane, wanted: Table) -> float:
    """Seconds from nothing to all of it."""
    start = time.perf_counter()
    failures = await plane.apply(diff_tables(Table(), wanted))
    assert not failures, failures[0]
    return time.perf_counter() - start


async def read_back(plane: IpvsDataPlane) -> float:
    """Seconds of reading all of it."""
    start = time.perf_counter()
    assert (await plane.read()).virtual_servers
    return time.perf_counter() - start


async def stall(plane: IpvsDataPlane, wanted: Table) -> float:
    """The longest time for which the loop did nothing else while it was programming."""
    longest, last, over = 0.0, time.perf_counter(), False

    async def tick() -> None:
        nonlocal longest, last
        while not over:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    operations = diff_tables(Table(), wanted)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tick(), name="tick")
        await asyncio.sleep(0)
        longest, last = 0.0, time.perf_counter()
        await plane.apply(operations)
        over = True
    return longest


async def change(plane: IpvsDataPlane, key: VirtualKey, real: RealKey) -> float:
    """Seconds of one change: what is there is read, the difference is written."""
    times = []
    for weight in range(2, TURNS + 2):
        start = time.perf_counter()
        observed = await plane.read([key])
        assert real in observed.virtual_servers[key].real_servers
        assert not await plane.apply([EditRealServer(key, real, RealServer(weight))])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def programming(rounds: int, services: int) -> list[Row]:
    """All of a table from nothing, and all of it back."""
    wanted, few = table(services, 10), table(services // 10, 10)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"ipvsadm -R": [], "keepalived's start": []}
    ours_few, pyroute2, reads, lists = [], [], [], []
    for _ in range(rounds):
        theirs["keepalived's start"].append(peers.keepalived(wanted))
        peers.flush()
        theirs["ipvsadm -R"].append(peers.ipvsadm(wanted))
        lists.append(peers.ipvsadm_list())
        peers.flush()
        ours.append(in_loop(partial(program, wanted=wanted)))
        assert peers.real_servers() == services * 10
        reads.append(in_loop(read_back))
        lists.append(peers.ipvsadm_list())
        peers.flush()
        ours_few.append(in_loop(partial(program, wanted=few)))
        peers.flush()
        pyroute2.append(peers.pyroute2(few))
        peers.flush()
    lists = [min(pair) for pair in zip(lists[::2], lists[1::2], strict=True)]
    size = f"{services} services x 10"
    rows = [
        _row(f"program {size} from empty, beside {name}", ours, times, goal)
        for (name, times), goal in zip(theirs.items(), (1.0, 1.0), strict=True)
    ]
    rows.append(_row(f"program {services // 10} services x 10, beside pyroute2's IPVS", ours_few, pyroute2, 1 / 15))
    rows.append(_row(f"read {size} back, beside ipvsadm -Ln", reads, lists, 0.5))
    return rows


def one_change(rounds: int, sizes: Sequence[int]) -> list[Row]:
    """One endpoint among more and more services."""
    figures: dict[int, list[float]] = {}
    for size in sizes:
        wanted = table(size, 1)
        in_loop(partial(program, wanted=wanted))
        key = max(wanted.virtual_servers)
        (real,) = wanted.virtual_servers[key].real_servers
        figures[size] = [in_loop(partial(change, key=key, real=real)) for _ in range(rounds)]
        peers.flush()
    small, *others = sizes
    return [
        _row(f"one endpoint changes: {size} services beside {small}", figures[size], figures[small], 1.2)
        for size in others
    ]


def stalls(rounds: int, services: int) -> Row:
    """The stall of the event loop during programming."""
    wanted = table(services, 10)
    longest = []
    for _ in range(rounds):
        longest.append(in_loop(partial(stall, wanted=wanted)) * 1e3)
        peers.flush()
    median = statistics.median(longest)
    name = f"longest stall of the loop while {services * 10} endpoints are programmed"
    spread = f"{min(longest):.1f}..{max(longest):.1f}"
    return Row(name, f"{median:.1f} ms", "-", median / 10, spread, "< 10 ms", median < 10)


def _row(name: str, ours: list[float], peer: list[float], goal: float) -> Row:
    middle, spread = ratio(ours, peer)
    text, other = (f"{statistics.median(times) * 1e3:.4g} ms" for times in (ours, peer))
    return Row(name, text, other, middle, spread, f"<= {goal:.2f}", middle <= goal)


def run(quick: bool) -> Sequence[Row]:
    """All rows."""
    if os.geteuid() or uvloop.run(unavailable_reason()):
        raise MissingError(f"this bench needs root and IPVS: tests/on-ipvs-kernel {sys.executable} bench/ipvs.py")
    rounds, services = (1, 200) if quick else (3, 1000)
    with closing(Namespace()) as network, network.entered():
        run_ip("link set lo up")
        rows = programming(rounds, services)
        rows.append(stalls(rounds, services))
        rows += one_change(rounds, (10, 1000) if quick else (10, 1000, 10000))
    with closing(Namespace()) as network, network.entered():
        rows += traffic(rounds, (1, 500) if quick else (1, 5000), table)
    with closing(Namespace()) as network, network.entered():
        run_ip("link set lo up")
        rows.append(resident(services))
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
