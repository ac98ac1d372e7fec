"""Running our program, and clients that users have, as separate processes."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

CI = os.environ.get("CI") == "true"
T = TypeVar("T")
VIPMESH = [sys.executable, "-m", "mesh"]


def free_port() -> int:
    """A port of 127.0.0.1 that is free for TCP and UDP now."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return int(tcp.getsockname()[1])


async def call(*command: str, seconds: float = 60) -> tuple[int, str]:
    """Exit status and output (both streams) of a command that ends by itself."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except FileNotFoundError:
        if CI:
            raise
        pytest.skip(f"needs {command[0]}; `tests/install-packages` says what to install")
    async with asyncio.timeout(seconds):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def eventually(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = 30) -> T:
    """What `ask` answers once `holds` is true of it; fails with the last answer when the time is up."""
    answer = await ask()
    try:
        async with asyncio.timeout(seconds):
            while not holds(answer):
                await asyncio.sleep(0.05)
                answer = await ask()
    except TimeoutError:
        pytest.fail(f"after {seconds} s still: {answer}")
    return answer


class Program:
    """A running `vipmesh`, its output read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.output: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """The next line that matches; fails with all of the output if none does in time."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                while line := (await self._process.stdout.readline()).decode():
                    self.output.append(line)
                    if match := re.search(pattern, line):
                        return match
        except TimeoutError:
            pass
        pytest.fail(f"no line like {pattern!r} in:\n{''.join(self.output)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and wait for the end; the exit status."""
        self._process.send_signal(number)
        async with asyncio.timeout(seconds):
            assert self._process.stdout is not None
            self.output.append((await self._process.stdout.read()).decode())
            return await self._process.wait()


@asynccontextmanager
async def vipmesh(
    *arguments: str, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> AsyncIterator[Program]:
    """Run `vipmesh ARGUMENTS`; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *VIPMESH,
        *arguments,
        env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            # Reads what is left: asyncio's `wait` alone would wait for a pipe that nobody empties.
            output, _ = await process.communicate()
            sys.stdout.write("".join(program.output) + output.decode())  # pytest shows it beside the failure


async def status(admin: str) -> dict[str, Any]:
    """What `vipmesh status --json` prints."""
    code, output = await call(*VIPMESH, "status", "--json", "--admin", admin)
    assert code == 0, output
    answer: dict[str, Any] = json.loads(output)
    return answer
