"""Name servers that users have, on loopback, as upstreams."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.system.e2e.programs import CI, call, eventually, free_port


@asynccontextmanager
async def dnsmasq(directory: Path, *options: str, port: int | None = None) -> AsyncIterator[tuple[str, int]]:
    """Its address."""
    port = free_port() if port is None else port
    command = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=",
        "--pid-file",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        f"--log-facility={directory}/log",
        *options,
    ]
    async with _running(command, port):
        yield "127.0.0.1", port


@asynccontextmanager
async def _running(command: Sequence[str], port: int) -> AsyncIterator[None]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        if CI:
            raise
        pytest.skip(f"needs {command[0]}; `tests/install-packages` says what to install")
    try:

        async def ask() -> tuple[int, str]:
            return await call("dig", "@127.0.0.1", "-p", str(port), "+time=1", "+tries=1", "version.bind", "CH", "TXT")

        await eventually(ask, lambda said: said[0] == 0)
        yield
    finally:
        process.terminate()
        await process.wait()
