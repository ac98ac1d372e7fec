"""Failed new connections while the container engine restarts: to a VIP, beside the container's own published port.

    PYTHONPATH=. python bench/engine_restart.py

One engine with its own firewall in a network namespace, the whole daemon with the nftables data plane, one container
that publishes its port with `docker run -p`, and a client in another namespace. Every 20 ms it opens a connection to
the VIP and one to the published port at the same time; a connection without an answer within 0.9 s has failed, which is
before TCP repeats a lost packet. The engine is restarted with live-restore, where the container goes on, and without,
where it ends and the engine starts it again. Needs root.
"""

import asyncio
import random
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy_worker import Mesh, mesh

from harness import MissingError, Row, main, ratio, scratch
from mesh.testing.netns import Namespace
from tests.system.docker.engine import Engine, missing

HOST, CLIENT, PUBLISHED = "192.0.2.1", "192.0.2.2", 8082
EVERY, LOST = 0.02, 0.9
"""Seconds between two connections to one address, and until one has failed."""
QUIET = 2.0
"""Seconds in which no connection fails: then the restart is over."""
LONGEST = 60.0
"""Seconds after which a restart that is not over is a failure of the bench."""
LABELS = {
    "mesh.routing.port_80": "web.test",
    "mesh.probe.url": "http://container:80/",
    "mesh.probe.interval_seconds": "0.3",
    "mesh.probe.timeout_seconds": "0.3",
}


@dataclass
class Losses:
    """Connections of one restart, by where they go."""

    opened: int = 0
    """To each of the two."""
    failed: dict[str, int] = field(default_factory=lambda: {"vip": 0, "published": 0})
    last: float = 0.0
    """The loop time of the newest failure, in seconds."""


async def _answers(client: Namespace, where: tuple[str, int]) -> bool:
    """Whether a new connection is answered in time."""
    loop = asyncio.get_running_loop()
    with client.entered():
        sock = socket.socket()
    with sock, suppress(OSError, TimeoutError):
        sock.setblocking(False)
        async with asyncio.timeout(LOST):
            await loop.sock_connect(sock, where)
            await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            text = b""
            while not text.endswith(b"up\n") and (part := await loop.sock_recv(sock, 4096)):
                text += part
            return text.endswith(b"up\n")
    return False


async def _count(client: Namespace, losses: Losses, name: str, where: tuple[str, int]) -> None:
    if not await _answers(client, where):
        losses.failed[name] += 1
        losses.last = asyncio.get_running_loop().time()


async def restarted(engine: Engine, client: Namespace, vip: str, options: Sequence[str]) -> Losses:
    """Restart the engine once; returns what failed meanwhile and until nothing fails."""
    loop, losses = asyncio.get_running_loop(), Losses()
    targets = {"vip": (vip, 80), "published": (HOST, PUBLISHED)}
    losses.last = began = loop.time()
    over: float | None = None
    async with asyncio.TaskGroup() as tasks:

        async def restart() -> None:
            nonlocal over
            await asyncio.sleep(0.5)
            await asyncio.to_thread(engine.end)
            await asyncio.to_thread(engine.start, *options)
            over = loop.time()

        tasks.create_task(restart())
        while over is None or loop.time() < max(over, losses.last) + QUIET:
            assert loop.time() < began + LONGEST, f"{losses} after {LONGEST} s"
            losses.opened += 1
            for name in random.sample(list(targets), 2):
                tasks.create_task(_count(client, losses, name, targets[name]))
            await asyncio.sleep(EVERY)
    return losses


async def _mode(engine: Engine, client: Namespace, worker: Mesh, options: Sequence[str], rounds: int) -> Row:
    found = [await restarted(engine, client, await worker.vip(), options) for _ in range(rounds)]
    lost, beside = (sum(losses.failed[name] for losses in found) for name in ("vip", "published"))
    opened = sum(losses.opened for losses in found)
    # One more on either side: a round without a failure has no ratio.
    _, spread = ratio(*([losses.failed[name] + 1 for losses in found] for name in ("vip", "published")))
    way = "with live-restore" if options else "without live-restore"
    return Row(
        f"failed new connections in {rounds} restarts of the engine {way}, VIP beside published port",
        f"{lost} of {opened}",
        f"{beside} of {opened}",
        lost / beside if beside else float(lost > 0),
        spread,
        "<= 1",
        lost <= beside,
    )


async def measured(engine: Engine, client: Namespace, directory: Path, rounds: int) -> list[Row]:
    """All rows. The engine runs with live-restore when it begins."""
    await engine.adocker("network", "create", "shop")
    options = ("--network", "shop", "-p", f"{PUBLISHED}:80", "--init", "--restart", "always")
    await asyncio.to_thread(engine.run, "web", *options, labels=LABELS)
    async with mesh(engine, directory) as worker:
        await worker.serving("web")
        rows = [await _mode(engine, client, worker, ("--live-restore",), rounds)]
        await asyncio.to_thread(engine.end)
        await asyncio.to_thread(engine.start)
        await worker.serving("web")
        rows.append(await _mode(engine, client, worker, (), rounds))
    return rows


def run(quick: bool) -> Sequence[Row]:
    """All rows, on an engine that is gone afterwards."""
    if reason := missing():
        raise MissingError(reason)
    with scratch() as directory:
        namespace, client = Namespace(), Namespace()
        namespace.ip(
            "link set lo up",
            f"link add eth0 type veth peer name eth0 netns {client.path}",
            f"address add {HOST}/24 dev eth0",
            "link set eth0 up",
        )
        client.ip(
            "link set lo up", f"address add {CLIENT}/24 dev eth0", "link set eth0 up", f"route add default via {HOST}"
        )
        engine = Engine(namespace)  # closes it
        try:
            engine.start("--live-restore")
            engine.import_image()
            return asyncio.run(measured(engine, client, directory, 3 if quick else 10))
        finally:
            engine.close()
            client.close()


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
