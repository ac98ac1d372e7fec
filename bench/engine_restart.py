"""New connections while the container engine restarts: to a VIP, beside the container's own published port.

    PYTHONPATH=. python bench/engine_restart.py

One engine with its own firewall in a network namespace, the whole daemon with the nftables data plane, one container
that publishes its port with `docker run -p`, and a client in another namespace. Every 20 ms it opens a connection to
the VIP and one to the published port at the same time. A connection has failed if it is refused, or has no answer
within 5 s; it is late without an answer within 0.9 s, which is before TCP repeats a lost packet, so that a failed one
is late too. The engine is restarted with live-restore, where the container goes on, and without, where it ends and the
engine starts it again. Needs root.
"""

import asyncio
import math
import random
import socket
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy_worker import Mesh, mesh

from harness import MissingError, Row, main, ratio, scratch
from mesh.testing.netns import Namespace
from tests.system.docker.engine import Engine, missing

HOST, CLIENT, PUBLISHED = "192.0.2.1", "192.0.2.2", 8082
EVERY, LATE, PATIENCE = 0.02, 0.9, 5.0
"""Seconds between two connections to one address, until one is late, and until it has failed."""
QUIET = 2.0
"""Seconds in which no connection fails or is late: then the restart is over."""
LONGEST = 60.0
"""Seconds after which a restart that is not over is a failure of the bench."""
LABELS = {
    "mesh.routing.port_80": "web.test",
    "mesh.probe.url": "http://container:80/",
    "mesh.probe.interval_seconds": "0.3",
    "mesh.probe.timeout_seconds": "0.3",
}


WAYS = ("vip", "published")


@dataclass
class Answers:
    """The connections of one restart to one address."""

    failed: int = 0
    late: int = 0
    back: float = 0.0
    """When the first connection was answered that was opened after the engine had ended, by the loop's clock."""


@dataclass
class Restart:
    """The connections of one restart, and when its phases ended."""

    opened: int = 0
    """To each of the two."""
    answers: dict[str, Answers] = field(default_factory=lambda: {way: Answers() for way in WAYS})
    began: float = 0.0
    """The loop time at which the engine was told to end, in seconds."""
    gone: float = 0.0
    """When it had ended."""
    over: float | None = None
    """When it answered again."""
    last: float = 0.0
    """When the newest failed or late connection was opened."""


async def _answered(client: Namespace, where: tuple[str, int]) -> bool:
    """Whether a new connection is answered at all."""
    loop = asyncio.get_running_loop()
    with client.entered():
        sock = socket.socket()
    with sock, suppress(OSError, TimeoutError):
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(sock, where)
            await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            text = b""
            while not text.endswith(b"up\n") and (part := await loop.sock_recv(sock, 4096)):
                text += part
            return text.endswith(b"up\n")
    return False


async def _count(client: Namespace, found: Restart, way: str, where: tuple[str, int]) -> None:
    loop, answers = asyncio.get_running_loop(), found.answers[way]
    opened = loop.time()
    timer = loop.call_later(LATE, lambda: setattr(found, "last", max(found.last, opened)))
    answered = await _answered(client, where)
    timer.cancel()
    if not answered or loop.time() > opened + LATE:
        answers.failed += not answered
        answers.late += 1
        found.last = max(found.last, opened)
    if answered and 0 < found.gone < opened:
        answers.back = min(answers.back or math.inf, loop.time())


async def restarted(engine: Engine, client: Namespace, vip: str, options: Sequence[str]) -> Restart:
    """Restart the engine once; returns what became of the connections meanwhile and until all are answered in time."""
    loop, found = asyncio.get_running_loop(), Restart()
    targets = {"vip": (vip, 80), "published": (HOST, PUBLISHED)}
    found.last = start = loop.time()
    async with asyncio.TaskGroup() as tasks:

        async def restart() -> None:
            await asyncio.sleep(0.5)
            found.began = loop.time()
            await asyncio.to_thread(engine.end)
            found.gone = loop.time()
            await asyncio.to_thread(engine.start, *options)
            found.over = loop.time()

        tasks.create_task(restart())
        while found.over is None or loop.time() < max(found.over, found.last) + QUIET:
            assert loop.time() < start + LONGEST, f"{found} after {LONGEST} s"
            found.opened += 1
            for way in random.sample(WAYS, 2):
                tasks.create_task(_count(client, found, way, targets[way]))
            await asyncio.sleep(EVERY)
    return found


def _compared(what: str, restarts: Sequence[Restart], count: Callable[[Answers], int]) -> Row:
    opened = sum(each.opened for each in restarts)
    ours, peer = ([count(each.answers[way]) for each in restarts] for way in WAYS)
    # One more on either side: a round without a failure has no ratio.
    _, spread = ratio([each + 1 for each in ours], [each + 1 for each in peer])
    total = sum(ours) / sum(peer) if any(peer) else float(any(ours))
    return Row(what, f"{sum(ours)} of {opened}", f"{sum(peer)} of {opened}", total, spread, "<= 1", total <= 1)


async def _mode(engine: Engine, client: Namespace, worker: Mesh, options: Sequence[str], rounds: int) -> Sequence[Row]:
    restarts = []
    for _ in range(rounds):
        restarts.append(await restarted(engine, client, await worker.vip(), options))
        await worker.serving("web")
    way = (
        f"in {rounds} restarts of the engine {'with' if options else 'without'} live-restore, VIP beside published port"
    )
    rows = [
        _compared(f"failed new connections {way}", restarts, lambda answers: answers.failed),
        _compared(f"failed or late ones {way}", restarts, lambda answers: answers.late),
    ]
    if not options:
        ours, peer = ([each.answers[name].back - each.began for each in restarts] for name in WAYS)
        gone, over = (
            statistics.median(moment - each.began for moment, each in zip(moments, restarts, strict=True))
            for moments in ([each.gone for each in restarts], [each.over or 0.0 for each in restarts])
        )
        text = f"the first answer; the engine was gone after {gone:.2f} s, and answered after {over:.2f} s"
        shown = [f"{statistics.median(seconds):.2f} s" for seconds in (ours, peer)]
        median, spread = ratio(ours, peer)
        rows.append(Row(text, shown[0], shown[1], median, spread, "", met=True))
    return rows


async def measured(engine: Engine, client: Namespace, directory: Path, rounds: int) -> list[Row]:
    """All rows. The engine runs with live-restore when it begins."""
    await engine.adocker("network", "create", "shop")
    options = ("--network", "shop", "-p", f"{PUBLISHED}:80", "--init", "--restart", "always")
    await asyncio.to_thread(engine.run, "web", *options, labels=LABELS)
    async with mesh(engine, directory) as worker:
        await worker.serving("web")
        rows = [*await _mode(engine, client, worker, ("--live-restore",), rounds)]
        await asyncio.to_thread(engine.end)
        await asyncio.to_thread(engine.start)
        await worker.serving("web")
        rows += await _mode(engine, client, worker, (), rounds)
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
