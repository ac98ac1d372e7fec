"""A rollout on a real engine under load: it takes its steps, is promoted and aborted, and a bad release ends it."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.system.docker.engine import Engine
from tests.system.docker.worker import LABELS, Worker, worker
from tests.system.e2e.programs import eventually

COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
SERVE = "httpd -f -p 80 -h /www"


def release(name: str) -> Mapping[str, str]:
    return {
        **LABELS,
        **COMPOSE,
        "mesh.routing.release": name,
        "mesh.release.strategy": "canary",
        "mesh.release.steps": "30%,1s;60%,hold",
        "mesh.release.min_connections": "5",
    }


async def run(engine: Engine, name: str, labels: Mapping[str, str], command: str = SERVE) -> None:
    await asyncio.to_thread(engine.run, name, "--init", labels=labels, command=("sh", "-c", command))


async def rollout(mesh: Worker) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(await mesh.vipmesh("rollout", "status", "shop/web", "--over", "0", "--json"))
    return shown


def shares(shown: dict[str, Any]) -> dict[str, float]:
    return {each["release"]: each["share"] for each in shown["releases"]}


@pytest.mark.timeout(300)
async def test_a_canary_takes_its_steps_and_a_bad_release_is_taken_back(engine: Engine, tmp_path: Path) -> None:
    for name in ("old-1", "old-2"):
        await run(engine, name, release("v1"))
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving("old-1", "old-2")
        known = await eventually(lambda: rollout(mesh), lambda now: now["rollout"] is not None, 30)
        assert (known["rollout"]["phase"], known["rollout"]["new"]) == ("done", "v1")
        async with mesh.load() as outcome:
            await run(engine, "new-1", release("v2"))
            first = await eventually(lambda: rollout(mesh), lambda now: shares(now).get("v2", 0) > 0, 30)
            assert shares(first) == {"v1": 70, "v2": 30}, "no more than the first step, from its first connection on"
            held = await eventually(lambda: rollout(mesh), lambda now: shares(now)["v2"] != 30, 60)
            assert shares(held) == {"v1": 40, "v2": 60}
            assert "0 ends" in held["rollout"]["reason"]
            await mesh.vipmesh("rollout", "promote", "shop/web")
            await eventually(lambda: rollout(mesh), lambda now: shares(now)["v2"] == 100, 10)
            await mesh.vipmesh("rollout", "abort", "shop/web")
            back = await eventually(lambda: rollout(mesh), lambda now: shares(now)["v2"] == 0, 10)
            assert (shares(back)["v1"], back["rollout"]["phase"]) == (100, "aborted")
            await mesh.vipmesh("stop", "new-1")
            await engine.adocker("rm", "new-1")
            assert outcome.failures == []
            await run(engine, "bad-1", release("v3"), f"{SERVE} & sleep 5; exit 3")
            await eventually(lambda: rollout(mesh), lambda now: shares(now).get("v3", 0) > 0, 30)
            ended = await eventually(lambda: rollout(mesh), lambda now: now["rollout"]["phase"] == "aborted", 40)
            assert shares(ended)["v1"] == 100
            assert ended["rollout"]["reason"] == "1 end of processes in 1 instance"
        # What the instance of the bad release had begun ends with it; nothing new was led to it.
        assert [failure for failure in outcome.failures if " short: " in failure] == []
        assert len(outcome.failures) <= 4
        told = await mesh.vipmesh("events", "web.test")
        assert "step 2 of 2: 60 % for v2" in told
        assert "v3 was aborted" in told
