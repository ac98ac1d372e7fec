"""Restarts on a real engine that no event tells of, and those of a container that lends its network to others."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from mesh.model.service import Health
from mesh.sources.docker import source as docker_source
from mesh.sources.docker.source import DockerSource
from tests.system.docker.engine import Engine
from tests.system.docker.test_source import RULES, WEB, watching
from tests.system.docker.worker import LABELS, worker
from tests.system.e2e.programs import eventually

LOST = "container share-1: it has no network since the container whose network it shares, db, has restarted"
SLOW_AGAIN = ("sh", "-c", "test -e /tmp/again && sleep 1000; touch /tmp/again; exec httpd -f -p 80 -h /www")
"""Serves in its first run, and boots for ever in the next ones."""


async def test_a_container_whose_lender_has_restarted_is_left_out_until_it_restarts(engine: Engine) -> None:
    """The lender has no labels of the mesh."""
    await asyncio.to_thread(engine.run, "db", "--init", command=("sleep", "1000"))
    await asyncio.to_thread(engine.run, "share-1", "--init", "--network", "container:db", labels=WEB)
    async with watching(DockerSource(engine.url, RULES)) as seen:
        await seen.until(lambda now: now.keys() == {"share-1"})
        await engine.adocker("restart", "-t", "0", "db")
        await seen.until(lambda now: any(LOST in str(problem) for problem in seen.problems), 10)
        assert seen.instances == {}
    async with watching(DockerSource(engine.url, RULES)) as seen:
        await seen.until(lambda now: any(LOST in str(problem) for problem in seen.problems), 10)
        await engine.adocker("restart", "-t", "0", "share-1")
        await seen.until(lambda now: now.keys() == {"share-1"}, 10)
        assert seen.problems == ()


async def test_a_restart_without_any_event_is_another_run(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_source, "EVENT_FILTERS", json.dumps({"event": ["nothing"]}))
    options = ("--init", "--health-cmd", "true", "--health-interval", "1s", "--health-start-period", "1s")
    await asyncio.to_thread(engine.run, "web-1", *options, labels=WEB)
    async with watching(DockerSource(engine.url, RULES, relist=0.3)) as seen:
        await seen.until(lambda now: now.keys() == {"web-1"} and now["web-1"].health is Health.HEALTHY)
        before = seen.instances["web-1"]
        await engine.adocker("restart", "-t", "0", "web-1")
        await seen.until(lambda now: bool(now) and now["web-1"].run != before.run)
        after = seen.instances["web-1"]
        assert (after.id, after.address, after.health) == (before.id, before.address, Health.STARTING)


@pytest.mark.parametrize("stopped_by", [signal.SIGTERM, signal.SIGKILL])
async def test_a_container_restarted_while_the_daemon_is_stopped_gets_no_traffic_while_it_boots(
    engine: Engine, tmp_path: Path, stopped_by: signal.Signals
) -> None:
    await asyncio.to_thread(engine.run, "web-1", "--init", labels=LABELS, command=SLOW_AGAIN)
    await asyncio.to_thread(engine.run, "web-2", "--init", labels=LABELS)
    async with worker(engine, tmp_path, plane="nftables", teardown=False) as mesh:
        before = {endpoint["name"]: endpoint["address"] for endpoint in await mesh.serving("web-1", "web-2")}
        await mesh.daemon.end(stopped_by)
    await engine.adocker("restart", "-t", "0", "web-1")
    async with worker(engine, tmp_path, plane="nftables") as mesh:
        await mesh.daemon.line("adopted 1 virtual servers with 2 real servers")

        async def endpoints() -> dict[str, dict[str, Any]]:
            return {endpoint["name"]: endpoint for endpoint in await mesh.endpoints()}

        now = await eventually(endpoints, lambda now: bool(now) and now["web-1"]["last_probe"] is not None)
        assert {name: endpoint["address"] for name, endpoint in now.items()} == before
        assert (now["web-1"]["health"], now["web-1"]["serving"]) == ("starting", False)
        assert (now["web-2"]["health"], now["web-2"]["serving"]) == ("healthy", True)


async def test_a_container_restarted_while_the_daemon_is_stuck_gets_no_traffic_while_it_boots(
    engine: Engine, tmp_path: Path
) -> None:
    await asyncio.to_thread(engine.run, "web-1", "--init", labels=LABELS, command=SLOW_AGAIN)
    await asyncio.to_thread(engine.run, "web-2", "--init", labels=LABELS)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving("web-1", "web-2")
        mesh.daemon.send(signal.SIGSTOP)
        await engine.adocker("restart", "-t", "0", "web-1")
        mesh.daemon.send(signal.SIGCONT)
        await mesh.serving("web-2")
        health = {endpoint["name"]: endpoint["health"] for endpoint in await mesh.endpoints()}
        assert health == {"web-1": "starting", "web-2": "healthy"}
