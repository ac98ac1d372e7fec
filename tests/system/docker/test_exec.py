"""Commands inside containers, on a real engine."""

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest

from mesh.sources.docker.exec import MAX_READ_BYTES, DockerExec
from tests.system.docker.engine import Engine
from tests.system.docker.worker import worker
from tests.system.e2e.programs import eventually


@pytest.fixture
def container(engine: Engine) -> str:
    return engine.run("box", "--init")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("true", (0, "")),
        ("echo fine; exit 3", (3, "fine\n")),
        ("test -e /www/index.html && echo 'it''s' \"there\"", (0, "its there\n")),
        ("echo wrong >&2; false", (1, "wrong\n")),
        ("no-such-program", (127, "sh: eval: line 0: no-such-program: not found\n")),
    ],
)
async def test_status_and_output(engine: Engine, container: str, command: str, expected: tuple[int, str]) -> None:
    ended = await DockerExec(engine.url).run(f"demo/box/{container[:12]}", command, 5)
    assert ended is not None
    assert ended[0] == expected[0]
    assert ended[1].split()[-1:] == expected[1].split()[-1:]


async def test_a_command_that_times_out_is_ended_with_its_children(engine: Engine, container: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await DockerExec(engine.url).run(f"demo/box/{container[:12]}", "sleep 1001 & sleep 1002; sleep 1003", 0.5)
    assert time.monotonic() - began < 30, "and not after a thousand seconds"
    assert "httpd" in await without_leftovers(engine)


async def without_leftovers(engine: Engine) -> str:
    """The processes of the box, once none of the commands' is among them."""
    return await eventually(partial(engine.adocker, "exec", "box", "ps"), lambda shown: "sleep 100" not in shown)


@pytest.mark.parametrize("left", ["sleep 1001 &", "sleep 1002 >/dev/null 2>&1 &", "(sleep 1003; sleep 1004) & exit 3"])
async def test_background_processes_of_a_command_are_ended_with_it(engine: Engine, container: str, left: str) -> None:
    ended = await DockerExec(engine.url).run(container, left, 5)
    assert ended == (3 if "exit" in left else 0, "")
    assert "httpd" in await without_leftovers(engine)


async def test_a_cancelled_command_is_ended(engine: Engine, container: str) -> None:
    asked = asyncio.create_task(DockerExec(engine.url).run(container, "sleep 1001", 20))  # noqa: TID251
    await eventually(partial(engine.adocker, "exec", "box", "ps"), lambda shown: "sleep 1001" in shown)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert "httpd" in await without_leftovers(engine)


async def test_an_engine_that_stops_during_a_command_is_no_verdict(engine: Engine, container: str) -> None:
    asked = asyncio.create_task(DockerExec(engine.url).run(container, "sleep 1001", 20))  # noqa: TID251
    await eventually(partial(engine.adocker, "exec", "box", "ps"), lambda shown: "sleep 1001" in shown)
    try:
        await asyncio.to_thread(engine.end)
        assert await asked is None
    finally:
        await asyncio.to_thread(engine.start)


async def test_a_flood_of_output_is_bounded(engine: Engine, container: str) -> None:
    ended = await DockerExec(engine.url).run(
        container, "i=0; while test $i -lt 20000; do echo $i; i=$((i+1)); done", 20
    )
    assert ended is not None
    assert ended[0] == 0
    assert len(ended[1]) <= 4096


async def test_an_image_without_a_shell_is_reported(engine: Engine, container: str) -> None:
    await engine.adocker("exec", "box", "busybox", "rm", "/bin/sh")
    ended = await DockerExec(engine.url).run(container, "true", 5)
    assert ended is not None
    assert ended[0] in (126, 127)
    assert "/bin/sh" in ended[1]


async def test_a_paused_or_removed_container_or_a_stopped_engine_gives_no_verdict(
    engine: Engine, container: str
) -> None:
    await engine.adocker("pause", "box")
    assert await DockerExec(engine.url).run(container, "true", 5) is None
    await engine.adocker("unpause", "box")
    assert await DockerExec(engine.url).run("0" * 12, "true", 5) is None
    assert await DockerExec("unix:///nonexistent.sock").run(container, "true", 5) is None


async def test_a_command_probe_decides_which_endpoint_serves(engine: Engine, tmp_path: Path) -> None:
    labels = {
        "mesh.routing.port_80": "web.test",
        "mesh.probe.cmd": "test -e /tmp/ready",
        "mesh.probe.interval_seconds": "0.3",
        "mesh.probe.unhealthy_threshold": "2",
    }
    for name in ("web-1", "web-2"):
        await asyncio.to_thread(engine.run, name, "--init", labels=labels)
    async with worker(engine, tmp_path) as mesh:
        await engine.adocker("exec", "web-1", "touch", "/tmp/ready")
        await mesh.serving("web-1")
        await engine.adocker("exec", "web-2", "touch", "/tmp/ready")
        await mesh.serving("web-1", "web-2")
        await engine.adocker("exec", "web-1", "rm", "/tmp/ready")
        await mesh.serving("web-2")


@pytest.mark.parametrize("command", ["yes", "cat /dev/zero", "yes >&2"])
async def test_a_command_that_writes_without_end_is_killed(engine: Engine, container: str, command: str) -> None:
    async with asyncio.timeout(30):
        ended = await DockerExec(engine.url).run(container, command, 25)
    assert ended is not None
    assert ended == (137, f"more than {MAX_READ_BYTES} bytes of output")
    running = await engine.adocker("top", "box")
    assert command.partition(" ")[0] not in running, "the command is gone"
