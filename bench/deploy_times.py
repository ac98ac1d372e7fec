"""Measures when a new container answers through its VIP, how long a killed one gets connections, and the idle cost."""

import asyncio
import errno
import select
import socket
import statistics
import time
from pathlib import Path

from deploy_worker import CHECKED, Mesh, mesh

from harness import Row, cpu_seconds
from tests.system.docker.engine import Engine

NETWORK, SUBNET = "bench", "172.31.7.0/24"
"""The network and subnet of containers whose address is known before they start."""
_ADDRESS = "172.31.7.9"
PATIENCE = 20.0
STEP = 0.002
"""Seconds between two tries."""
LOOKED = 2.0
"""Seconds that are looked at after a kill."""
IDLE = 30.0
"""Seconds over which idling is measured."""


def answers(engine: Engine, host: str) -> bool:
    """Whether a new connection gets an answer, within half a second."""
    with engine.namespace.entered():
        sock = socket.socket()
    with sock:
        sock.setblocking(False)
        if sock.connect_ex((host, 80)) not in (0, errno.EINPROGRESS):
            return False
        if not select.select([], [sock], [], 0.5)[1] or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        sock.send(b"GET / HTTP/1.0\r\n\r\n")
        if not select.select([sock], [], [], 0.5)[0]:
            return False
        try:
            return sock.recv(4096).startswith(b"HTTP/1")
        except OSError:
            return False


def until(engine: Engine, host: str, begin: float) -> float:
    """Seconds from the beginning to the first answer."""
    while time.monotonic() < begin + PATIENCE:
        if answers(engine, host):
            return time.monotonic() - begin
        time.sleep(STEP)
    raise TimeoutError(f"no answer within {PATIENCE} s")


async def started(engine: Engine, worker: Mesh, turns: int) -> tuple[list[float], list[float]]:
    """From the beginning of `docker run` to the first answer: through the VIP, and at the container's own address."""
    await asyncio.to_thread(engine.run, "first", "--init", labels=CHECKED)
    await worker.serving("first")
    vip = await worker.vip()
    await asyncio.to_thread(engine.remove_all)
    await worker.serving()
    await engine.adocker("network", "create", "--subnet", SUBNET, NETWORK)
    options = ("--init", "--network", NETWORK, "--ip", _ADDRESS)
    through, direct = [], []
    for turn in range(turns):
        begin = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(engine.run, f"new-{turn}", *options, labels=CHECKED))
            first = tasks.create_task(asyncio.to_thread(until, engine, vip, begin))
            own = tasks.create_task(asyncio.to_thread(until, engine, _ADDRESS, begin))
        through.append(first.result())
        direct.append(own.result())
        await engine.adocker("rm", "-f", f"new-{turn}")
        await worker.serving()
    await asyncio.to_thread(engine.remove_all)
    return through, direct


async def dead(engine: Engine, worker: Mesh, turns: int) -> tuple[list[float], list[float]]:
    """From the beginning of `docker kill` to the last connection that failed (to its end, if none did), and its end."""
    last, ended = [], []
    await asyncio.to_thread(engine.run, "stays", "--init", labels=CHECKED)
    for turn in range(turns):
        name = f"goes-{turn}"
        await asyncio.to_thread(engine.run, name, "--init", labels=CHECKED)
        await worker.serving("stays", name)
        vip = await worker.vip()
        begin = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            trying = tasks.create_task(asyncio.to_thread(failures, engine, vip, begin))
            await engine.adocker("kill", name)
            ended.append(time.monotonic() - begin)
        failed = trying.result()
        last.append(failed[-1] if failed else ended[-1])
        await engine.adocker("rm", name)
        await worker.serving("stays")
    await asyncio.to_thread(engine.remove_all)
    return last, ended


def failures(engine: Engine, host: str, begin: float) -> list[float]:
    """When connections failed, in seconds from the beginning; one is tried after the other."""
    found = []
    while (now := time.monotonic()) < begin + LOOKED:
        if not answers(engine, host):
            found.append(now - begin)
        time.sleep(STEP)
    return found


async def idle(engine: Engine, directory: Path, containers: int) -> Row:
    """CPU time of the daemon while nothing happens, in per cent of a core; probes at the default interval."""
    per_service = 5
    for number in range(containers):
        labels = {"mesh.routing.port_80": f"s{number // per_service}.test", "mesh.probe.url": "http://container:80/"}
        await asyncio.to_thread(engine.run, f"idle-{number}", labels=labels)
    async with mesh(engine, directory) as worker:
        await worker.serving(*(f"idle-{number}" for number in range(containers)))
        await asyncio.sleep(5)
        parts = []
        for _ in range(3):
            before = cpu_seconds(worker.pid)
            await asyncio.sleep(IDLE / 3)
            parts.append((cpu_seconds(worker.pid) - before) / (IDLE / 3) * 100)
    await asyncio.to_thread(engine.remove_all)
    middle = statistics.median(parts)
    spread = f"{min(parts):.2f}..{max(parts):.2f}"
    name = f"CPU of the daemon with {containers} idle containers that are probed every 5 s"
    return Row(name, f"{middle:.2f} % of a core", "-", middle, spread, "-", True)
