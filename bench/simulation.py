"""A cluster larger than this machine: a thousand workers with a hundred thousand endpoints, in virtual time, with
faults.

It reports whether all tables agree afterwards and all claims are unique, and the load of such a cluster on etcd:
requests, changes sent to watches, bytes. The same seed gives the same figures and the same trace on any machine. The
cost of that load for etcd itself is measured by `cluster.py`; docs/scale.md puts the two together.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from ipaddress import ip_network

from tests.simulation.cluster import Simulation
from tests.simulation.faults import Havoc, placed, wreak, wrong

POOL, PORTS = ip_network("10.64.0.0/10"), range(30000, 40000)


@dataclass(frozen=True)
class Size:
    """The size of a cluster: each service has its endpoints on as many workers."""

    workers: int
    services: int
    copies: int
    witnesses: int
    seconds: float


FULL = (
    Size(20, 1000, 5, 20, 60),
    Size(100, 2000, 10, 20, 60),
    Size(300, 5000, 10, 10, 60),
    Size(1000, 10_000, 10, 5, 60),
)
QUICK = (Size(20, 200, 5, 20, 30), Size(100, 500, 10, 5, 30))


@dataclass(frozen=True)
class Result:
    """The result of one run; `a_second` is the mean over the whole run, start included."""

    size: Size
    trace: str
    wrong: list[str]
    requests: dict[str, int]
    revisions: int
    records: int
    record_megabytes: float
    request_megabytes: float
    events: int
    told_megabytes: float
    virtual_seconds: float
    took: float


def simulate(size: Size, seed: int, verdicts: float) -> Result:
    """One run; each tenth worker is cut off once, each twentieth crashes, and the store is away once."""
    began = time.monotonic()
    workers = placed(size.workers, size.services, size.copies)
    simulation = Simulation(seed, workers, POOL, PORTS, size.witnesses)
    wreak(simulation, Havoc(size.seconds, verdicts, size.workers // 10, size.workers // 20, 1, 2))
    records = simulation.cluster.records
    counts = simulation.counts
    return Result(
        size,
        simulation.trace,
        wrong(simulation),
        dict(sorted(counts.requests.items())),
        simulation.cluster.revision,
        len(records),
        sum(len(key) + len(value) for key, value in records.items()) / 1e6,
        counts.written / 1e6,
        counts.events,
        counts.told / 1e6,
        simulation.now,
        time.monotonic() - began,
    )


def main() -> int:
    """Print a line for each size. Exit status 1: something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small clusters")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verdicts", type=float, default=50, help="changes of health in a second, over all workers")
    options = parser.parse_args()
    results = []
    if not options.json:
        print("| workers | endpoints | records | MB | requests | claims of them | told | MB | trace | wrong | took |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
    for size in QUICK if options.quick else FULL:
        result = simulate(size, options.seed, options.verdicts)
        results.append(result)
        if not options.json:
            print(_line(result), flush=True)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    return int(any(result.wrong for result in results))


def _line(result: Result) -> str:
    size = result.size
    cells = [
        f"{size.workers}",
        f"{size.services * size.copies}",
        f"{result.records}",
        f"{result.record_megabytes:.1f}",
        f"{sum(result.requests.values())}",
        f"{result.requests.get('claim', 0)}",
        f"{result.events}",
        f"{result.told_megabytes:.0f}",
        result.trace[:8],
        "; ".join(result.wrong) or "nothing",
        f"{result.took:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
