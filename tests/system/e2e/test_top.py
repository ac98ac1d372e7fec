"""`vipmesh top` on a terminal, for programs, and when the daemon stops."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import termios
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.api.http.worker import serving, socket_of
from tests.api.metrics.test_families import OBSERVED
from tests.system.e2e.programs import VIPMESH, call, eventually

LINES = 6
"""Of the terminal: there is more to show."""


@pytest.fixture
def admin(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/admin.sock"


async def test_on_a_terminal_it_fills_the_screen_and_restores_it(admin: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, 80, 0, 0))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(socket_of(tmp_path)))
        # A shell's background job ignores SIGINT, and so would what it starts.
        command = ("env", "--default-signal=INT", *VIPMESH, "top", "--admin", admin)
        process = await asyncio.create_subprocess_exec(*command, stdout=theirs, stderr=theirs)
        os.close(theirs)
        stack.callback(_end, process)
        shown = b""
        async with asyncio.timeout(20):
            while b"more lines" not in shown:  # the last line of a full screen
                shown += await asyncio.to_thread(os.read, ours, 65536)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        shown += os.read(ours, 65536)
    os.close(ours)
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
    screen = shown.decode().split("\x1b[H")[1].split("\x1b[J")[0]
    lines = screen.replace("\x1b[K", "").split("\r\n")
    assert len(lines) == LINES
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("SERVICE")


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


async def test_programs_get_one_object_per_line(admin: str, tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)):
        code, text = await call(*VIPMESH, "top", "--json", "--count", "2", "--admin", admin)
    moments = [json.loads(line) for line in text.splitlines()]
    assert (code, len(moments)) == (0, 2)
    assert moments[0]["worker"] == OBSERVED.facts.worker
    assert {row["owner"] for row in moments[0]["services"]} >= {"demo/a"}


async def test_without_a_terminal_it_is_plain_text(admin: str, tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)):
        code, text = await call(*VIPMESH, "top", "--count", "1", "--admin", admin)
    assert code == 0
    assert "\x1b" not in text
    assert text.splitlines()[3].startswith("SERVICE")
    assert "more lines" not in text


async def test_a_stopped_daemon_is_reported(admin: str, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks, serving(socket_of(tmp_path)) as api:
        following = tasks.create_task(call(*VIPMESH, "top", "--admin", admin))
        await eventually(lambda: asyncio.sleep(0, api.feed.watching), bool)
    code, text = following.result()
    assert code == 1
    assert "start it with `vipmesh run`" in text.splitlines()[-1]
