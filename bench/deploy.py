"""Deploys on a Docker engine: failed requests, the time until a container serves and a dead one is out, idle cost.

    PYTHONPATH=. python bench/deploy.py

One engine in a network namespace of its own, the whole daemon with the nftables data plane, and a service of four
containers under constant load: 50 new connections per second, and four at a time whose answer takes two seconds. The
containers are replaced one after another. The peers get the same containers and the same load: HAProxy with its health
check before four fixed addresses, and a plain published port, which leads to one container alone. Needs root.
"""

import asyncio
import itertools
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from deploy_load import Outcome, loaded
from deploy_times import NETWORK, SUBNET, dead, idle, started
from deploy_worker import CHECKED, mesh

from harness import MissingError, Row, main, need, ratio, running, scratch
from mesh.testing.netns import Namespace
from tests.system.docker.engine import Engine, missing

REST = 1.0
"""Seconds; HAProxy asks three times meanwhile."""
SERVICE = tuple(f"web-{number}" for number in range(1, 5))
DRAIN_SIGNAL = ("--stop-signal", "CONT", "--stop-timeout", "25")

HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    option redispatch
    retries 3
listen web
    bind 127.0.0.1:8081
    balance roundrobin
    option httpchk GET /
    default-server check inter 300ms fall 1 rise 1
{servers}
"""

Replace = Callable[[Engine, str], Awaitable[None]]


def run_container(engine: Engine, name: str, *options: str) -> None:
    """One of the service."""
    engine.run(name, "--init", *options, labels=CHECKED)


async def replaced(engine: Engine, count: int, replace: Replace) -> None:
    """So many containers, one after the other, and a second of rest after each."""
    for name in itertools.islice(itertools.cycle(SERVICE), count):
        await replace(engine, name)
        await asyncio.sleep(REST)


async def ours(engine: Engine, directory: Path, count: int, way: str) -> Outcome:
    """A way to stop a container: `vipmesh stop`, by the drain signal, or plain."""
    options = DRAIN_SIGNAL if way == "signal" else ()
    for name in SERVICE:
        await asyncio.to_thread(run_container, engine, name, *options)
    async with mesh(engine, directory) as worker:
        await worker.serving(*SERVICE)

        async def replace(engine: Engine, name: str) -> None:
            if way == "verb":
                await worker.vipmesh("stop", name)
            else:
                await engine.adocker("stop", name)
            await engine.adocker("rm", name)
            await asyncio.to_thread(run_container, engine, name, *options)
            await worker.serving(*SERVICE)

        async with loaded(engine, await worker.vip(), 80) as outcome:
            await replaced(engine, count, replace)
    await asyncio.to_thread(engine.remove_all)
    return outcome


async def haproxy(engine: Engine, directory: Path, count: int) -> Outcome:
    """Plain `docker stop` behind HAProxy, which asks every 300 ms and tries another server when one refuses."""
    program = need("haproxy", "haproxy")
    await engine.adocker("network", "create", "--subnet", SUBNET, NETWORK)
    addresses = {name: SUBNET.replace(".0/24", f".{number}") for number, name in enumerate(SERVICE, 11)}
    for name, address in addresses.items():
        await asyncio.to_thread(run_container, engine, name, "--network", NETWORK, "--ip", address)
    configuration = directory / "haproxy.cfg"
    servers = "\n".join(f"    server {name} {address}:80" for name, address in addresses.items())
    configuration.write_text(HAPROXY.format(servers=servers))

    async def replace(engine: Engine, name: str) -> None:
        await engine.adocker("stop", name)
        await engine.adocker("rm", name)
        await asyncio.to_thread(run_container, engine, name, "--network", NETWORK, "--ip", addresses[name])

    with running(*engine.inside, program, "-q", "-db", "-f", str(configuration)) as proxy:
        await asyncio.sleep(1)
        assert proxy.poll() is None
        async with loaded(engine, "127.0.0.1", 8081) as outcome:
            await replaced(engine, count, replace)
    await asyncio.to_thread(engine.remove_all)
    return outcome


async def published(engine: Engine, count: int) -> Outcome:
    """One container behind a port that Docker publishes, which the next one takes over."""
    options = ("-p", "8082:80")
    await asyncio.to_thread(run_container, engine, "web-1", *options)
    await asyncio.sleep(1)
    async with loaded(engine, "172.29.0.1", 8082) as outcome:
        for _ in range(count):
            await engine.adocker("stop", "web-1")
            await engine.adocker("rm", "web-1")
            await asyncio.to_thread(run_container, engine, "web-1", *options)
            await asyncio.sleep(REST)
    await asyncio.to_thread(engine.remove_all)
    return outcome


def row(way: str, ours: Outcome, peer: Outcome, name: str, goal: float | None) -> Row:
    """Failures in so many requests; the ratio is that of the parts that failed."""
    parts = [outcome.failed / max(1, outcome.asked) for outcome in (ours, peer)]
    beside = parts[0] / parts[1] if parts[1] else float(parts[0] > 0)
    met = goal is None or ours.failed <= goal
    text = f"failed requests, {way}, beside {name}"
    return Row(text, str(ours), str(peer), beside, "-", "-" if goal is None else f"{goal:g}", met)


async def failures(engine: Engine, directory: Path, count: int) -> list[Row]:
    """Rolling replacements, way by way."""
    peers = {"HAProxy": await haproxy(engine, directory, count), "a published port": await published(engine, count)}
    rows = []
    for way, text, goal in (
        ("verb", f"{count} replacements by vipmesh stop", 0.0),
        ("signal", f"{count} replacements by docker stop with the drain signal", 0.0),
        ("plain", f"{count} replacements by plain docker stop", None),
    ):
        outcome = await ours(engine, directory, count, way)
        rows += [row(text, outcome, peer, name, goal) for name, peer in peers.items()]
    return rows


def times(what: str, found: Sequence[float], beside: Sequence[float]) -> Row:
    """Milliseconds: the median, and the longest, which stands for p99."""
    text, other = (
        f"p50 {statistics.median(part) * 1e3:.0f} ms, longest {max(part) * 1e3:.0f} ms" for part in (found, beside)
    )
    middle, spread = ratio(found, beside)
    return Row(what, text, other, middle, spread, "-", True)


async def measured(engine: Engine, directory: Path, quick: bool) -> list[Row]:
    """All rows."""
    rows = await failures(engine, directory, 4 if quick else 50)
    turns = 4 if quick else 20
    async with mesh(engine, directory) as worker:
        through, direct = await started(engine, worker, turns)
        rows.append(times("docker run to the first answer through the VIP, beside its own address", through, direct))
        last, window = await dead(engine, worker, turns)
        rows.append(
            times("docker kill to the last connection that failed, beside the end of docker kill", last, window)
        )
    rows.append(await idle(engine, directory, 20 if quick else 200))
    return rows


def run(quick: bool) -> Sequence[Row]:
    """All rows, on an engine that is gone afterwards."""
    if reason := missing():
        raise MissingError(reason)
    with scratch() as directory:
        namespace = Namespace()
        namespace.ip("link set lo up")
        engine = Engine(namespace)  # closes it
        try:
            engine.start()
            engine.import_image()
            return asyncio.run(measured(engine, directory, quick))
        finally:
            engine.close()


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
