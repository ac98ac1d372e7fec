"""The prober beside HAProxy's checks and an aiohttp client: the cost of a check, and the time until a dead one is out.

All of them probe the same endpoints (one HAProxy that answers at every address of 127.0.0.0/8, in a network namespace
of its own) at the same interval, one after the other; the requests are counted there. The checkers have a core to
themselves; endpoints and this process share the other one. Under TCP on loopback the sender's core also does most of
the receiver's work, for all of them alike.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes_death import death_row
from probes_dns import dns_row
from probes_peers import PORT, Endpoints, endpoints, httpchk

from harness import MissingError, Row, cores, cpu_seconds, main, ratio, running, scratch
from mesh.testing.netns import Namespace, run_ip

HERE = Path(__file__).parent
COUNT, MANY = 1000, 10_000


@dataclass(frozen=True)
class Place:
    """Where a round runs."""

    directory: Path
    endpoints: Endpoints
    cpu: int
    """The checkers'."""


def cost(pid: int, place: Place, seconds: float) -> float:
    """CPU milliseconds of a process for each check that it made meanwhile."""
    asked, used = place.endpoints.asked(), cpu_seconds(pid)
    time.sleep(seconds)
    used, asked = cpu_seconds(pid) - used, place.endpoints.asked() - asked
    if asked < 0.9 * COUNT * seconds:
        print(f"only {asked} of {COUNT * seconds:.0f} checks were made: the machine is too busy", file=sys.stderr)
    return used / asked * 1000


class Ours:
    """Our prober in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def say(self) -> dict[str, Any]:
        """The counters of the prober; lateness since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def settle(self, count: int) -> None:
        """Return once all endpoints are healthy."""
        end = time.monotonic() + 60
        while self.say()["healthy"] < count:
            if time.monotonic() > end:
                raise RuntimeError("the endpoints do not all answer")
            time.sleep(0.1)


@contextmanager
def ours(cpu: int, count: int, interval: float) -> Iterator[Ours]:
    """Ours."""
    command = (sys.executable, str(HERE / "probes_prober.py"), str(count), str(interval), str(PORT))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.sched_setaffinity(process.pid, {cpu})
    try:
        yield Ours(process)
    finally:
        process.kill()
        process.communicate()


def our_cost(place: Place, seconds: float) -> float:
    """One round of ours."""
    with ours(place.cpu, COUNT, 1.0) as prober:
        prober.settle(COUNT)
        time.sleep(1)
        return cost(prober.pid, place, seconds)


def haproxy_cost(place: Place, seconds: float) -> float:
    """One round of HAProxy."""
    with httpchk(place.directory, place.cpu, COUNT, 1.0) as pid:
        time.sleep(2.5)
        return cost(pid, place, seconds)


def aiohttp_cost(place: Place, seconds: float) -> float:
    """One round of aiohttp."""
    script = str(HERE / "probes_aiohttp.py")
    with running(sys.executable, script, str(COUNT), "1", str(PORT), cpu=place.cpu) as process:
        time.sleep(3)
        return cost(process.pid, place, seconds)


def cost_rows(place: Place, rounds: int, seconds: float) -> list[Row]:
    """CPU seconds for a thousand checks, which is milliseconds for one."""
    found: dict[str, list[float]] = {"ours": [], "HAProxy": [], "aiohttp": []}
    work = {"ours": our_cost, "HAProxy": haproxy_cost, "aiohttp": aiohttp_cost}
    for _ in range(rounds):
        for name in random.sample(sorted(work), len(work)):
            found[name].append(work[name](place, seconds))
    rows = []
    for peer in ("HAProxy", "aiohttp"):
        middle, spread = ratio(found["ours"], found[peer])
        ours, theirs = (f"{statistics.median(found[name]):.3f} s CPU" for name in ("ours", peer))
        bench = f"probes: CPU for 1,000 HTTP checks, 1,000 endpoints each second, beside {peer}"
        rows.append(Row(bench, ours, theirs, middle, spread, "<= 1.0", middle <= 1.0))
    return rows


def many_rows(place: Place, rounds: int, seconds: float) -> list[Row]:
    """Ten thousand endpoints every ten seconds; the peer is the same process before it has anything to ask."""
    cores_used, megabytes, lateness = [], [], []
    for _ in range(rounds):
        with ours(place.cpu, MANY, 10.0) as prober:
            prober.settle(MANY)
            time.sleep(5)
            prober.say()
            used, begun = cpu_seconds(prober.pid), time.monotonic()
            time.sleep(seconds)
            cores_used.append((cpu_seconds(prober.pid) - used) / (time.monotonic() - begun) * 100)
            said = prober.say()
            megabytes.append(said["megabytes"])
            lateness.append(said["p99"])

    def row(what: str, unit: str, found: Sequence[float], goal: float) -> Row:
        middle = statistics.median(found)
        spread = f"{min(found):.2f}..{max(found):.2f}"
        bench = f"probes: 10,000 endpoints every 10 s: {what}"
        return Row(bench, f"{middle:.2f} {unit}", "itself idle", middle, spread, f"<= {goal:g} {unit}", middle <= goal)

    return [
        row("CPU", "% of a core", cores_used, 8.0),
        row("memory", "MB", megabytes, 10.0),
        row("p99 lateness", "slots of 0.1 s", lateness, 1.0),
    ]


def run(quick: bool) -> list[Row]:
    """Everything in a network namespace that goes with this process."""
    rounds, seconds = (2, 5.0) if quick else (6, 10.0)
    try:
        namespace = Namespace()
    except PermissionError:
        raise MissingError("this bench makes a network namespace: run it as root") from None
    checker_cpu, load_cpu = cores()
    os.sched_setaffinity(0, {load_cpu})
    with namespace.entered(), ExitStack() as stack:
        run_ip("link set lo up")
        directory = stack.enter_context(scratch())
        there = stack.enter_context(endpoints(directory, load_cpu))
        place = Place(directory, there, checker_cpu)
        return [
            *cost_rows(place, rounds, seconds),
            *many_rows(place, max(1, rounds // 2), 2 * seconds),
            death_row(directory, 4 if quick else 16),
            dns_row(checker_cpu, rounds, seconds),
        ]


if __name__ == "__main__":
    sys.exit(main(run, "What health checks cost, beside HAProxy and aiohttp."))
