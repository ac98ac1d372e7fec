"""Each kind of attack beside rest: what it costs a real daemon, its own names and its healthy endpoints.

    python bench/hostile.py [--quick]
    ATTACK=compose python bench/hostile.py     the attacks with this word in their name

A daemon over etcd, an engine and compose files, with the proxy in user space, on loopback. Before each attack the same
is measured at rest. The daemon has a core of its own; the attack and the client share another one.
"""

import asyncio
import json
import os
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from hostile_attacks import ATTACKS, HostileEngine, Surface

from harness import Row, cores, main, need, running, scratch
from tests.system.e2e.programs import free_port

SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.115.0.0/16"
[dataplane]
driver = "userspace"
low_port_offset = 8000
[names]
allow = ["bench.test", "mesh.internal"]
[dns]
listen = ["127.0.0.1:{dns}"]
upstream = ["127.0.0.1:{upstream}"]
[store]
url = "etcd://{etcd}/bench"
saved_view = "{directory}/view.json"
[peers]
listen = "127.0.0.1:{peers}"
[admin]
listen = "unix://{directory}/admin.sock"
tcp = "127.0.0.1:{admin}"
token_file = "{directory}/token"
[source.docker]
socket = "unix://{directory}/docker.sock"
[source.compose]
files = ["{directory}/compose.yaml", "{directory}/other.yaml"]
"""
GOOD = """  good{n}:
    x-endpoints: ["127.0.0.1:{port}"]
    labels:
      mesh.routing.port_80: good{n}.bench.test
      mesh.probe.url: http://container:80/
      mesh.probe.interval_seconds: "1"
      mesh.probe.timeout_seconds: "1"
"""
PATIENCE = 30.0
MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """What was measured during some seconds."""

    p99: float
    """Of the questions for own names, in microseconds."""
    lost: int
    longest: float
    """CPU seconds of the longest turn of the event loop."""
    size: int
    """Resident bytes of the daemon at the end."""
    changed: int
    """How often a healthy endpoint was seen as anything else."""


class Daemon:
    """The daemon that is attacked, and what is measured of it."""

    def __init__(self, pid: int, turns: Path, admin: Path, victim: subprocess.Popen[str]) -> None:
        self._pid = pid
        self._turns = turns
        self._admin = admin
        self._victim = victim

    async def verdicts(self) -> list[str]:
        """Return the health of each of the good endpoints, as the status says; empty if it does not answer."""
        connector = aiohttp.UnixConnector(str(self._admin))
        timeout = aiohttp.ClientTimeout(total=5)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                async with session.get("http://localhost/v1/status") as response:
                    services = json.loads(await response.read())["services"]
                return [each["health"] for s in services if s["name"].startswith("good") for each in s["endpoints"]]
        return []

    async def measure(self, seconds: float) -> Figures:
        """Measure for some seconds."""
        with self._turns.open("r+b") as file:  # not truncated: the daemon has it mapped
            file.write(bytes(8))
        assert self._victim.stdin is not None
        assert self._victim.stdout is not None
        print(seconds, file=self._victim.stdin, flush=True)
        answer = asyncio.ensure_future(asyncio.to_thread(self._victim.stdout.readline))
        changed = 0
        while not answer.done():
            await asyncio.wait([answer], timeout=1.0)
            changed += sum(health != "healthy" for health in await self.verdicts())
        p99, lost = (await answer).split()
        longest = struct.unpack("d", self._turns.read_bytes())[0]
        return Figures(float(p99), int(lost), longest, self.size(), changed)

    def size(self) -> int:
        """Return the resident bytes of the daemon: proc_pid_statm(5)."""
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def silent_upstream(port: int) -> AsyncIterator[None]:
    """A name server that answers nothing."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", port))
    try:
        yield
    finally:
        transport.close()


@asynccontextmanager
async def engine_at(path: Path, engine: HostileEngine) -> AsyncIterator[None]:
    """The engine on its socket."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def attacked(
    attack: Callable[[Surface], Awaitable[None]], at: Surface, daemon: Daemon, seconds: float
) -> Figures:
    """Measure during an attack, and undo it."""

    async def go_on() -> None:
        await attack(at)

    task = asyncio.ensure_future(go_on())
    await asyncio.sleep(1.0)
    try:
        return await daemon.measure(seconds)
    finally:
        if task.done():
            task.result()  # an attack that ended by itself was none
        task.cancel()
        await asyncio.wait([task])
        at.engine.containers = []
        at.compose.write_text("services: {}\n")


async def rounds(at: Surface, daemon: Daemon, seconds: float, count: int, asked: str | None) -> Sequence[Row]:
    """Each attack beside rest, several times; `asked`: only those with this text in their name."""
    deadline = time.monotonic() + PATIENCE
    while await daemon.verdicts() != ["healthy"] * 3:
        if time.monotonic() > deadline:
            raise TimeoutError("the daemon does not serve")
        await asyncio.sleep(0.2)
    rows: list[Row] = []
    for name, attack in ATTACKS.items():
        if asked is not None and asked not in name:
            continue
        pairs = []
        for _ in range(count):
            rest = await daemon.measure(seconds)
            pairs.append((rest, await attacked(attack, at, daemon, seconds)))
            await asyncio.sleep(2.0)
        rows += rows_of(name, pairs)
        for row in rows[-4:]:
            print(f"{row.bench}: {row.ours}, beside {row.peer}: {'met' if row.met else 'NOT MET'}", file=sys.stderr)
    return rows


def rows_of(name: str, pairs: Sequence[tuple[Figures, Figures]]) -> list[Row]:
    """The four figures of an attack."""
    ratios = [during.p99 / rest.p99 for rest, during in pairs]
    rest_p99 = statistics.median(rest.p99 for rest, _ in pairs)
    p99, lost = statistics.median(during.p99 for _, during in pairs), sum(during.lost for _, during in pairs)
    turn, still = max(during.longest for _, during in pairs), max(rest.longest for rest, _ in pairs)
    growth = max((during.size - rest.size) / MIB for rest, during in pairs)
    changed = sum(during.changed for _, during in pairs)
    spread, ratio = f"{min(ratios):.2f}..{max(ratios):.2f}", statistics.median(ratios)
    return [
        Row(
            f"{name}: DNS p99 of own names",
            f"{p99:.0f} us, {lost} lost",
            f"{rest_p99:.0f} us",
            ratio,
            spread,
            "<= 3",
            ratio <= 3 and not lost,
        ),
        Row(
            f"{name}: longest turn of the loop",
            f"{turn * 1000:.0f} ms",
            f"{still * 1000:.0f} ms",
            turn / max(still, 1e-6),
            "-",
            "<= 100 ms",
            turn <= 0.1,
        ),
        Row(f"{name}: growth of the daemon", f"{growth:.1f} MiB", "-", growth, "-", "<= 32 MiB", growth <= 32),
        Row(
            f"{name}: verdicts on healthy endpoints changed", str(changed), "0", float(changed), "-", "0", changed == 0
        ),
    ]


async def bench(directory: Path, quick: bool) -> Sequence[Row]:
    """Start everything, and measure."""
    seconds, count = (3.0, 1) if quick else (8.0, 3)
    ports = {name: free_port() for name in ("dns", "upstream", "etcd", "etcd_peer", "peers", "admin", "web", "probed")}
    server_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    write_files(directory, ports)
    engine = HostileEngine()
    url = f"http://127.0.0.1:{ports['etcd']}"
    at = Surface(
        ports["dns"],
        ports["admin"],
        directory / "admin.sock",
        ports["peers"],
        url,
        directory / "other.yaml",
        ports["probed"],
        engine,
    )
    turns, peer = directory / "turns", f"http://127.0.0.1:{ports['etcd_peer']}"
    store: tuple[str, ...] = (
        need("etcd", "etcd-server"),
        "--data-dir",
        str(directory / "etcd"),
        "--log-level",
        "error",
    )
    store += ("--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer)
    store += ("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}")
    program = (sys.executable, str(Path(__file__).with_name("hostile_daemon.py")), str(turns), "run")
    victim = (sys.executable, str(Path(__file__).with_name("hostile_victim.py")), str(ports["web"]), str(ports["dns"]))
    with (
        running(*store, quiet=True),
        subprocess.Popen(victim, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking,
    ):
        try:
            assert asking.stdout is not None
            await asyncio.to_thread(asking.stdout.readline)
            async with silent_upstream(ports["upstream"]), engine_at(directory / "docker.sock", engine):
                with running(*program, "-c", str(directory / "vipmesh.toml"), cpu=server_core, quiet=True) as process:
                    return await rounds(
                        at,
                        Daemon(process.pid, turns, at.admin_socket, asking),
                        seconds,
                        count,
                        os.environ.get("ATTACK"),
                    )
        finally:
            asking.terminate()


def write_files(directory: Path, ports: Mapping[str, int]) -> None:
    """The settings, the token and the compose files of the daemon."""
    token = directory / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o600)
    services = "".join(GOOD.format(n=n, port=ports["web"]) for n in range(3))
    (directory / "compose.yaml").write_text(f"name: good\nservices:\n{services}")
    (directory / "other.yaml").write_text("services: {}\n")
    places = {"directory": directory, **ports, "etcd": f"127.0.0.1:{ports['etcd']}"}
    (directory / "vipmesh.toml").write_text(SETTINGS.format(**places))


def run(quick: bool) -> Sequence[Row]:
    """`quick`: one round of three seconds, else three of eight."""
    with scratch() as directory:
        return asyncio.run(bench(directory, quick))


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
