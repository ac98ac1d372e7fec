"""How the cost of stacks grows: the plan of a large one beside a small one, and `ps` of 200 tasks beside `status`.

The plan is what a deploy computes between two answers of the engine: the files' project to what is wanted, what runs,
the difference, the zones and the next steps of each service. `status` and `ps` ask the same admin API, of a worker with
200 endpoints, which asks for `ps` a server that answers as the engine of a manager does, with 20 services of 10 tasks.

    PYTHONPATH=. python bench/stacks_scale.py

needs no engine; `bench/stacks.py` has these rows, too.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from aiohttp import web
from status import api, piped

from harness import Row, main, ratio, scratch
from mesh.api.stack_readiness import SnapshotReadiness
from mesh.control.snapshot import WorkerSnapshot
from mesh.platform.fleet.encode import encode_spec
from mesh.platform.fleet.protocol import FleetService, FleetSpec, FleetTask, FleetWorker
from mesh.platform.fleet.swarm import SwarmFleet
from mesh.platform.stacks.differ import diff_stack
from mesh.platform.stacks.model import Desired, Stack, StackSite
from mesh.platform.stacks.operations import StackOperations
from mesh.platform.stacks.placing import zone_problems
from mesh.platform.stacks.rollout import next_round
from mesh.platform.stacks.running import EndpointAnswer, read_running
from mesh.platform.stacks.stack import read_stack
from mesh.platform.stacks.translate import translate
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import ComposeLimits
from mesh.testing.fleet import fake_worker
from mesh.testing.store import MemoryCluster, MemoryStore

TASKS = 10
"""Instances of each service."""
SERVICE = """
  s{number}:
    image: shop/server:1
    environment: ["availability:az==3", "constraint:disk==ssd", "LEVEL=1"]
    labels:
      mesh.routing.port_80: s{number}.shop.test
      mesh.scale: "{tasks}"
      mesh.probe.url: http://container:80/
"""
SITE = StackSite(("10.112.0.1",), "mesh.internal", 15.0)


def read(directory: Path, services: int) -> Stack:
    """Return the stack of a file with so many services."""
    file = directory / f"{services}.yaml"
    file.write_text("name: shop\nservices:" + "".join(SERVICE.format(number=n, tasks=TASKS) for n in range(services)))
    content = load_compose_project([file], {}, ComposeLimits()).content
    return read_stack(content, "shop", {name: {} for name in content.services}, "mesh.internal", str(directory))


def running(specs: Sequence[FleetSpec], workers: Sequence[FleetWorker]) -> tuple[list[FleetService], list[FleetTask]]:
    """Return the services and their tasks as an engine has them, evenly over the workers."""
    services = [FleetService(f"id-{n}", 1, spec, 0.0, 0.0, ()) for n, spec in enumerate(specs)]
    tasks = [
        FleetTask(
            f"t{n}-{slot}",
            each.id,
            slot,
            workers[(n * TASKS + slot) % len(workers)].id,
            *("running", "running", "", f"c{n}-{slot}", None, 0.0),
        )
        for n, each in enumerate(services)
        for slot in range(1, TASKS + 1)
    ]
    return services, tasks


class Fleet:
    """A stack that runs in its release before, and the workers."""

    def __init__(self, directory: Path, services: int, workers: int) -> None:
        self._stack = read(directory, services)
        self._workers = [
            fake_worker(f"w{n}", labels={"az": f"z{n % 3}", "disk": "ssd"}, is_leader=n == 0) for n in range(workers)
        ]
        self._services, self._tasks = running([each.spec for each in self._wanted().services], self._workers)
        self._answers = {task.id: EndpointAnswer(True, "healthy") for task in self._tasks}

    def _wanted(self, image: str = "shop/server:1") -> Desired:
        return translate(self._stack, {"shop/server:1": image}, SITE, {})

    def plan(self) -> None:
        """Plan the deploy of another image."""
        desired = self._wanted("shop/server:1@sha256:" + "a" * 64)
        problems = zone_problems(desired, self._workers)
        seen = read_running("shop", self._services, self._tasks, self._answers)
        changes = list(diff_stack(desired, seen, prune=False).lines())
        steps = [next_round(target, seen.of(target.name), seen.taken).steps for target in desired.services]
        if problems or not changes or not all(steps):
            raise AssertionError(f"the plan is wrong: {problems[:1]} {changes[:1]} {steps[:1]}")


def plan_row(quick: bool) -> Row:
    """Return the row of the plan."""
    with scratch() as directory:
        large, small = Fleet(directory, 500, 100), Fleet(directory, 50, 10)
        ours, peer = [], []
        for _ in range(5 if quick else 15):
            peer.append(timed(small))
            ours.append(timed(large))
    times, spread = ratio(ours, peer)
    bench = f"plan of 500 services x {TASKS} on 100 nodes, beside 50 x {TASKS} on 10"
    return Row(bench, text(ours), text(peer), times, spread, "<= 15", times <= 15)


def timed(fleet: Fleet) -> float:
    """Seconds of CPU time of one plan."""
    began = time.process_time()
    fleet.plan()
    return time.process_time() - began


def text(seconds: Sequence[float]) -> str:
    """The median in milliseconds."""
    return f"{statistics.median(seconds) * 1000:.0f} ms"


@contextmanager
def engine(directory: Path, services: int) -> Iterator[str]:
    """What answers as the engine of a manager does, in a thread of its own; its address."""
    stack = read(directory, services)
    workers = [fake_worker(f"w{n}") for n in range(3)]
    found, tasks = running([each.spec for each in translate(stack, {}, SITE, {}).services], workers)
    answers: dict[str, Any] = {
        "/version": {"ApiVersion": "1.41", "MinAPIVersion": "1.12"},
        "info": {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True, "NodeID": "w0-id"}},
        "services": [{"ID": each.id, "Version": {"Index": 1}, "Spec": encode_spec(each.spec)} for each in found],
        "nodes": [
            {
                "ID": each.id,
                "Version": {"Index": 1},
                "Description": {"Hostname": each.name},
                "Status": {"State": "ready"},
            }
            for each in workers
        ],
        "tasks": [
            {
                "ID": task.id,
                "ServiceID": task.service_id,
                "Slot": task.slot,
                "NodeID": task.worker_id,
                "DesiredState": "running",
                "Spec": encode_spec(next(each.spec for each in found if each.id == task.service_id))["TaskTemplate"],
                "Status": {"State": "running", "Timestamp": "2026-11-30T23:18:29.358883838Z"},
            }
            for task in tasks
        ],
    }

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(answers.get(request.path, answers.get(request.path.rpartition("/")[2])))

    ready, over, loops = Event(), asyncio.Event(), list[asyncio.AbstractEventLoop]()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, f"{directory}/engine.sock").start()
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield f"unix://{directory}/engine.sock"
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join()


def daemon(directory: Path, services: int, socket: str) -> AbstractContextManager[str]:
    """The admin API of a worker with that engine; its address."""

    def stacks(observe: Callable[[], WorkerSnapshot]) -> StackOperations:
        return StackOperations(SwarmFleet(socket), SnapshotReadiness(observe), MemoryStore(MemoryCluster(), "w1"))

    return api(directory, services, TASKS, stacks)


def ps_row(quick: bool) -> Row:
    """Return the row of `ps`."""
    services = 20
    with scratch() as directory, engine(directory, services) as socket, daemon(directory, services, socket) as admin:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment |= {
            "PYTHONPYCACHEPREFIX": f"{directory}/bytecode",
            "VIPMESH_SOURCE_DOCKER_SOCKET": socket,
        }
        verbs = {verb: (sys.executable, "-m", "mesh", verb, "--admin", admin) for verb in ("ps", "status")}
        for command in verbs.values():
            piped(environment, *command)
        ours, peer = [], []
        for _ in range(7 if quick else 25):
            peer.append(piped(environment, *verbs["status"]))
            ours.append(piped(environment, *verbs["ps"]))
    times, spread = ratio(ours, peer)
    bench = f"`ps` of {services * TASKS} tasks, beside `status` of as many endpoints"
    return Row(bench, text(ours), text(peer), times, spread, "<= 1.5", times <= 1.5)


def run(quick: bool) -> Sequence[Row]:
    """`quick`: fewer rounds."""
    return [plan_row(quick), ps_row(quick)]


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
