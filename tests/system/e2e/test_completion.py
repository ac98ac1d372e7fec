"""`vipmesh completion`: real shells complete with the script."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

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
