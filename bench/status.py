"""`vipmesh status` of a thousand services beside a Python that starts and ends.

Both are timed from the start of the process to its end. The daemon's part is in the time of ours: the admin API of a
worker of a large cluster, with a probe on each endpoint. The command prints into a pipe, then on a pseudo-terminal of
120 columns with colours.
"""

import asyncio
import os
import pty
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop

from harness import Row, main, ratio, scratch
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.api.http.stacks import StackRequests
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.health.history import CheckHistory
from mesh.health.snapshot import HealthSnapshot
from mesh.health.state_machine import Verdict
from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, Health, Instance, Route, Service, Transport
from mesh.model.view import ClusterView

SERVICES, ENDPOINTS = 1_000, 3
TROUBLED = 20
"""Services of which one endpoint fails: their endpoints are listed."""


def observed(of_services: int = SERVICES, of_endpoints: int = ENDPOINTS) -> WorkerSnapshot:
    """A worker on which all endpoints run: so many services, with so many endpoints each."""
    probe = Probe(ProbeKind.HTTP, 80)
    services = tuple(
        Service(f"demo/{n}", n, (Route(n, 80, Transport.TCP, 80),), probe=probe)
        for n in (f"service-{n:04}.mesh.internal" for n in range(of_services))
    )
    endpoints = tuple(
        Endpoint(f"{s.owner}-{n}", s.owner, "w1", f"10.{number >> 6}.{number & 63}.{n + 1}")
        for number, s in enumerate(services)
        for n in range(of_endpoints)
    )
    failing = {e.key for e in endpoints[: TROUBLED * of_endpoints : of_endpoints]}
    health = {e.key: Health.UNHEALTHY if e.key in failing else Health.HEALTHY for e in endpoints}
    histories = {}
    for endpoint in endpoints:
        histories[endpoint.key] = past = CheckHistory()
        ok = endpoint.key not in failing
        for second in range(10):
            past.add(Verdict(ok, "status 200" if ok else "refused", 0.001), 2.0 * second)
    vips = {s.name: f"10.112.{n >> 8}.{n & 255}" for n, s in enumerate(services)}
    view = ClusterView(services, endpoints, Claims(vips, {s.name: s.owner for s in services}), health)
    now = time.time()
    return WorkerSnapshot(
        WorkerFacts("0", "w1", "bench", "a bench"),
        view,
        tuple(Instance(e.id, e.owner, e.address, {}) for e in endpoints),
        health,
        HealthSnapshot(histories=histories, epoch=now - 20),
        make_plan(view, health),
        digest="0123456789ab",
        since={e.key: now - 3600 for e in endpoints},
    )


@contextmanager
def api(
    directory: Path,
    services: int = SERVICES,
    endpoints: int = ENDPOINTS,
    stacks: Callable[[Callable[[], WorkerSnapshot]], StackRequests] | None = None,
) -> Iterator[str]:
    """The admin API in a thread of its own; its address. `stacks` makes what lists stacks, of what takes snapshots."""
    seen, ready, over = observed(services, endpoints), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        lists = None if stacks is None else stacks(lambda: seen)
        served = AdminApi(AdminListenConfig(f"unix://{directory}/admin.sock"), lambda: seen, stacks=lists)
        await served.start()
        ready.set()
        await over.wait()
        await served.stop()

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield f"unix://{directory}/admin.sock"
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join()


def piped(environment: Mapping[str, str], *command: str) -> float:
    """Seconds of a command that prints into a pipe."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    return time.perf_counter() - began


def shown(environment: Mapping[str, str], *command: str) -> float:
    """Seconds of a command that prints on a terminal, which is read."""
    ours, its = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=its, env=environment) as process:
        os.close(its)
        try:
            while os.read(ours, 1 << 16):
                pass
        except OSError:
            pass  # EIO: the other side is closed
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
    took = time.perf_counter() - began
    os.close(ours)
    return took


def run(quick: bool) -> Sequence[Row]:
    """See above."""
    rounds = 7 if quick else 25
    rows = []
    with scratch() as directory, api(directory) as admin:
        # As installed: with bytecode, which is written by the first run.
        given = {"PYTHONPYCACHEPREFIX": f"{directory}/bytecode", "TERM": "xterm-256color", "COLUMNS": "120"}
        without = ("PYTHONDONTWRITEBYTECODE", "NO_COLOR")
        environment = {**{key: value for key, value in os.environ.items() if key not in without}, **given}
        status = (sys.executable, "-m", "mesh", "status", "--admin", admin)
        shown(environment, *status)
        ways: tuple[tuple[str, Callable[..., float], float], ...] = (("piped", piped, 8), ("on a terminal", shown, 12))
        for way, timed, most in ways:
            ours, peer = [], []
            for _ in range(rounds):
                peer.append(timed(environment, sys.executable, "-c", "pass"))
                ours.append(timed(environment, *status))
            times, spread = ratio(ours, peer)
            rows.append(
                Row(
                    f"status: {SERVICES} services, {way}, beside python3 -c pass",
                    f"{statistics.median(ours) * 1000:.0f} ms",
                    f"{statistics.median(peer) * 1000:.0f} ms",
                    times,
                    spread,
                    f"<= {most}",
                    times <= most,
                )
            )
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
