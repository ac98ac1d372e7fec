"""Deploys under constant load, on a real engine: how many requests each way of stopping drops."""

import asyncio
from pathlib import Path

import pytest

from tests.system.docker.engine import Engine
from tests.system.docker.worker import LABELS, worker
from tests.system.e2e.programs import VIPMESH, call, eventually

NAMES = ("web-1", "web-2", "web-3")
DRAIN_FIRST = ("--stop-signal", "CONT", "--stop-timeout", "25")


async def run(engine: Engine, name: str, *options: str) -> None:
    await asyncio.to_thread(engine.run, name, "--init", *options, labels=LABELS)


async def replace(engine: Engine, name: str, *options: str) -> None:
    await engine.adocker("rm", name)
    await run(engine, name, *options)


async def test_vipmesh_stop_drops_nothing(engine: Engine, tmp_path: Path) -> None:
    for name in NAMES:
        await run(engine, name)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES)
        async with mesh.load() as outcome:
            for name in NAMES[:2]:
                assert "drained and stopped" in await mesh.vipmesh("stop", name)
                assert await engine.adocker("inspect", "-f", "{{.State.Running}}", name) == "false"
                await replace(engine, name)
                await mesh.serving(*NAMES)
        assert outcome.failures == []
        assert outcome.done["short"] > 200
        assert outcome.done["long"] > 4


@pytest.mark.parametrize("verb", ["stop", "restart"])
async def test_a_plain_docker_stop_with_the_drain_signal_drops_nothing(
    engine: Engine, tmp_path: Path, verb: str
) -> None:
    for name in NAMES:
        await run(engine, name, *DRAIN_FIRST)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES)
        async with mesh.load() as outcome:
            for name in NAMES[:2]:
                await engine.adocker(verb, name)
                code = await engine.adocker("inspect", "-f", "{{.State.ExitCode}}", name)
                assert code in ("0", "143"), "it ended by our TERM, and was not killed"
                if verb == "stop":
                    await replace(engine, name, *DRAIN_FIRST)
                await mesh.serving(*NAMES)
        assert outcome.failures == []
        assert outcome.done["short"] > 200
        assert outcome.done["long"] > 4


async def test_a_plain_docker_stop_drops_requests_in_flight(engine: Engine, tmp_path: Path) -> None:
    for name in NAMES:
        await run(engine, name)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES)
        async with mesh.load() as outcome:
            for name in NAMES[:2]:
                await engine.adocker("stop", name)
                await replace(engine, name)
                await mesh.serving(*NAMES)
        short = [failure for failure in outcome.failures if "short" in failure]
        assert len(outcome.failures) - len(short) >= 1, "what takes two seconds is cut off: nobody could have told it"
        assert len(short) <= 4, "new connections are cut off for a few milliseconds at most"


async def test_drain_waits_for_connections_and_undrain_admits_new_ones(engine: Engine, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        await run(engine, name)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES[:2])
        async with mesh.load() as outcome:
            assert "drained" in await mesh.vipmesh("drain", "web-1")
            (drained,) = [e for e in await mesh.endpoints() if e["name"] == "web-1"]
            assert (drained["drain"], drained["serving"], drained["health"]) == ("asked", False, "healthy")
            assert "takes connections" in await mesh.vipmesh("undrain", drained["id"])
            await mesh.serving(*NAMES[:2])
        assert outcome.failures == []
        code, output = await call(*VIPMESH, "stop", "--admin", mesh.admin, "web-9")
        assert code == 1
        assert "no container or endpoint 'web-9' runs on this worker; `vipmesh status` lists the endpoints" in output


async def test_a_drain_survives_a_restart_of_the_daemon(engine: Engine, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        await run(engine, name)
    for turn in range(2):
        async with worker(engine, tmp_path) as mesh:
            await mesh.serving(*NAMES[turn:2])
            await mesh.vipmesh("drain", "web-1")
            await mesh.serving("web-2")
            await mesh.daemon.end()


async def test_a_healthcheck_of_the_container_is_its_probe(engine: Engine, tmp_path: Path) -> None:
    labels = {"mesh.routing.port_80": "web.test"}
    checked = ("--init", "--health-cmd", "test ! -e /tmp/ill", "--health-interval", "0.3s", "--health-retries", "1")
    for name in NAMES[:2]:
        await asyncio.to_thread(engine.run, name, *checked, labels=labels)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving(*NAMES[:2])
        await engine.adocker("exec", "web-1", "touch", "/tmp/ill")
        await mesh.serving("web-2")
        shown = await eventually(mesh.endpoints, lambda now: "unhealthy" in [e["health"] for e in now])
        assert sorted(e["health"] for e in shown) == ["healthy", "unhealthy"]
        await engine.adocker("exec", "web-1", "rm", "/tmp/ill")
        await mesh.serving(*NAMES[:2])


async def test_a_container_that_ignores_its_stop_signal_is_still_stopped(engine: Engine, tmp_path: Path) -> None:
    """As the first process of a container it ignores SIGTERM; that takes longer than any other answer of the engine."""
    await asyncio.to_thread(engine.run, "web-1", "--stop-timeout", "11", labels=LABELS)
    async with worker(engine, tmp_path) as mesh:
        await mesh.serving("web-1")
        assert "drained and stopped" in await mesh.vipmesh("stop", "web-1")
        assert await engine.adocker("inspect", "-f", "{{.State.ExitCode}}", "web-1") == "137"
