"""The prober alone, for the bench: COUNT INTERVAL PORT. Each line on standard input is answered by one line of JSON.

The endpoints are 127.1.0.1 and so on, all on one port, each with an HTTP probe.
"""

import asyncio
import json
import sys
from ipaddress import ip_address
from pathlib import Path

import uvloop
from typing_extensions import override

from mesh.health.prober import Prober
from mesh.health.targets import ProberCounters, ProbeTarget
from mesh.health.timer_wheel import SLOT_SECONDS
from mesh.model.probe import Probe, ProbeKind
from mesh.util.offload import shorten_thread_switches


class Lateness(ProberCounters):
    """Keeps how late each check began, in slots."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    @override
    def began(self, lateness: float) -> None:
        """Note it."""
        super().began(lateness)
        self.seen.append(lateness / SLOT_SECONDS)


def resident() -> float:
    """Megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def serve(count: int, interval: float, port: int) -> None:
    """Until standard input ends."""
    prober = Prober(lambda: None)
    stats = prober.stats = Lateness()
    before = resident()
    probe = Probe(ProbeKind.HTTP, port, "/health", interval=interval)
    first = ip_address("127.1.0.1")
    prober.watch({("w1", f"bench/server/{n}"): ProbeTarget(probe, str(first + n), port) for n in range(count)})
    running = asyncio.get_running_loop().create_task(prober.run(), name="prober")
    while await asyncio.to_thread(sys.stdin.readline):
        late, stats.seen = sorted(stats.seen), []
        said = {
            "healthy": sum(health == "healthy" for health in prober.health().values()),
            "checks": stats.checks,
            "p99": late[int(len(late) * 0.99)] if late else 0.0,
            "megabytes": resident() - before,
        }
        print(json.dumps(said), flush=True)
    running.cancel()


if __name__ == "__main__":
    shorten_thread_switches()
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
