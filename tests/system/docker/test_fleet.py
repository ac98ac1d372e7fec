"""Stacks on three real engines in one swarm, with etcd and three daemons: what happens when parts of it fail.

The tests share one lab; each begins with a whole one, in which four instances serve.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.docker.fleet_lab import PATIENCE, FleetLab, FleetWorker, failed_after, fleet_lab
from tests.system.e2e.programs import eventually

pytestmark = pytest.mark.timeout(900)

NAME = "restserver.local"
FILE = """
name: shop
services:
  server:
    image: %s
    environment: ["availability:az==3", "LEVEL=%s"]
    labels:
      aliyun.routing.port_80: restserver.local
      aliyun.scale: "%s"
      aliyun.probe.url: http://container:80
      aliyun.probe.interval_seconds: "2"
      aliyun.probe.timeout_seconds: "2"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetLab]:
    with fleet_lab(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., str]:
    """Writes the file of the stack, and returns its path."""

    def write(scale: int = 4, level: int = 1, image: str = "test_service") -> str:
        file = tmp_path / "shop.yaml"
        file.write_text(FILE % (image, level, scale))
        return str(file)

    return write


@pytest.fixture
async def deployed(lab: FleetLab, shop: Callable[..., str]) -> FleetWorker:
    """The first worker, with four instances that serve, whatever the test before has left."""
    first = lab.workers[1]
    for number in lab.workers:
        lab.heal(number)
    await lab.whole()
    await first.vipmesh("deploy", "--wait", str(PATIENCE), shop())
    return first


async def healthy(worker: FleetWorker, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the service as the engine has it, once that holds."""
    return await eventually(lambda: worker.service("server"), holds, PATIENCE)


async def serving(worker: FleetWorker, holds: Callable[[list[str]], bool]) -> list[str]:
    return await eventually(lambda: worker.serving(NAME), holds, PATIENCE)


async def test_instances_of_a_lost_worker_start_elsewhere_and_end_there_when_it_returns(
    lab: FleetLab, deployed: FleetWorker
) -> None:
    spread = await deployed.service("server")
    assert sorted(spread["workers"]) == ["w1", "w2", "w3"], "one zone each"
    lost = 2 if await lab.leader(1) == 3 else 3
    async with deployed.load(NAME) as outcome:
        lab.cut(lost)
        cut = time.time()
        moved = await healthy(deployed, lambda now: now["serving"] == 4 and f"w{lost}" not in now["workers"])
        assert moved["desired"] == 4
        assert len(await lab.containers(lost)) == spread["workers"][f"w{lost}"]
        lab.heal(lost)
        healed = time.time()
        await lab.whole()
        await eventually(lab.all_containers, lambda now: len(now) == 4, PATIENCE)
        await serving(deployed, lambda now: len(now) == 4)
    assert failed_after(outcome, cut) == [], f"healed after {healed - cut:.1f} s"
    assert outcome.done["short"] > 100
    told = await deployed.vipmesh("events", NAME, "--since", "1h")
    assert f"on w{lost} is gone" in told, "the surplus is reported"


async def test_a_deploy_that_fails_or_is_interrupted_leaves_the_old_release_serving(
    lab: FleetLab, deployed: FleetWorker, shop: Callable[..., str]
) -> None:
    async with deployed.load(NAME, long=2) as outcome:
        told = await deployed.vipmesh("deploy", "--wait", "12", shop(image="registry.invalid/absent:1"), status=1)
        assert "server: 0 of 4 ready" in told
        assert "No such image: registry.invalid/absent:1" in told
        assert len(await deployed.serving(NAME)) == 4, "the old release, whole"

        await interrupted_deploy(deployed, shop(level=2))
        assert len(await deployed.serving(NAME)) >= 4
        assert "all is ready" in await deployed.vipmesh("deploy", "--wait", str(PATIENCE), shop(level=2))
        listed = (await deployed.document("ps"))["services"]
        assert [(each["desired"], each["serving"], each["outside"]) for each in listed] == [(4, 4, [])]

        # Another worker's engine is a manager, too.
        engine = lab.workers[2].engine
        name = await engine.adocker("service", "ls", "--format", "{{.Name}}")
        await engine.adocker("service", "update", "--detach", "--container-label-add", "tier=gold", name)
        (drifted,) = (await deployed.document("ps"))["services"]
        assert drifted["outside"]
        assert "changed outside vipmesh" in await lab.workers[3].vipmesh("ps")
    assert outcome.failures == []
    assert outcome.done["long"] > 5


async def interrupted_deploy(worker: FleetWorker, file: str) -> None:
    """Type Ctrl-C after the first instance of a new release has been started."""
    process = await asyncio.create_subprocess_exec(
        *worker.command("deploy", file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while b"start release" not in (line := await process.stdout.readline()):
            assert line, "it ends before it has started a release"
        process.send_signal(signal.SIGINT)
        told = (await process.communicate())[0].decode()
    assert process.returncode == 130, told
    assert "VM931" in told


async def test_a_lost_leader_is_replaced_and_without_a_quorum_routing_goes_on(
    lab: FleetLab, deployed: FleetWorker
) -> None:
    leader = await lab.leader(1)
    other, stays = (lab.workers[number] for number in lab.workers if number != leader)
    async with stays.load(NAME) as outcome:
        lab.cut(leader)
        first_cut = time.time()
        await healthy(stays, lambda now: now.get("serving") == 4 and f"w{leader}" not in now["workers"])

        lab.cut(other.number)
        second_cut = time.time()
        await serving(stays, lambda now: set(now) == {stays.name})
        # A leader that is left alone answers for some seconds.
        await eventually(lambda: stays.vipmesh("ps", status=None), lambda told: "[VM925]" in told, PATIENCE)
        told = await stays.vipmesh("scale", "server=5", status=1)
        assert "[VM925]" in told
        assert "more than half of them reach each other" in told
        assert set(await stays.serving(NAME)) == {stays.name}, "routing goes on"
    assert failed_after(outcome, first_cut, second_cut) == [], f"second cut after {second_cut - first_cut:.1f} s"
    assert outcome.done["short"] > 100
