"""The nftables data plane: loading, reading back, one change, and connections through a VIP.

Needs root and nft; it runs in network namespaces of its own. The peer is nft itself with the same ruleset, without the
cost of computing it; for connections, the same client connecting to the backend directly.
"""

import asyncio
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import uvloop
from ipvs import POOL, NoVips, table
from ipvs_traffic import BACKEND, CONNECTIONS, PORT, connections, network, with_backend

from harness import MissingError, Row, main, need, ratio
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import NftablesDataPlane, unavailable_reason
from mesh.dataplane.nftables.traffic_counters import COUNTER_TABLE
from mesh.dataplane.operations import EditRealServer
from mesh.host.vip_interface import MeshInterface
from mesh.model.table import RealKey, RealServer, Table, VirtualKey
from mesh.testing.netns import Namespace

TURNS = 10
"""Changes of one endpoint in a round."""
FEW_CONNECTIONS = 50
"""Connections in one measurement of CPU."""
OURS = ["table", "ip", "vipmesh_lb"]


def in_loop(work: Callable[[NftablesDataPlane], Awaitable[float]]) -> float:
    """The figure that the work returns, on the daemon's kind of event loop."""

    async def run() -> float:
        plane = NftablesDataPlane(POOL, NoVips())
        await plane.read()
        try:
            return await work(plane)
        finally:
            await plane.close()

    return uvloop.run(run())


async def program(plane: NftablesDataPlane, wanted: Table) -> float:
    """Seconds from nothing to the table."""
    operations = diff_tables(await plane.read(), wanted)
    start = time.perf_counter()
    failures = await plane.apply(operations)
    assert not failures, failures[0]
    return time.perf_counter() - start


async def read(_: NftablesDataPlane) -> float:
    """Seconds to read all of it, by one that has not read it before."""
    fresh = NftablesDataPlane(POOL, NoVips())
    start = time.perf_counter()
    await fresh.read()
    took = time.perf_counter() - start
    await fresh.close()
    return took


async def audit(plane: NftablesDataPlane) -> float:
    """Seconds to find that nothing has changed."""
    start = time.perf_counter()
    await plane.read()
    return time.perf_counter() - start


async def change(plane: NftablesDataPlane, key: VirtualKey, real: RealKey) -> float:
    """Seconds for one weight, read before and written, as a pass of the daemon does it."""
    times = []
    for turn in range(TURNS):
        start = time.perf_counter()
        await plane.read([key])
        assert not await plane.apply([EditRealServer(key, real, RealServer(2 + turn % 2))])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def nft(*arguments: str, given: str = "") -> tuple[float, str]:
    """Seconds of nft, and what it prints."""
    start = time.perf_counter()
    done = subprocess.run(
        [need("nft", "nftables"), *arguments], input=given, text=True, check=True, stdout=subprocess.PIPE
    )
    return time.perf_counter() - start, done.stdout


def programming(rounds: int, services: int) -> list[Row]:
    """The whole table: loading and reading it, beside nft."""
    wanted = table(services, 10)
    figures: dict[str, list[float]] = {name: [] for name in ("load", "nft -f", "read", "nft -j", "audit")}
    for _ in range(rounds):
        figures["load"].append(in_loop(partial(program, wanted=wanted)))
        script = nft("list", *OURS)[1]
        figures["read"].append(in_loop(read))
        figures["audit"].append(in_loop(audit))
        figures["nft -j"].append(nft("-j", "list", *OURS)[0])
        nft("delete", *OURS)
        figures["nft -f"].append(nft("-f", "-", given=script)[0])
        nft("delete", *OURS)
    size = f"{services} services x 10"
    return [
        _row(f"nftables: load {size}, beside nft -f", figures["load"], figures["nft -f"], 3.0),
        _row(f"nftables: read {size} back, beside nft -j list", figures["read"], figures["nft -j"], 3.0),
        _row(f"nftables: audit of {size} unchanged, beside nft -j list", figures["audit"], figures["nft -j"], 0.1),
    ]


def one_change(rounds: int, sizes: Sequence[int]) -> list[Row]:
    """One endpoint among more and more services."""
    figures: dict[int, list[float]] = {}
    for size in sizes:
        wanted = table(size, 10)
        in_loop(partial(program, wanted=wanted))
        key = max(wanted.virtual_servers)
        (real, *_) = wanted.virtual_servers[key].real_servers
        figures[size] = [in_loop(partial(change, key=key, real=real)) for _ in range(rounds)]
        nft("delete", *OURS)
    small, *others = sizes
    name = "nftables: one endpoint changes: {} services x 10 beside {}"
    return [_row(name.format(size, small), figures[size], figures[small], 1.2) for size in others]


def traffic(rounds: int, sizes: Sequence[int]) -> list[Row]:
    """Connections through a VIP, beside direct ones, in turn and in random order."""
    rows = []
    with network() as (client, _server):
        for size in sizes:
            wanted = with_backend(table(size, 10))
            asyncio.run(_with_vip(wanted))
            (vip,) = wanted.vips
            rates: dict[tuple[str, int], list[float]] = {(vip, 80): [], (BACKEND.address, PORT): []}
            for _ in range(rounds * 3):
                for target in random.sample(list(rates), 2):
                    with client.entered():
                        connections(target, 20)  # the first ones fill caches
                        rates[target].append(CONNECTIONS / connections(target, CONNECTIONS))
            ours, direct = rates.values()
            middle, spread = ratio(ours, direct)
            texts = [f"{statistics.median(rate):.0f}/s" for rate in (ours, direct)]
            name = f"nftables: connections through a VIP among {size}, beside direct"
            rows.append(Row(name, texts[0], texts[1], middle, spread, ">= 0.9", middle >= 0.9))
    return rows


def counting(rounds: int, size: int) -> list[Row]:
    """CPU of a connection through a VIP, client and backend together: with counters beside without, in random order."""
    with network() as (client, server):
        wanted = with_backend(table(size, 10))
        (vip,) = wanted.vips
        spent: dict[bool, list[float]] = {True: [], False: []}
        asyncio.run(_with_vip(wanted))
        for _ in range(rounds * 5):
            for counted in random.sample([True, False], 2):
                if counted:
                    asyncio.run(_count())
                else:
                    nft("delete", "table", "ip", COUNTER_TABLE)
                with client.entered():
                    connections((vip, 80), 20)  # the first ones fill caches
                    # The quickest of many short runs: whatever else the machine does only adds to them.
                    spent[counted].append(min(_cpu_of_connection((vip, 80), server) for _ in range(8)))
                asyncio.run(_count())
    middle, spread = ratio(spent[True], spent[False])
    ours, peer = (f"{statistics.median(spent[counted]) * 1e6:.0f} us" for counted in (True, False))
    name = f"nftables: CPU of a connection among {size}, counted beside uncounted"
    return [Row(name, ours, peer, middle, spread, "<= 1.05", middle <= 1.05)]


def _cpu_of_connection(target: tuple[str, int], server: BaseProcess) -> float:
    """Seconds of CPU for one connection, from several."""
    start = _run_time(os.getpid(), server.pid)
    connections(target, FEW_CONNECTIONS)
    return (_run_time(os.getpid(), server.pid) - start) / FEW_CONNECTIONS


def _run_time(*processes: int | None) -> float:
    """Seconds that these processes ran, with the packets that the kernel forwards meanwhile (proc_pid_schedstat(5))."""
    return sum(int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) for process in processes) / 1e9


async def _count() -> None:
    plane = NftablesDataPlane(POOL, NoVips())
    assert await plane.traffic()
    await plane.close()


async def _with_vip(wanted: Table) -> None:
    interface = MeshInterface()
    plane = NftablesDataPlane(POOL, interface)
    failures = await plane.apply(diff_tables(await plane.read(), wanted))
    assert not failures, failures[0]
    await plane.close()
    await interface.close()


def _row(name: str, ours: list[float], peer: list[float], goal: float) -> Row:
    middle, spread = ratio(ours, peer)
    text, other = (f"{statistics.median(times) * 1e3:.4g} ms" for times in (ours, peer))
    return Row(name, text, other, middle, spread, f"<= {goal:.2f}", middle <= goal)


def run(quick: bool) -> Sequence[Row]:
    """All rows."""
    if os.geteuid():
        raise MissingError("this bench makes network namespaces: run it as root")
    rounds, services = (2, 200) if quick else (5, 1000)
    with closing(Namespace()) as there, there.entered():
        if missing := uvloop.run(unavailable_reason()):
            raise MissingError(f"this bench needs nftables: {missing}")
        rows = programming(rounds, services)
        rows += one_change(rounds, (10, services))
    with closing(Namespace()) as there, there.entered():
        rows += traffic(rounds, (1, services))
    with closing(Namespace()) as there, there.entered():
        rows += counting(rounds, services)
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
