"""Convergence of a cluster on etcd: from a verdict on one worker to the data planes of all the others.

The peer is etcd itself: the same number of bare watches in the same processes, at the same pace of puts, from the start
of a put until the last of them has decoded it. Both take turns in one run. All workers share this machine's cores with
etcd: what twenty workers compute at the same instant on two cores would be done at once on twenty hosts.
"""

import multiprocessing
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster_workers import serve

from harness import Row, main, need, running, scratch
from mesh.etcd_url import EtcdUrl
from mesh.model import Instance
from mesh.testing.worker import spread

WORKERS, SERVICES, COPIES, PROCESSES = 20, 1000, 5, 4
PACE = 0.1
"""Seconds between two changes, on average."""


@dataclass
class Child:
    """A process with some of the workers."""

    pipe: Connection
    process: Any
    offered: dict[str, list[Instance]]

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.pipe.send((verb, *arguments))
        return self.pipe.recv()


@contextmanager
def etcd(directory: Path) -> Iterator[EtcdUrl]:
    """One member, with its defaults, on the disk of this machine."""
    client, peer = "http://127.0.0.1:23791", "http://127.0.0.1:23801"
    command = [need("etcd", "etcd-server"), "--data-dir", str(directory), "--log-level", "error"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}"]
    with running(*command):
        deadline = time.monotonic() + 20
        probe = [need("curl", "curl"), "-sf", f"{client}/health"]
        while subprocess.run(probe, check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("etcd does not start")
            time.sleep(0.1)
        yield EtcdUrl((client,), "/bench/")


@contextmanager
def workers(url: EtcdUrl, placed: list[list[Instance]], processes: int) -> Iterator[list[Child]]:
    """All of them, over some processes."""
    context = multiprocessing.get_context("spawn")
    children = []
    for number in range(processes):
        offered = {f"w{n}": placed[n] for n in range(number, len(placed), processes)}
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, url, offered))
        process.start()
        children.append(Child(ours, process, offered))
    try:
        yield children
    finally:
        for child in children:
            child.pipe.send(None)
            child.process.join(10)
            if child.process.is_alive():
                child.process.kill()


def settle(children: list[Child], endpoints: int, within: float = 300) -> tuple[float, set[str]]:
    """Wait until all workers carry so many real servers; how long that took, and the digests they show."""
    began = time.monotonic()
    while True:
        shown = [row for child in children for row in child.ask("digests").values()]
        if all(row[2] == endpoints for row in shown):
            return time.monotonic() - began, {row[0] for row in shown}
        if time.monotonic() - began > within:
            raise RuntimeError(f"after {within} s the workers carry {sorted({row[2] for row in shown})} real servers")
        time.sleep(1)


def converge(children: list[Child], turns: int) -> list[float]:
    """Seconds from each of so many verdicts until the last worker has programmed it."""
    took = []
    down: list[tuple[Child, str, Instance]] = []
    for turn in range(turns):
        up = turn % 2 == 1
        if up:
            child, name, instance = down.pop()
        else:
            child = random.choice(children)
            name = random.choice(list(child.offered))
            instance = random.choice(child.offered[name])
            down.append((child, name, instance))
        for each in children:
            each.ask("forget")
        began = child.ask("finds", name, [instance.id], "healthy" if up else "unhealthy")
        took.append(_last(children, began, "seen", instance.address, up))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    return took


def bare(children: list[Child], turns: int) -> list[float]:
    """The same from a put until the last of as many bare watches has it."""
    took = []
    for child in children:
        child.ask("listen", True)
    for turn in range(turns):
        key = f"{turn}-{random.random()}"
        began = random.choice(children).ask("put", key, b'{"v":1,"health":"unhealthy"}')
        took.append(_last(children, began, "arrived", key))
        time.sleep(PACE * random.uniform(0.5, 1.5))
    for child in children:
        child.ask("listen", False)
    return took


def _last(children: list[Child], began: float, verb: str, *arguments: Any) -> float:
    """Until all workers have it: the pauses between the looks let them work."""
    missing = {id(child): len(child.offered) for child in children}
    latest = began
    while any(missing.values()):
        time.sleep(0.05)
        for child in children:
            if missing[id(child)]:
                seen = child.ask(verb, *arguments)
                times = list(seen.values()) if isinstance(seen, dict) else seen
                latest = max([latest, *times])
                missing[id(child)] = (
                    len(child.offered) - len(times) if verb == "seen" else missing[id(child)] - len(times)
                )
        if time.monotonic() - began > 30:
            raise RuntimeError(f"{verb} {arguments}: not everywhere after 30 s")
    return latest - began


def quantile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(quick: bool) -> list[Row]:
    turns = 40 if quick else 200
    rounds = 1 if quick else 3
    placed = spread(SERVICES, COPIES, WORKERS)
    with scratch() as directory, etcd(directory) as url, workers(url, placed, PROCESSES) as children:
        took, digests = settle(children, SERVICES * COPIES)
        print(f"start: {took:.1f} s, digests {digests}", file=sys.stderr)
        ours, peer = [], []
        for _ in range(rounds):
            ours.append(converge(children, turns))
            peer.append(bare(children, turns))
            print(
                *(
                    f"{name} p50 {statistics.median(v) * 1000:.1f} p99 {quantile(v, 0.99) * 1000:.1f} ms"
                    for name, v in (("ours", ours[-1]), ("etcd", peer[-1]))
                ),
                file=sys.stderr,
            )
    return []


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
