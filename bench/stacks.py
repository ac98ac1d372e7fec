"""Stacks on three engines in one swarm, beside Docker's own `stack deploy` and published ports.

    PYTHONPATH=. python bench/stacks.py

Three real engines, etcd and three daemons in network namespaces (`tests/system/docker/fleet_lab.py`).

- Deploy: 10 services of 3 instances, images present, from the start of the command until every service answers on its
  published port of every host. The peer publishes with `mode: host`: ports of the ingress network need IPVS.
- Worker cut: a host that does not lead the swarm is cut off. Ours is the time until as many instances serve by their
  probe on the other hosts, as a daemon says it, the peer's the time until the engine says that as many run there. Both
  are asked at the same time, of the same cut, and neither waits for the other.
- Failed requests: short ones (one request each) and long ones (two seconds) at the VIP, during a rolling deploy and
  while the number goes up and down; the peer's are at a port that Docker publishes, during `docker service update`.
- The rows of `bench/stacks_scale.py`, which need no engine.

A row that fails says why, and costs no other. Needs root, dockerd and etcd.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import aiohttp
from rows import FAILURES, RowBudget, reason_of, unmeasured
from stacks_scale import plan_row, ps_row

from harness import MissingError, Row, main, ratio, scratch
from mesh.platform.fleet.swarm import SwarmFleet
from tests.system.docker.fleet_lab import FleetLab, FleetWorker, lacking
from tests.system.docker.worker import Outcome, load

SERVICES, INSTANCES, PORT, PEER_PORT = 10, 3, 30080, 31080
ROW_LIMIT, LIMIT = (300.0, 900.0), (1200.0, 4000.0)
"""Seconds of one row and of all on engines: with `--quick`, and without."""
CUT_INSTANCES = 6
DEPLOY = f"deploy of {SERVICES} services x {INSTANCES} on three nodes, beside `docker stack deploy`"
CUT = (
    f"a worker is cut off: until {CUT_INSTANCES} instances serve elsewhere, beside until the engine has as many running"
)
ROLLING = "failed requests of a rolling deploy, beside `docker service update` of a published port"
SCALING = "failed requests of a scale from 3 to 6 and back"
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
    """Return the seconds from `began` until an asynchronous condition holds. The row's time bounds it."""
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


async def output(*command: str) -> str:
    """Return what a command prints. It ends with the row that it is of. Raises `RuntimeError` if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        # The last line has the reason: above it are steps, or where a program was.
        raise RuntimeError(printed.decode(errors="replace").strip().rpartition("\n")[2])
    return printed.decode()


async def docker(worker: FleetWorker, *arguments: str) -> str:
    """Return the output of a docker command. Raises `RuntimeError`."""
    return await output(*worker.engine.command(*arguments))


async def vipmesh(worker: FleetWorker, *line: str) -> str:
    """Return the output of a verb. Raises `RuntimeError`."""
    return await output(*worker.command(*line))


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
            tasks.create_task(vipmesh(first, "deploy", "--wait", "200", file))
            ours.append(await until_all_answer(lab, PORT, SERVICES, began))
        await vipmesh(first, "undeploy", "bench", "--wait", "200")
        await until_empty(lab)
        file = write_peer(directory / "peer.yaml", SERVICES)
        began = time.monotonic()
        await docker(first, "stack", "deploy", "--resolve-image", "never", "-c", file, "peer")
        peer.append(await until_all_answer(lab, PEER_PORT, SERVICES, began))
        await docker(first, "stack", "rm", "peer")
        await until_empty(lab)
    times, spread = ratio(ours, peer)
    return Row(DEPLOY, seconds(ours), seconds(peer), times, spread, "<= 1.3", times <= 1.3)


def seconds(values: Sequence[float]) -> str:
    """The median in seconds."""
    return f"{sorted(values)[len(values) // 2]:.1f} s"


async def serving(worker: FleetWorker, lost: str) -> int:
    """Return how many instances serve on other workers than the lost one, as a daemon sees it."""
    connector = aiohttp.UnixConnector(worker.admin.removeprefix("unix://"))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://w/v1/status") as response:
        status = await response.json()
    return sum(
        endpoint["serving"] and endpoint["worker"] != lost
        for service in status["services"]
        for endpoint in service["endpoints"]
    )


async def cut_row(lab: FleetLab, directory: Path, rounds: int) -> Row:
    """Return the row of a worker that is cut off."""
    first, wanted, ours, peer = lab.workers[1], CUT_INSTANCES, list[float](), list[float]()
    await vipmesh(first, "deploy", "--wait", "200", write(directory / "cut.yaml", 1, wanted))
    fleet = SwarmFleet(first.engine.url)
    for _ in range(rounds):
        await lab.whole()
        lost = 2 if await lab.leader(1) == 3 else 3
        gone = next(each.id for each in await fleet.workers() if each.name == f"w{lost}")

        async def all_run(gone: str = gone) -> bool:
            tasks = await fleet.tasks()
            return sum(t.desired == t.state == "running" and t.worker_id != gone for t in tasks) >= wanted

        async def all_serve(lost: str = f"w{lost}") -> bool:
            return await serving(first, lost) >= wanted

        lab.cut(lost)
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            served = tasks.create_task(until(all_serve, began))
            ran = tasks.create_task(until(all_run, began))
        ours.append(served.result())
        peer.append(ran.result())
        lab.heal(lost)
        await lab.whole()
        # An instance of another number and back: the returned host has none else.
        for number in (wanted + 2, wanted):
            await vipmesh(first, "scale", f"s0={number}", "--wait", "200")
    await vipmesh(first, "undeploy", "bench", "--wait", "200")
    times, spread = ratio(ours, peer)
    return Row(CUT, seconds(ours), seconds(peer), times, spread, "<= 1.2", times <= 1.2)


async def rolling_row(lab: FleetLab, directory: Path, rate: int, long: int) -> Row:
    """Return the row of failed requests while a release replaces another one."""
    first = lab.workers[1]
    await vipmesh(first, "deploy", "--wait", "200", write(directory / "load.yaml", 1))
    vip = await first.vip("s0.bench.test")
    async with load(first.prefix, vip, rate=rate, long=long, patience=30) as rolled:
        await vipmesh(first, "deploy", "--wait", "200", write(directory / "load.yaml", 1, level=2))
    await vipmesh(first, "undeploy", "bench", "--wait", "200")
    await docker(
        *(first, "service", "create", "--detach=false", "--no-resolve-image", "--name", "peer", "--replicas", "3"),
        *("--publish", f"mode=host,target=80,published={PEER_PORT}", "test_service"),
    )
    async with load(first.prefix, first.address, PEER_PORT, rate=rate, long=long, patience=30) as updated:
        await docker(first, "service", "update", "--detach=false", "--no-resolve-image", "--env-add", "L=2", "peer")
    await docker(first, "service", "rm", "peer")
    return failed_row(ROLLING, rolled, updated)


async def scaling_row(lab: FleetLab, directory: Path, rate: int, long: int) -> Row:
    """Return the row of failed requests while the number goes up and down."""
    first = lab.workers[1]
    await vipmesh(first, "deploy", "--wait", "200", write(directory / "load.yaml", 1))
    vip = await first.vip("s0.bench.test")
    async with load(first.prefix, vip, rate=rate, long=long, patience=30) as scaled:
        for number in (6, 3):
            await vipmesh(first, "scale", f"s0={number}", "--wait", "200")
    await vipmesh(first, "undeploy", "bench", "--wait", "200")
    return failed_row(SCALING, scaled, None)


def failed_row(bench: str, ours: Outcome, peer: Outcome | None) -> Row:
    """Return the row of what failed: the number is in place of a ratio."""
    return Row(
        bench, failed(ours), "-" if peer is None else failed(peer), len(ours.failures), "-", "0", not ours.failures
    )


def failed(outcome: Outcome) -> str:
    """Return `0 of 1234 short, 0 of 20 long`."""
    counts = ((kind, sum(f" {kind}: " in each for each in outcome.failures)) for kind in ("short", "long"))
    return ", ".join(f"{count} of {outcome.done.get(kind, 0)} {kind}" for kind, count in counts)


async def clean(lab: FleetLab) -> None:
    """Remove what a row has left that failed: all services of the swarm, whoever made them."""
    for number in lab.workers:
        lab.heal(number)
    await lab.whole()
    if services := (await docker(lab.workers[1], "service", "ls", "-q")).split():
        await docker(lab.workers[1], "service", "rm", *services)
    await until_empty(lab)


async def lab_rows(lab: FleetLab, directory: Path, *, quick: bool) -> Sequence[Row]:
    """Return the rows that need engines, each measured on its own."""
    rounds, rate, long = (1, 60, 6) if quick else (5, 200, 20)
    rows: list[Row] = []
    works: Sequence[tuple[str, str, Callable[[], Awaitable[Row]]]] = (
        (DEPLOY, "<= 1.3", partial(deploy_row, lab, directory, rounds)),
        (CUT, "<= 1.2", partial(cut_row, lab, directory, rounds)),
        (ROLLING, "0", partial(rolling_row, lab, directory, rate, long)),
        (SCALING, "0", partial(scaling_row, lab, directory, rate, long)),
    )
    budget = RowBudget(ROW_LIMIT[not quick], LIMIT[not quick])
    for bench, goal, work in works:

        async def whole(work: Callable[[], Awaitable[Row]] = work) -> Sequence[Row]:
            await lab.whole()
            return [await work()]

        rows += await budget.measure(bench, goal, whole, partial(clean, lab))
    return rows


def run(quick: bool) -> Sequence[Row]:
    """`quick`: one round on engines, else five."""
    if reason := lacking():
        raise MissingError(f"this bench runs three engines: {reason}; bench/stacks_scale.py needs none")
    rows = [plan_row(quick), ps_row(quick)]
    try:
        with scratch() as directory:
            lab = FleetLab(directory)
            with lab.running():
                rows += asyncio.run(lab_rows(lab, directory, quick=quick))
    except FAILURES as error:
        rows.append(unmeasured("the rows on three engines", "all", reason_of(error)))
    return rows


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
