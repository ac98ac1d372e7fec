"""A stack from its first deploy to its end: a real engine as a swarm of its own, a real daemon, requests by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.control.graceful_stop import REAL_SIGNAL
from tests.system.docker.engine import Engine
from tests.system.docker.worker import Worker, worker
from tests.system.e2e.programs import VIPMESH, call, eventually
from tests.system.e2e.programs import status as status_of

FILE = """
name: shop
services:
  server:
    image: test_service
    environment: {LEVEL: "%s"}
    volumes: ["cache:/cache:ro"]
    labels:
      aliyun.routing.port_80: restserver.local
      aliyun.scale: "%s"
      aliyun.probe.url: http://container:80
      aliyun.probe.initial_delay_seconds: "2"
      aliyun.probe.timeout_seconds: "2"
volumes: {cache: }
"""


async def vipmesh(mesh: Worker, verb: str, *arguments: str, status: int = 0) -> str:
    settings = (f"{name}={value}" for name, value in mesh.environment.items())
    code, output = await call(
        "env", *settings, *mesh.prefix, *VIPMESH, verb, "--admin", mesh.admin, *arguments, seconds=170
    )
    assert code == status, output
    return output


async def services(mesh: Worker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(await vipmesh(mesh, "ps", "--json"))["services"]
    return found


async def empty_and_return(mesh: Worker) -> None:
    """Spread what is even, empty the only worker, which needs force, and take it back."""
    assert "all is spread evenly" in await vipmesh(mesh, "rebalance")
    shown = await eventually(lambda: status_of(mesh.admin), lambda now: now["acting"] == now["worker"], 60)
    assert shown["problems"] == []
    (engine,) = mesh.engine.docker("node", "ls", "-q").split()
    refusal = await vipmesh(mesh, "drain", "--worker", engine, status=1)
    assert "shop/server: is bound to" in refusal
    assert "VM905" in refusal
    done = json.loads(await vipmesh(mesh, "drain", "--worker", engine, "--force", "--json"))
    assert [step.partition(": ")[2] for step in done["steps"]] == [
        "takes no new instances",
        "2 endpoints drained",
        "its instances end",
    ]
    assert [each["running"] for each in await services(mesh)] == [0]
    await vipmesh(mesh, "undrain", "--worker", engine)
    await eventually(lambda: services(mesh), lambda now: [each["serving"] for each in now] == [2], 90)


@pytest.mark.timeout(500)
async def test_a_stack_from_its_first_deploy_to_its_end(swarm_engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"

    def write(level: int, scale: int) -> None:
        file.write_text(FILE % (level, scale))

    async with worker(swarm_engine, tmp_path, plane="nftables") as mesh:
        write(1, 2)
        assert "vipmesh deploy --init" in await vipmesh(mesh, "deploy", str(file), status=1)
        shown = await vipmesh(mesh, "deploy", "--init", "--wait", "120", str(file))
        assert "all is ready" in shown
        assert "warning" not in shown

        async def fetch() -> tuple[int, str]:
            _, vip = await call(*mesh.prefix, "dig", "+short", "-p", "5353", "@127.0.0.1", "restserver.local")
            resolve = ("--resolve", f"restserver.local:80:{vip.strip()}")
            return await call(*mesh.prefix, "curl", "-s", *resolve, "http://restserver.local/")

        await eventually(fetch, lambda answer: answer == (0, "up\n"), 60)

        again = json.loads(await vipmesh(mesh, "deploy", "--json", str(file)))
        assert (again["steps"], [each["kind"] for each in again["changes"]]) == ([], ["nothing"])

        async with mesh.load(rate=30, long=2) as outcome:
            await vipmesh(mesh, "scale", "server=3", "--wait", "120")
            assert [each["serving"] for each in await services(mesh)] == [3]
            write(2, 3)
            shown = await vipmesh(mesh, "deploy", "--wait", "120", str(file))
            assert "variable LEVEL has another value" in shown
            assert "rolling" in shown
            await vipmesh(mesh, "scale", "server=2", "--wait", "120")
            # The three of the old release and one of the new: the engine chooses which, and none ends before its drain.
            for _ in range(4):
                await mesh.daemon.line(f"is (not )?drained.*: sending {REAL_SIGNAL}", 90)
        assert not [line for line in mesh.daemon.output if "is not drained" in line]
        assert outcome.failures == []
        assert outcome.done["short"] > 100
        assert outcome.done["long"] > 5

        (service,) = await services(mesh)
        assert (service["desired"], service["serving"], service["outside"]) == (2, 2, [])
        await empty_and_return(mesh)
        history = json.loads(await vipmesh(mesh, "history", "--json", "shop"))
        assert len(history["deploys"]) == 2

        assert "volumes that stay: shop_cache" in await vipmesh(mesh, "undeploy", "shop", "--wait", "120")
        assert swarm_engine.docker("service", "ls", "-q") == ""
        assert swarm_engine.docker("ps", "-q") == ""
        assert "shop_cache" in swarm_engine.docker("volume", "ls", "-q")


@pytest.mark.timeout(400)
async def test_the_daemon_answers_for_stacks_also_where_the_engine_may_not_be_asked(
    swarm_engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(FILE % (1, 2))
    async with worker(swarm_engine, tmp_path, plane="nftables") as mesh:
        elsewhere = replace(mesh, environment={**mesh.environment, "VIPMESH_SOURCE_DOCKER_SOCKET": "unix:///nowhere"})
        assert "it does not answer" in await vipmesh(elsewhere, "deploy", str(file), status=1)
        await vipmesh(mesh, "deploy", "--init", "--wait", "120", str(file))
        assert "shop/server" in await vipmesh(elsewhere, "ps", "shop"), "the daemon of this host has asked its engine"
        assert "by w1" in await vipmesh(elsewhere, "scale", "server=3", "--wait", "120")
        (row,) = await services(elsewhere)
        assert (row["desired"], row["running"], row["ready"], row["serving"], row["outside"]) == (3, 3, 3, 3, [])
        (name,) = (await swarm_engine.adocker("service", "ls", "--format", "{{.Name}}")).split()
        await swarm_engine.adocker("service", "update", "--detach", "--env-add", "LEVEL=9", name)
        (row,) = await services(elsewhere)
        assert "is not what was deployed as it any more" in row["outside"][0]

        await vipmesh(mesh, "undeploy", "shop", "--wait", "120")

        async def history() -> list[dict[str, Any]]:
            shown = await vipmesh(elsewhere, "history", "--json", "shop")
            found: list[dict[str, Any]] = json.loads(shown)["deploys"]
            return found

        (deploy,) = await history()
        assert (deploy["service"], deploy["image"], len(deploy["digest"])) == ("server", None, 64)
