"""Containers are replaced one by one by others with other labels, on a real engine and under load: no request fails."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.system.docker.engine import IMAGE, Engine
from tests.system.docker.worker import LABELS, Worker, worker
from tests.system.e2e.programs import eventually, status

NAMES = ("web-1", "web-2", "web-3")
COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
OLD = {**LABELS, **COMPOSE}
NEW = {
    **COMPOSE,
    "mesh.routing.port_8080": "http://web.test",
    "mesh.routing.scheduler": "rr",
    "mesh.probe.url": "http://container:8080/index.html",
    "mesh.probe.interval_seconds": "0.3",
    "mesh.probe.timeout_seconds": "0.3",
}


async def run(engine: Engine, name: str, labels: Mapping[str, str], port: int = 80) -> None:
    command = ("httpd", "-f", "-p", str(port), "-h", "/www")
    await asyncio.to_thread(engine.run, name, "--init", labels=labels, command=command)


async def service_of(mesh: Worker) -> dict[str, Any]:
    [service] = (await status(mesh.admin))["services"]
    found: dict[str, Any] = service
    return found


async def test_replacing_all_containers_one_by_one_drops_nothing(engine: Engine, tmp_path: Path) -> None:
    for name in NAMES:
        await run(engine, name, OLD)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES)
        async with mesh.load() as outcome:
            for number, name in enumerate(NAMES, start=1):
                assert "drained and stopped" in await mesh.vipmesh("stop", name)
                await engine.adocker("rm", name)
                await run(engine, name, NEW, 8080)
                await mesh.serving(*NAMES)
                problems = " ".join((await status(mesh.admin))["problems"])
                assert ("declares routes" in problems) is (number < len(NAMES))
        assert outcome.failures == []
        assert outcome.done["short"] > 200
        assert outcome.done["long"] > 4
        shown = await mesh.vipmesh("explain", "web.test")
        assert "8080" in shown


async def test_a_newcomer_with_other_labels_changes_nothing_for_others(engine: Engine, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        await run(engine, name, OLD)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES[:2])
        async with mesh.load() as outcome:
            other = {**COMPOSE, "mesh.routing.port_9999": "web.test:90", "mesh.routing.session_sticky": "true"}
            await run(engine, "stranger", other, 9999)
            await eventually(mesh.endpoints, lambda now: "stranger" in [endpoint["name"] for endpoint in now])
            await asyncio.sleep(1)  # whatever it would break, it breaks within a pass
            await engine.adocker("rm", "-f", "stranger")
            await mesh.serving(*NAMES[:2])
        assert outcome.failures == []


async def test_an_image_joins_no_service(engine: Engine, tmp_path: Path) -> None:
    await run(engine, "web-1", OLD)
    labels = {**COMPOSE, "mesh.routing.port_80": "web.test"}
    changes = [part for key, value in labels.items() for part in ("--change", f"LABEL {key}={value}")]
    await engine.adocker("commit", *changes, "web-1", "stranger:1")
    await engine.adocker("rm", "-f", "web-1")
    await run(engine, "web-1", OLD)
    try:
        async with worker(engine, tmp_path) as mesh:
            await mesh.serving("web-1")
            await engine.adocker("run", "-d", "--name", "web-2", "stranger:1", "httpd", "-f", "-p", "80")
            found = await eventually(lambda: status(mesh.admin), lambda now: any("web-2" in p for p in now["problems"]))
            assert "its image has the labels" in " ".join(found["problems"])
            await mesh.serving("web-1")
    finally:
        await engine.adocker("rm", "-f", "web-2")
        await engine.adocker("rmi", "stranger:1")


async def test_a_manager_of_a_swarm_confirms_its_tasks(engine: Engine, tmp_path: Path) -> None:
    await engine.adocker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        created = ("service", "create", "--detach", "--no-resolve-image", "--name", "web", "--replicas", "1")
        labelled = ("--container-label", "mesh.routing.port_80=web.test", "--endpoint-mode", "dnsrr")
        await engine.adocker(*created, *labelled, IMAGE, "httpd", "-f", "-p", "80", "-h", "/www")
        async with worker(engine, tmp_path) as mesh:
            shown = await eventually(lambda: status(mesh.admin), lambda now: bool(now["services"]), 90)
            [service] = shown["services"]
            assert service["owner"] == "swarm/web"
            swarm = {"com.docker.swarm.service.name": "web", "com.docker.swarm.task.id": "x"}
            await run(engine, "stranger", {**swarm, "mesh.routing.port_80": "web.test"})
            await eventually(lambda: status(mesh.admin), lambda now: any("stranger" in p for p in now["problems"]))
            assert "stranger" not in [endpoint["name"] for endpoint in await mesh.endpoints()]
    finally:
        await engine.adocker("swarm", "leave", "--force")
