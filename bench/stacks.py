"""Stacks on three engines in one swarm, beside Docker's own `stack deploy` and published ports.

    PYTHONPATH=. python bench/stacks.py

Three real engines, etcd and three daemons in network namespaces (`tests/system/docker/fleet_lab.py`).

- Deploy: 10 services of 3 instances, images present, from the start of the command until every service answers on its
  published port of every host. The peer publishes with `mode: host`: ports of the ingress network need IPVS.
- Worker cut: a host that does not lead the swarm is cut off. Ours is the time until all instances serve by their
  probe again, the peer's the time until the engine has as many running elsewhere, of the same cut.
- Failed requests: short ones (one request each) and long ones (two seconds) at the VIP, during a rolling deploy and
  while the number goes up and down; the peer's are at a port that Docker publishes, during `docker service update`.
- The rows of `bench/stacks_scale.py`.

Needs root, dockerd and etcd.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
from stacks_scale import plan_row, ps_row

from harness import MissingError, Row, main, ratio, scratch
from mesh.platform.fleet.swarm import SwarmFleet
from tests.system.docker.fleet_lab import FleetLab, FleetWorker, lacking
from tests.system.docker.worker import Outcome, load
from tests.system.e2e.programs import call

SERVICES, INSTANCES, PORT, PEER_PORT = 10, 3, 30080, 31080
LIMIT = 300.0
OURS = """
  s{n}:
    image: test_service
    labels:
      mesh.routing.port_80: s{n}.bench.test
      mesh.routing.publish.port_80: "{port}"
      mesh.scale: "{instances}"
      mesh.probe.url: http://container:80/
    environment: ["LEVEL={level}"]
"""
THEIRS = """
  s{n}:
    image: test_service
    ports: [{{target: 80, published: {port}, mode: host}}]
    deploy: {{replicas: {instances}}}
"""


def write(path: Path, services: int, instances: int = INSTANCES, level: int = 1) -> str:
    """Write our file, and return its path."""
    body = (OURS.format(n=n, port=PORT + n, instances=instances, level=level) for n in range(services))
    path.write_text("name: bench\nservices:" + "".join(body))
    return str(path)


def write_peer(path: Path, services: int) -> str:
    """Write the peer's file, and return its path."""
    body = (THEIRS.format(n=n, port=PEER_PORT + n, instances=INSTANCES) for n in range(services))
    path.write_text('version: "3.8"\nservices:' + "".join(body))
    return str(path)


async def until(holds: Callable[[], Awaitable[bool]], began: float) -> float:
    """Return the seconds from `began` until an asynchronous condition holds."""
    async with asyncio.timeout(LIMIT):
        while not await holds():
            await asyncio.sleep(0.1)
    return time.monotonic() - began


async def answers(lab: FleetLab, address: str, port: int) -> bool:
    """Whether a web server answers there, asked from another host."""
    sock = lab.client_socket()
    try:
        async with asyncio.timeout(2):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            return bool(await asyncio.get_running_loop().sock_recv(sock, 16))
    except (OSError, TimeoutError):
        return False
    finally:
        sock.close()


async def until_all_answer(lab: FleetLab, first_port: int, services: int, began: float) -> float:
    """Return the seconds until each port answers on each host."""
    left = {(worker.address, first_port + n) for worker in lab.workers.values() for n in range(services)}

    async def none_is_left() -> bool:
        for place in sorted(left):
            if await answers(lab, *place):
                left.discard(place)
        return not left

    return await until(none_is_left, began)


async def docker(worker: FleetWorker, *arguments: str) -> str:
    """Return the output of a docker command. Raises `RuntimeError`."""
    status, output = await call(*worker.engine.command(*arguments), seconds=LIMIT)
    if status:
        raise RuntimeError(output)
    return output


async def until_empty(lab: FleetLab) -> None:
    """Wait until no container runs on any host."""

    async def is_empty() -> bool:
        return not any([await lab.containers(number) for number in lab.workers])

    await until(is_empty, time.monotonic())


async def deploy_row(lab: FleetLab, directory: Path, rounds: int) -> Row:
    """Return the row of the first deploy."""
    first, ours, peer = lab.workers[1], list[float](), list[float]()
    for _ in range(rounds):
        file = write(directory / "ours.yaml", SERVICES)
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.vipmesh("deploy", "--wait", "200", file))
            ours.append(await until_all_answer(lab, PORT, SERVICES, began))
        await first.vipmesh("undeploy", "bench", "--wait", "200")
        await until_empty(lab)
        file = write_peer(directory / "peer.yaml", SERVICES)
        began = time.monotonic()
        await docker(first, "stack", "deploy", "--resolve-image", "never", "-c", file, "peer")
        peer.append(await until_all_answer(lab, PEER_PORT, SERVICES, began))
        await docker(first, "stack", "rm", "peer")
        await until_empty(lab)
    times, spread = ratio(ours, peer)
    bench = f"deploy of {SERVICES} services x {INSTANCES} on three nodes, beside `docker stack deploy`"
    return Row(bench, seconds(ours), seconds(peer), times, spread, "<= 1.3", times <= 1.3)


def seconds(values: Sequence[float]) -> str:
    """The median in seconds."""
    return f"{sorted(values)[len(values) // 2]:.1f} s"


async def serving(worker: FleetWorker) -> frozenset[str]:
    """Return the tasks that serve, as a daemon sees it."""
    connector = aiohttp.UnixConnector(worker.admin.removeprefix("unix://"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://w/v1/status") as response:
        status = await response.json()
    return frozenset(
        endpoint["name"].rpartition(".")[2]
        for service in status["services"]
        for endpoint in service["endpoints"]
        if endpoint["serving"] and endpoint["name"]
    )


async def cut_row(lab: FleetLab, directory: Path, rounds: int) -> Row:
    """Return the row of a worker that is cut off."""
    first, wanted, ours, peer = lab.workers[1], 6, list[float](), list[float]()
    await first.vipmesh("deploy", "--wait", "200", write(directory / "cut.yaml", 1, wanted))
    fleet = SwarmFleet(first.engine.url)
    for _ in range(rounds):
        await lab.whole()
        lost = 2 if await lab.leader(1) == 3 else 3
        gone = next(each.id for each in await fleet.workers() if each.name == f"w{lost}")

        async def running(gone: str = gone) -> frozenset[str]:
            found = (t for t in await fleet.tasks() if t.desired == t.state == "running" and t.worker_id != gone)
            return frozenset(task.id for task in found)

        async def all_run() -> bool:
            return len(await running()) >= wanted

        async def all_serve() -> bool:
            return len(await running() & await serving(first)) >= wanted

        lab.cut(lost)
        began = time.monotonic()
        peer.append(await until(all_run, began))
        ours.append(await until(all_serve, began))
        lab.heal(lost)
        await lab.whole()
        # An instance of another number and back: the returned host has none else.
        for number in (wanted + 2, wanted):
            await first.vipmesh("scale", f"s0={number}", "--wait", "200")
    await first.vipmesh("undeploy", "bench", "--wait", "200")
    times, spread = ratio(ours, peer)
    bench = f"a worker is cut off: until {wanted} instances serve, beside until the engine has as many running"
    return Row(bench, seconds(ours), seconds(peer), times, spread, "<= 1.2", times <= 1.2)


async def request_rows(lab: FleetLab, directory: Path, *, quick: bool) -> Sequence[Row]:
    """Return the rows of failed requests."""
    rate, long = (60, 6) if quick else (200, 20)
    first = lab.workers[1]

    async def deploy(level: int) -> None:
        await first.vipmesh("deploy", "--wait", "200", write(directory / "load.yaml", 1, INSTANCES, level))

    await deploy(1)
    vip = await first.vip("s0.bench.test")
    async with load(first.prefix, vip, rate=rate, long=long, patience=30) as rolled:
        await deploy(2)
    async with load(first.prefix, vip, rate=rate, long=long, patience=30) as scaled:
        for number in (6, 3):
            await first.vipmesh("scale", f"s0={number}", "--wait", "200")
    await first.vipmesh("undeploy", "bench", "--wait", "200")
    await docker(
        *(first, "service", "create", "--detach=false", "--no-resolve-image", "--name", "peer", "--replicas", "3"),
        *("--publish", f"mode=host,target=80,published={PEER_PORT}", "test_service"),
    )
    async with load(first.prefix, first.address, PEER_PORT, rate=rate, long=long, patience=30) as updated:
        await docker(first, "service", "update", "--detach=false", "--no-resolve-image", "--env-add", "L=2", "peer")
    await docker(first, "service", "rm", "peer")
    return [
        failed_row(
            "failed requests of a rolling deploy, beside `docker service update` of a published port", rolled, updated
        ),
        failed_row("failed requests of a scale from 3 to 6 and back", scaled, None),
    ]


def failed_row(bench: str, ours: Outcome, peer: Outcome | None) -> Row:
    """Return the row of what failed: the number is in place of a ratio."""
    return Row(
        bench, failed(ours), "-" if peer is None else failed(peer), len(ours.failures), "-", "0", not ours.failures
    )


def failed(outcome: Outcome) -> str:
    """Return `0 of 1234 short, 0 of 20 long`."""
    counts = ((kind, sum(f" {kind}: " in each for each in outcome.failures)) for kind in ("short", "long"))
    return ", ".join(f"{count} of {outcome.done.get(kind, 0)} {kind}" for kind, count in counts)


async def lab_rows(lab: FleetLab, directory: Path, *, quick: bool) -> Sequence[Row]:
    """Return the rows that need engines."""
    await lab.whole()
    return [
        await deploy_row(lab, directory, 1 if quick else 5),
        await cut_row(lab, directory, 1 if quick else 5),
        *await request_rows(lab, directory, quick=quick),
    ]


def run(quick: bool) -> Sequence[Row]:
    """`quick`: one round on engines, else five."""
    if reason := lacking():
        raise MissingError(f"this bench runs three engines: {reason}")
    rows = [plan_row(quick), ps_row(quick)]
    with scratch() as directory:
        lab = FleetLab(directory)
        with lab.running():
            rows += asyncio.run(lab_rows(lab, directory, quick=quick))
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
