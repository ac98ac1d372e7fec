"""Commands inside containers, on a real engine."""

import asyncio
import time
from pathlib import Path

import pytest

from mesh.sources.docker_exec import DockerExec
from tests.docker.engine import Engine
from tests.docker.worker import worker


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


async def test_what_takes_too_long_is_ended_with_all_that_it_started(engine: Engine, container: str) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await DockerExec(engine.url).run(f"demo/box/{container[:12]}", "sleep 1001 & sleep 1002; sleep 1003", 0.5)
    assert time.monotonic() - began < 5
    for _ in range(50):
        shown = await engine.adocker("exec", "box", "ps")
        if "100" not in shown:
            break
        await asyncio.sleep(0.05)
    assert "sleep 100" not in shown
    assert "httpd" in shown


async def test_a_flood_of_output_is_no_trouble(engine: Engine, container: str) -> None:
    ended = await DockerExec(engine.url).run(
        container, "i=0; while test $i -lt 20000; do echo $i; i=$((i+1)); done", 20
    )
    assert ended is not None
    assert ended[0] == 0
    assert len(ended[1]) <= 4096


async def test_an_image_without_a_shell_says_so(engine: Engine, container: str) -> None:
    await engine.adocker("exec", "box", "busybox", "rm", "/bin/sh")
    ended = await DockerExec(engine.url).run(container, "true", 5)
    assert ended is not None
    assert ended[0] in (126, 127)
    assert "/bin/sh" in ended[1]


async def test_what_is_paused_or_gone_or_without_an_engine_could_not_be_asked(engine: Engine, container: str) -> None:
    await engine.adocker("pause", "box")
    assert await DockerExec(engine.url).run(container, "true", 5) is None
    await engine.adocker("unpause", "box")
    assert await DockerExec(engine.url).run("0" * 12, "true", 5) is None
    assert await DockerExec("unix:///nonexistent.sock").run(container, "true", 5) is None


async def test_a_command_decides_who_serves(engine: Engine, tmp_path: Path) -> None:
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
