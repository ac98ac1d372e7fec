"""`vipmesh completion`: real shells complete with the script."""

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
from pathlib import Path

import pytest

from mesh.cli.completion import names_in
from tests.api.http.worker import serving, socket_of
from tests.system.e2e.programs import CI, VIPMESH, call

BASH = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
compopt() {{ :; }}
{function} vipmesh "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


async def script_of(shell: str, directory: Path) -> Path:
    code, text = await call(*VIPMESH, "completion", shell)
    assert code == 0, text
    script = directory / f"completion.{shell}"
    script.write_text(text)
    return script


async def bash(words: str, directory: Path) -> set[str]:
    script = await script_of("bash", directory)
    match = re.search(r"complete .*-F (\S+) vipmesh", script.read_text())
    assert match
    code, output = await call("bash", "-c", BASH.format(script=script, words=words, function=match[1]))
    assert code == 0, output
    return set(output.split())


async def test_bash_completes_verbs_options_and_files(tmp_path: Path) -> None:
    assert await bash("vipmesh st", tmp_path) == {"status", "stop"}
    assert "--json" in await bash("vipmesh explain --", tmp_path)
    (tmp_path / "compose.yaml").touch()
    assert f"{tmp_path}/compose.yaml" in await bash(f"vipmesh check {tmp_path}/comp", tmp_path)


async def test_fish_completes_verbs_options_and_files(tmp_path: Path) -> None:
    script = await script_of("fish", tmp_path)
    for line, expected in (("vipmesh ex", "explain"), ("vipmesh status --js", "--json")):
        code, output = await call("fish", "--no-config", "-c", f"source {script}; complete -C '{line}'")
        assert code == 0, output
        assert expected in output


async def test_zsh_completes_verbs_in_a_terminal(tmp_path: Path) -> None:
    if shutil.which("zsh") is None and not CI:
        pytest.skip("needs zsh; `tests/install-packages` says what to install")
    (await script_of("zsh", tmp_path)).rename(tmp_path / "_vipmesh")
    ours, theirs = os.openpty()
    shell = await asyncio.create_subprocess_exec(
        "zsh", "-f", "-i", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        await shows(ours, "\x1b[?2004h")  # it takes keys now
        os.write(ours, f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; print rea''dy\n".encode())
        await shows(ours, "ready")
        os.write(ours, b"vipmesh expl\t")
        await shows(ours, "vipmesh explain ")
    finally:
        shell.kill()
        await shell.wait()
        os.close(ours)


async def shows(terminal: int, text: str) -> None:
    """Wait until the terminal has shown it, whatever it moves and colours in between."""
    loop, seen = asyncio.get_running_loop(), b""
    news: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(terminal, lambda: news.put_nowait(os.read(terminal, 4096)))
    try:
        async with asyncio.timeout(20):
            while text.encode() not in re.sub(rb"\x1b\[[0-9;]*[A-Za-z]|.\x08", b"", seen):
                seen += await news.get()
    finally:
        loop.remove_reader(terminal)


async def test_another_shell_is_wrong_usage() -> None:
    code, output = await call(*VIPMESH, "completion", "dos")
    assert code == 2
    assert "invalid choice" in output


# ------------------------------------------------------------------------------------------- names of a running daemon


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program `vipmesh` is found, and asks the API in this directory by default."""
    program = tmp_path / "bin" / "vipmesh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(VIPMESH)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return f"unix://{tmp_path}/admin.sock"


async def test_bash_completes_names_of_the_running_daemon(on_path: str, tmp_path: Path) -> None:
    line = f"vipmesh {{}} --admin {on_path} {{}}"
    async with serving(socket_of(tmp_path)):
        status = json.loads((await call(*VIPMESH, "status", "--json", "--admin", on_path))[1])
        services = {name for service in status["services"] for name in service["names"]}
        endpoints = {each["name"] or each["id"] for service in status["services"] for each in service["endpoints"]}
        workers = {worker["name"] for worker in status["workers"] if '"' not in worker["name"]}
        assert services
        assert endpoints
        assert services <= await bash(line.format("test", "''"), tmp_path)
        assert services | endpoints <= await bash(line.format("explain", "''"), tmp_path)
        assert await bash(line.format("drain", "''"), tmp_path) == endpoints
        for verb in ("events", "status", "explain"):
            assert services | endpoints <= await bash(line.format(verb, "''"), tmp_path), verb
        for verb in ("events", "status", "workers remove"):
            assert workers <= await bash(line.format(verb, "''"), tmp_path), verb
        for verb in ("events", "status", "explain"):
            assert workers == await bash(line.format(verb, "--worker ''"), tmp_path), verb
        assert await bash(line.format("weight", "''"), tmp_path) == endpoints
        assert not await bash(line.format(f"weight {min(endpoints)}", "''"), tmp_path), "a weight is no name"
        one = min(services)
        assert one in await bash(line.format("explain", one[:-2]), tmp_path)


async def test_without_a_daemon_completion_is_silent(on_path: str, tmp_path: Path) -> None:
    assert await bash(f"vipmesh explain --admin {on_path} ''", tmp_path) == set()
    for words in (["services", ":", "vipmesh", "explain", "--admin", "nonsense"], [], ["services"], ["x", ":", "-c"]):
        assert await call("vipmesh", "completion", "bash", "--names", *words) == (0, "")


async def test_a_daemon_that_hangs_does_not_hold_the_shell_up(on_path: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:  # the kernel accepts, and nobody answers
        listening.bind(str(tmp_path / "admin.sock"))
        listening.listen()
        assert await bash(f"vipmesh drain --admin {on_path} ''", tmp_path) == set()


async def test_fish_completes_names_of_the_running_daemon(on_path: str, tmp_path: Path) -> None:
    script = await script_of("fish", tmp_path)
    async with serving(socket_of(tmp_path)):
        line = f"vipmesh drain --admin {on_path} "
        code, output = await call("fish", "--no-config", "-c", f"source {script}; complete -C '{line}'")
    assert code == 0, output
    assert "a-1" in output.split()


async def test_zsh_asks_for_names(on_path: str, tmp_path: Path) -> None:
    """The function of the script, with what zsh would give it."""
    script = await script_of("zsh", tmp_path)
    function = re.search(r"^_vipmesh_endpoints\(\) \{\n.*?^\}", script.read_text(), re.DOTALL | re.MULTILINE)
    assert function
    program = f"{function[0]}\ncompadd() {{ print -l $found }}\nwords=(drain --admin {on_path})\n_vipmesh_endpoints"
    async with serving(socket_of(tmp_path)):
        code, output = await call("zsh", "-f", "-c", program)
    assert code == 0, output
    assert "a-1" in output.split()


def test_names_that_a_shell_could_obey_are_left_out() -> None:
    names = ["web.test", "$(reboot)", "a b", "`id`", "-c", "a;b", "x" * 254, "", "w_1-a/b"]
    status = {"services": [{"name": name, "names": [], "endpoints": []} for name in names], "workers": []}
    assert names_in(status, ["services", "endpoints", "workers", "else"]) == ["w_1-a/b", "web.test"]
