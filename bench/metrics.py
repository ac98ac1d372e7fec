"""The metrics of ten thousand services beside the usual library's text of their series, and the stall of the loop.

The text is measured by CPU time, and all of it counts: for ours, the three dozen other families too. The peer is a
custom collector of prometheus_client, its fastest way. The stall is measured by a task that sleeps for a millisecond at
a time on the loop that serves the scrapes; the client is curl, in a process of its own.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from harness import Row, main, need, ratio, scratch
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.api.metrics.counts import count_cluster
from mesh.api.metrics.families import MetricsInput, render_metrics
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.model.claims import Claims
from mesh.model.service import Endpoint, Instance, Route, Service, Transport
from mesh.model.view import ClusterView
from mesh.util.offload import shorten_thread_switches

SERVICES, ENDPOINTS = 10_000, 3


class Peer:
    """The series of services, made by the library."""

    def __init__(self, measured: MetricsInput) -> None:
        self._measured = measured

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Both families."""
        rows = count_cluster(self._measured.observed).rows
        endpoints = GaugeMetricFamily("vipmesh_service_endpoints", "Endpoints of a service.", labels=["service"])
        serving = GaugeMetricFamily("vipmesh_service_endpoints_serving", "Those that serve.", labels=["service"])
        for row in rows:
            endpoints.add_metric([row.name], row.endpoints)
            serving.add_metric([row.name], row.serving)
        yield endpoints
        yield serving


def observed() -> WorkerSnapshot:
    """A worker of the middle of a large cluster."""
    names = [f"service-{n}.mesh.internal" for n in range(SERVICES)]
    services = tuple(Service(f"demo/{n}", n, (Route(n, 80, Transport.TCP, 80),)) for n in sorted(names))
    endpoints = tuple(
        Endpoint(f"{s.owner}-{n}", s.owner, "w1", f"10.{number >> 6}.{number & 63}.{n + 1}")
        for number, s in enumerate(services)
        for n in range(ENDPOINTS)
    )
    vips = {s.name: f"10.{112 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n, s in enumerate(services)}
    view = ClusterView(services, endpoints, Claims(vips, {s.name: s.owner for s in services}))
    instances = tuple(Instance(e.id, e.owner, e.address, {}) for e in endpoints)
    return WorkerSnapshot(WorkerFacts("0", "w1", "bench", "a bench"), view, instances, plan=make_plan(view, {}))


def seconds(work: object) -> float:
    """CPU time of one call: other work on the machine does not count."""
    assert callable(work)
    began = time.thread_time()
    work()
    return time.thread_time() - began


async def stalls(measured: MetricsInput, directory: Path, rounds: int) -> tuple[list[float], list[float]]:
    """The longest sleep beyond its time, in seconds, while each scrape was under way; and while nothing was."""

    async def given() -> MetricsInput:
        return measured

    api = AdminApi(AdminListenConfig(f"unix://{directory}/admin.sock"), lambda: measured.observed, measure=given)
    await api.start()
    scrape = ("curl", "-sf", "--unix-socket", f"{directory}/admin.sock", "-o", "/dev/null", "http://localhost/metrics")
    scraped, idle = [], []
    for _ in range(rounds):
        scraped.append(await longest_sleep(*scrape))
        idle.append(await longest_sleep("sleep", "0.2"))
    await api.stop()
    return scraped, idle


async def longest_sleep(*command: str) -> float:
    """Seconds beyond the millisecond that was asked for, while a command runs."""
    process = await asyncio.create_subprocess_exec(*command)
    ended = asyncio.ensure_future(process.wait())
    longest, before = 0.0, time.perf_counter()
    while not ended.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before - 0.001), now
    if await ended:
        raise subprocess.CalledProcessError(process.returncode or 0, command)
    return longest


def run(quick: bool) -> Sequence[Row]:
    """See above."""
    need("curl", "curl")
    measured = MetricsInput(observed(), most_services=SERVICES)
    registry = CollectorRegistry()
    registry.register(Peer(measured))
    rounds = 5 if quick else 15
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: render_metrics(measured)))
        peer.append(seconds(lambda: generate_latest(registry)))
    times, spread = ratio(ours, peer)
    shorten_thread_switches()
    with scratch() as directory:
        scraped, idle = uvloop.run(stalls(measured, directory, rounds))
    stall, rest = (statistics.median(found) * 1000 for found in (scraped, idle))
    return [
        Row(
            f"metrics: text of {SERVICES} services, beside prometheus_client",
            f"{statistics.median(ours) * 1000:.0f} ms",
            f"{statistics.median(peer) * 1000:.0f} ms",
            times,
            spread,
            "<= 0.50",
            times <= 0.5,
        ),
        Row(
            f"metrics: longest stall of the loop while {SERVICES} services are scraped, beside idle",
            f"{stall:.1f} ms",
            f"{rest:.1f} ms",
            *ratio(scraped, idle),
            "< 10 ms",
            stall < 10,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(run, "The metrics of ten thousand services."))
