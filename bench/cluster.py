"""A cluster on etcd: the time from a change on one worker to the data planes of all others, and the cost of a worker.

A change is each of these in turn: a verdict that an endpoint is unhealthy, a verdict that it is healthy again, an
endpoint that is removed, one that is added. The peer is etcd itself: as many bare watches in the same processes, at the
same pace, from the start of a put until the last of them has decoded it. Both take turns in one run.

All workers share this machine's cores with etcd: twenty workers compute at the same instant on two cores, which twenty
hosts would do in parallel. So there is a second measure: one worker, and nineteen bare watches that give etcd the same
work; its excess over the watch of the same change is what a worker on a host of its own adds.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster_parent import Child, churn, etcd, last, offer, settle, workers

from harness import Row, cpu_seconds, main, ratio, scratch
from mesh.cluster.records.encode import encode_verdict
from mesh.config.etcd_url import EtcdUrl
from mesh.health.panic import DEFAULT_FLOOR_PERCENT
from mesh.model.service import Health, Instance
from mesh.testing.worker import spread_instances

WORKERS, SERVICES, COPIES = 20, 1000, 5
PACE = 0.1
"""Seconds between two changes, on average."""
BURST = 1000
RATE, CROWD = 50.0, 10
"""The load of the measured worker: changes per second, and endpoints of each service."""


@dataclass
class Round:
    """Seconds, ours and etcd's own."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    burst: tuple[float, float] = (0.0, 0.0)


def one_by_one(children: list[Child], turns: int) -> list[float]:
    """Each of so many changes until the last worker has programmed it."""
    took = []
    child, name, instance = children[0], "", next(iter(children[0].offered.values()))[0]
    for turn in range(turns):
        kind = turn % 4
        if kind in (0, 2):
            child = random.choice(children)
            (name,) = child.offered
            instance = random.choice(child.offered[name])
        left = [each for each in child.offered[name] if each is not instance]
        if kind < 2:
            began = child.ask("finds", name, [instance.id], "unhealthy" if kind == 0 else "healthy")
        else:
            began = child.ask("runs", name, left if kind == 2 else child.offered[name])
        took.append(last(children, began, [1] * len(children), "seen", instance.address, kind in (1, 3), began))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    return took


def alone(children: list[Child], placed: Sequence[Sequence[Instance]], turns: int) -> tuple[list[float], list[float]]:
    """Verdicts of the others until the one worker has programmed them, and until the last bare watch has them."""
    worker, watch, writer = children
    watches = len(placed) - 1
    watch.ask("listen", watches)
    ours, bare = [], []
    number, instance = 1, placed[1][0]
    for turn in range(turns):
        up = turn % 2 == 1
        if not up:
            number = random.randrange(1, len(placed))
            instance = random.choice(placed[number])
        said = Health.HEALTHY if up else Health.UNHEALTHY
        key, value = encode_verdict(f"w{number}", (f"w{number}", instance.id), said)
        began = writer.ask("put", [key], value)
        bare.append(last([watch], began, [watches], "arrived", key, began))
        ours.append(last([worker], began, [1], "seen", instance.address, up, began))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    watch.ask("listen", 0)
    return ours, bare


def bare_ones(children: list[Child], turns: int) -> list[float]:
    """Each of so many puts until the last bare watch has it."""
    took = []
    counts = [len(child.offered) for child in children]
    for _ in range(turns):
        key = f"{random.random()}"
        began = random.choice(children).ask("put", [key], b'{"v":1,"health":"unhealthy"}')
        took.append(last(children, began, counts, "arrived", key, began))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    return took


def burst(children: list[Child], carried: int) -> float:
    """A thousand verdicts at once, all over the cluster, until all tables are the same again; and back."""
    chosen = [(child, name, e) for child in children for name, all_ in child.offered.items() for e in all_]
    chosen = random.sample(chosen, BURST)
    took = 0.0
    for health, left in (("unhealthy", carried - BURST), ("healthy", carried)):
        began = time.monotonic()
        for child in children:
            for name in child.offered:
                ids = [instance.id for each, owner, instance in chosen if (each, owner) == (child, name)]
                child.ask("finds", name, ids, health)
        asked = time.monotonic() - began
        took = asked + settle(children, left)[0]
        time.sleep(1)
    return took


def bare_burst(children: list[Child]) -> float:
    """So many puts at once, in a transaction for each worker."""
    began = time.monotonic()
    names = [(child, name) for child in children for name in child.offered]
    last_key = ""
    for child, name in names:
        keys = [f"{name}-{began}-{number}" for number in range(BURST // len(names))]
        child.ask("put", keys, b'{"v":1,"health":"unhealthy"}')
        last_key = keys[-1]
    return last(children, began, [len(child.offered) for child in children], "arrived", last_key, began)


def rounds(url: EtcdUrl, etcd_pid: int, count: int, turns: int) -> tuple[list[Round], float]:
    """The rounds, and the CPU seconds that etcd takes to tell one watch of one change."""
    placed = spread_instances(SERVICES, COPIES, WORKERS)
    parts = [{f"w{n}": instances} for n, instances in enumerate(placed)]
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


@dataclass
class Weighed:
    """The cost of one worker while others' endpoints change, beside a bare watch."""

    cpu: tuple[float, float]
    """Cores that it takes, and that a bare watch takes."""
    megabytes: tuple[float, float]


@contextmanager
def one_of_many(url: EtcdUrl, copies: int) -> Iterator[tuple[list[Child], list[list[Instance]], list[str]]]:
    """One worker among twenty, as on a host of its own; bare watches; and whoever writes for the others. With what each
    worker runs, and the keys of the others' verdicts.
    """
    placed = spread_instances(SERVICES, copies, WORKERS)
    keys = asyncio.run(offer(url, {f"w{n}": placed[n] for n in range(1, WORKERS)}))
    with workers(url, [{"w0": placed[0]}, {}, {}], url.prefix, DEFAULT_FLOOR_PERCENT) as children:
        settle(children[:1], SERVICES * copies)
        time.sleep(2)  # it rests after so much work
        yield children, placed, keys


def weigh(children: list[Child], url: EtcdUrl, keys: list[str], seconds: float) -> Weighed:
    """While so many of the others' verdicts change in a second as `RATE` says."""
    worker, watch, _ = children
    watch.ask("listen", 1)
    before = [child.ask("used") for child in (worker, watch)]
    began = time.monotonic()
    done = asyncio.run(churn(url, keys, RATE, seconds))
    took = time.monotonic() - began
    after = [child.ask("used") for child in (worker, watch)]
    print(f"{done / took:.1f} changes/s for {took:.0f} s", file=sys.stderr)
    mine, its = ((now[0] - then[0]) / took for now, then in zip(after, before, strict=True))
    return Weighed((mine, its), (after[0][1], after[1][1]))


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds > 0.02 else f"{seconds * 1000:.1f} ms"


def run(quick: bool) -> list[Row]:
    """Rows of the table: times, so that a ratio below 1 is better for us."""
    with scratch() as directory, etcd(Path(directory)) as (url, pid):
        found, told = rounds(url, pid, 1 if quick else 5, 60 if quick else 200)
    single: list[tuple[list[float], list[float]]] = []
    crowd: list[Weighed] = []
    for _ in range(1 if quick else 3):
        with scratch() as directory, etcd(Path(directory)) as (url, _), one_of_many(url, COPIES) as (them, placed, _):
            single.append(alone(them, placed, 60 if quick else 200))
        with scratch() as directory, etcd(Path(directory)) as (url, _), one_of_many(url, CROWD) as (them, _, keys):
            crowd.append(weigh(them, url, keys, 10 if quick else 30))
    print(f"etcd: {told * 1e6:.0f} us of CPU to tell one watch of one change", file=sys.stderr)
    size = f"{WORKERS} workers, {SERVICES} services x {COPIES}"
    rows = _times(f"{size}, all on these cores", [r.ours for r in found], [r.bare for r in found])
    here = f"{size}, one worker and {WORKERS - 1} bare watches"
    rows += _times(here, [mine for mine, _ in single], [its for _, its in single])
    ours, bare = [r.burst[0] for r in found], [r.burst[1] for r in found]
    beside, spread_ = ratio(ours, bare)
    name = f"burst of {BURST} changes until all tables are the same: {size}, beside etcd's own watch"
    rows.append(Row(name, _ms(statistics.median(ours)), _ms(statistics.median(bare)), beside, spread_, "", True))
    name = f"one worker, {SERVICES} services x {CROWD}, {RATE:.0f} changes/s, beside a bare watch: share of a core"
    beside, spread_ = ratio(*zip(*(w.cpu for w in crowd), strict=True))
    (ours_, bare_) = (
        f"{statistics.median(w.cpu[n] for w in crowd):.1%}, {statistics.median(w.megabytes[n] for w in crowd):.0f} MB"
        for n in (0, 1)
    )
    rows.append(Row(name, ours_, bare_, beside, spread_, "", True))
    return rows


def _times(where: str, ours: Sequence[Sequence[float]], bare: Sequence[Sequence[float]]) -> list[Row]:
    """Rows for the duration of a change; a list for each round."""
    rows: list[Row] = []
    mine: list[float] = []
    for share in (0.5, 0.99):
        mine, its = [quantile(t, share) for t in ours], [quantile(t, share) for t in bare]
        beside, spread_ = ratio(mine, its)
        met, goal = (beside <= 3, "<= 3.00") if share == 0.99 else (True, "")
        name = f"convergence p{share * 100:.0f}: {where}, beside etcd's own watch"
        rows.append(Row(name, _ms(statistics.median(mine)), _ms(statistics.median(its)), beside, spread_, goal, met))
    limit, spread_ = ratio(mine, [0.25] * len(mine))
    name = f"convergence p99: {where}, beside 250 ms"
    rows.append(Row(name, _ms(statistics.median(mine)), "250 ms", limit, spread_, "<= 1.00", limit <= 1))
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
