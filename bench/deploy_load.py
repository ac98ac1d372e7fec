"""Constant load on one address in the engine's namespace, by the load generator of the tests."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from typing_extensions import override

from tests.system.docker.engine import Engine
from tests.system.docker.worker import LOAD

RATE, LONG = 50, 4
"""New connections a second, and connections at a time whose answer takes two seconds."""


@dataclass
class Outcome:
    """The result of the load, complete once it is over."""

    short: int = 0
    long: int = 0
    short_failed: int = 0
    long_failed: int = 0

    @property
    def asked(self) -> int:
        """All requests."""
        return self.short + self.long

    @property
    def failed(self) -> int:
        """Requests without a complete answer."""
        return self.short_failed + self.long_failed

    @override
    def __str__(self) -> str:
        return f"{self.short_failed} of {self.short} short, {self.long_failed} of {self.long} long"


@asynccontextmanager
async def loaded(engine: Engine, host: str, port: int) -> AsyncIterator[Outcome]:
    """Load while the block runs; the outcome is filled in after it."""
    outcome = Outcome()
    process = await asyncio.create_subprocess_exec(
        *(*engine.inside, sys.executable, str(LOAD), host, str(port), str(RATE), str(LONG)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"loading\n"
        yield outcome
        said = json.loads((await process.communicate(b""))[0])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    outcome.short, outcome.long = said["done"].get("short", 0), said["done"].get("long", 0)
    outcome.long_failed = sum(" long: " in failure for failure in said["failures"])
    outcome.short_failed = len(said["failures"]) - outcome.long_failed
