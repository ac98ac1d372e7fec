"""A cluster on etcd: from a verdict on one worker to the data planes of all the others, and what a worker costs.

The peer is etcd itself: as many bare watches in the same processes, at the same pace, from the start of a put until the
last of them has decoded it. Both take turns in one run. All workers share this machine's cores with etcd: what twenty
workers compute at the same instant on two cores would be done at once on twenty hosts.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster_parent import Child, churn, etcd, last, offer, settle, workers

from harness import Row, cpu_seconds, main, ratio, scratch
from mesh.etcd_url import EtcdUrl
from mesh.testing.worker import spread

WORKERS, SERVICES, COPIES, PROCESSES = 20, 1000, 5, 4
PACE = 0.1
"""Seconds between two changes, on average."""
BURST = 1000
RATE, CROWD = 50.0, 10
"""Of the worker that is weighed: changes in a second, and endpoints of each service."""


@dataclass
class Round:
    """Seconds, ours and etcd's own."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    burst: tuple[float, float] = (0.0, 0.0)


def one_by_one(children: list[Child], turns: int) -> list[float]:
    """Each of so many verdicts until the last worker has programmed it."""
    took = []
    for turn in range(turns):
        up = turn % 2 == 1
        if not up:
            child = random.choice(children)
            name = random.choice(list(child.offered))
            instance = random.choice(child.offered[name])
        began = child.ask("finds", name, [instance.id], "healthy" if up else "unhealthy")
        counts = [len(each.offered) for each in children]
        took.append(last(children, began, counts, "seen", instance.address, up, began))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    return took


def bare_ones(children: list[Child], turns: int) -> list[float]:
    """The same from a put until the last bare watch has it."""
    took = []
    counts = [len(child.offered) for child in children]
    for _ in range(turns):
        key = f"{random.random()}"
        began = random.choice(children).ask("put", [key], b'{"v":1,"health":"unhealthy"}')
        took.append(last(children, began, counts, "arrived", key))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    return took


def burst(children: list[Child], carried: int) -> float:
    """A thousand verdicts at once, all over the cluster, until all tables are the same again; and back."""
    chosen = [(child, name, e) for child in children for name, all_ in child.offered.items() for e in all_]
    chosen = random.sample(chosen, BURST)
    for health, left in (("unhealthy", carried - BURST), ("healthy", carried)):
        began = time.monotonic()
        for child in children:
            for name in child.offered:
                ids = [instance.id for each, owner, instance in chosen if (each, owner) == (child, name)]
                child.ask("finds", name, ids, health)
        settle(children, left)
        took = time.monotonic() - began
        time.sleep(1)
    return took


def bare_burst(children: list[Child]) -> float:
    """As many puts, in a transaction for each worker."""
    began = time.monotonic()
    names = [(child, name) for child in children for name in child.offered]
    for child, name in names:
        keys = [f"{name}-{began}-{number}" for number in range(BURST // len(names))]
        child.ask("put", keys, b'{"v":1,"health":"unhealthy"}')
    return last(children, began, [len(child.offered) for child in children], "arrived", keys[-1])


def rounds(url: EtcdUrl, etcd_pid: int, count: int, turns: int) -> tuple[list[Round], float]:
    """The rounds, and the CPU seconds that etcd takes to tell one watch of one change."""
    placed = spread(SERVICES, COPIES, WORKERS)
    parts = [{f"w{n}": placed[n] for n in range(part, WORKERS, PROCESSES)} for part in range(PROCESSES)]
    asyncio.run(offer(url, {f"w{n}": instances for n, instances in enumerate(placed)}))
    found, costs = [], []
    with workers(url, parts, "/bare/") as children:
        took, passes = settle(children, SERVICES * COPIES)
        print(f"all workers have taken over what is there after {took:.1f} s and {passes} passes", file=sys.stderr)
        for _ in range(count):
            one = Round(ours=one_by_one(children, turns))
            for child in children:
                child.ask("listen", len(child.offered))
            one.bare = bare_ones(children, turns)
            before = cpu_seconds(etcd_pid)
            one.burst = (0.0, bare_burst(children))
            costs.append((cpu_seconds(etcd_pid) - before) / BURST / WORKERS)
            for child in children:
                child.ask("listen", 0)
            one.burst = (burst(children, SERVICES * COPIES), one.burst[1])
            found.append(one)
            _tell(one)
    return found, statistics.median(costs)


def _tell(one: Round) -> None:
    times = [
        f"{name} {_ms(quantile(t, 0.5))} / {_ms(quantile(t, 0.99))}"
        for name, t in (("ours", one.ours), ("etcd", one.bare))
    ]
    load = os.getloadavg()[0]
    print(
        f"p50 / p99: {', '.join(times)}; burst {_ms(one.burst[0])}, {_ms(one.burst[1])}; load {load:.1f}",
        file=sys.stderr,
    )


def weigh(url: EtcdUrl, seconds: float) -> tuple[float, float, float, float]:
    """Of one worker while others' endpoints change: share of a core, MB; and the same of a bare watch."""
    placed = spread(SERVICES, CROWD, WORKERS)
    keys = asyncio.run(offer(url, {f"w{n}": placed[n] for n in range(1, WORKERS)}))
    with workers(url, [{"w0": placed[0]}, {}], url.prefix) as children:
        worker, watch = children
        settle([worker], SERVICES * CROWD)
        watch.ask("listen", 1)
        before = [child.ask("used") for child in children]
        began = time.monotonic()
        done = asyncio.run(churn(url, keys, RATE, seconds))
        took = time.monotonic() - began
        after = [child.ask("used") for child in children]
        print(f"{done / took:.1f} changes/s for {took:.0f} s", file=sys.stderr)
        ours, bare = ((now[0] - then[0]) / took for now, then in zip(after, before, strict=True))
        return ours, after[0][1], bare, after[1][1]


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds > 0.02 else f"{seconds * 1000:.1f} ms"


def run(quick: bool) -> list[Row]:
    """Rows of the table: times, so that a ratio below 1 is better for us."""
    with scratch() as directory, etcd(Path(directory)) as (url, pid):
        found, told = rounds(url, pid, 1 if quick else 5, 50 if quick else 200)
    with scratch() as directory, etcd(Path(directory)) as (url, _):
        cpu, megabytes, bare_cpu, bare_megabytes = weigh(url, 10 if quick else 60)
    print(f"etcd: {told * 1e6:.0f} us of CPU to tell one watch of one change", file=sys.stderr)
    size = f"{WORKERS} workers, {SERVICES} services x {COPIES}"
    rows = []
    for share in (0.5, 0.99):
        ours, bare = (
            [quantile(t, share) for t in each] for each in zip(*((r.ours, r.bare) for r in found), strict=True)
        )
        beside, spread_ = ratio(ours, bare)
        met, goal = (beside <= 3, "<= 3.00") if share == 0.99 else (True, "")
        name = f"convergence p{share * 100:.0f}: {size}, beside etcd's own watch"
        rows.append(Row(name, _ms(statistics.median(ours)), _ms(statistics.median(bare)), beside, spread_, goal, met))
    slowest = [quantile(r.ours, 0.99) for r in found]
    share, spread_ = ratio(slowest, [0.25] * len(slowest))
    name = f"convergence p99: {size}, beside 250 ms"
    rows.append(Row(name, _ms(statistics.median(slowest)), "250 ms", share, spread_, "<= 1.00", share <= 1))
    ours, bare = [r.burst[0] for r in found], [r.burst[1] for r in found]
    beside, spread_ = ratio(ours, bare)
    name = f"burst of {BURST} changes until all tables are the same: {size}, beside etcd's own watch"
    rows.append(Row(name, _ms(statistics.median(ours)), _ms(statistics.median(bare)), beside, spread_, "", True))
    name = f"one worker, {SERVICES} services x {CROWD}, {RATE:.0f} changes/s, beside a bare watch: share of a core"
    ours_, bare_ = f"{cpu:.1%}, {megabytes:.0f} MB", f"{bare_cpu:.1%}, {bare_megabytes:.0f} MB"
    rows.append(Row(name, ours_, bare_, cpu / bare_cpu, "", "", True))
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
