"""How commands of probes are passed to the engine, and what a shell makes of them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from typing_extensions import override

from mesh.sources.docker.exec import DockerExec
from tests.sources.docker.fake_engine import ID, FakeEngine

SECRET = "PGPASSWORD=8d3aa64f1c; test -n $PGPASSWORD"


class ExecEngine(FakeEngine):
    """Records what it is asked to run, and runs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[Mapping[str, Sequence[str]]] = []

    @override
    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith(f"/containers/{ID}/exec"):
            self.created.append(json.loads(await request.text()))
            return web.json_response({"message": "no such container"}, status=404)
        return await super().answer(request)


async def test_a_command_is_on_no_command_line(tmp_path: Path) -> None:
    fake = ExecEngine()
    async with fake.listening(tmp_path / "docker.sock") as url:
        assert await DockerExec(url).run(f"demo/web/{ID}", SECRET, 1) is None
    (created,) = fake.created
    assert not any("8d3aa64f1c" in word for word in created["Cmd"])
    assert [variable.partition("=")[2] for variable in created["Env"]] == [SECRET]


@pytest.mark.parametrize("shell", ["/bin/sh", "bash"])
@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("true", 0, ""),
        ("echo fine; exit 3", 3, "fine\n"),
        ("-x", 127, None),
        ("# a comment\necho $#", 0, "0\n"),
        ("echo 'a  b' \"$(echo c)\" $((1 + 1)) *.none", 0, "a  b c 2 *.none\n"),
        ("env | grep -c 8d3aa || echo none # 8d3aa", 0, "0\nnone\n"),
        ("if", 2, None),
    ],
)
async def test_a_shell_runs_the_command_as_it_is_written(
    tmp_path: Path, shell: str, command: str, status: int, output: str | None
) -> None:
    fake = ExecEngine()
    async with fake.listening(tmp_path / "docker.sock") as url:
        assert await DockerExec(url).run(f"demo/web/{ID}", command, 1) is None
    (created,) = fake.created
    _, *words = created["Cmd"]
    variables = dict(each.split("=", 1) for each in created["Env"])
    done = subprocess.run(
        [shell, *words],
        env={"PATH": os.environ["PATH"], **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    number, _, said = done.stdout.partition("\n")
    assert number.isdecimal()
    assert done.returncode == status or (shell == "bash" and command == "if" and done.returncode != 0)
    assert output is None or said == output
