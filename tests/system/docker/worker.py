"""A worker in the engine's namespace: the real daemon on the real engine, and load on one of its VIPs."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.system.docker.engine import Engine
from tests.system.e2e.programs import VIPMESH, Program, call, eventually, status, vipmesh

LOAD = Path(__file__).parent / "load.py"
LABELS = {
    "mesh.routing.port_80": "web.test",
    "mesh.probe.url": "http://container:80/",
    "mesh.probe.interval_seconds": "0.3",
    "mesh.probe.timeout_seconds": "0.3",
}


@dataclass
class Outcome:
    """What became of the load."""

    done: Mapping[str, int]
    failures: list[str]


@dataclass
class Worker:
    """A running daemon."""

    engine: Engine
    admin: str
    daemon: Program
    environment: Mapping[str, str] = field(default_factory=dict)
    """The settings that it runs with."""
    prefix: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.prefix = ("nsenter", f"--net={self.engine.namespace.path}")

    async def vipmesh(self, verb: str, *names: str) -> str:
        code, output = await call(*VIPMESH, verb, "--admin", self.admin, *names, seconds=55)
        assert code == 0, output
        return output

    async def beside(self, verb: str) -> str:
        """What a command prints that needs the settings and no daemon, as `doctor` does."""
        settings = (f"{name}={value}" for name, value in self.environment.items())
        return (await call("env", *settings, *self.prefix, *VIPMESH, verb))[1]

    async def endpoints(self) -> list[dict[str, Any]]:
        shown = await status(self.admin)
        return [endpoint for service in shown["services"] for endpoint in service["endpoints"]]

    async def serving(self, *names: str) -> list[dict[str, Any]]:
        """Wait until exactly these containers take connections."""
        return await eventually(
            self.endpoints, lambda now: sorted(e["name"] for e in now if e["serving"]) == sorted(names), 20
        )

    async def vip(self) -> str:
        return str((await status(self.admin))["services"][0]["vip"])

    @asynccontextmanager
    async def load(self, rate: float = 100, long: int = 4) -> AsyncIterator[Outcome]:
        """Load on the first service, port 80, while the block runs; the outcome is filled in after it."""
        async with load(self.prefix, await self.vip(), rate=rate, long=long) as outcome:
            yield outcome


@asynccontextmanager
async def load(
    prefix: Sequence[str], address: str, port: int = 80, *, rate: float, long: int, patience: float = 10
) -> AsyncIterator[Outcome]:
    """Load on an address from a namespace while the block runs; the outcome is filled in after it."""
    outcome = Outcome({}, [])
    url = f"http://{address}:{port}/"
    # An endpoint is shown as serving when it is healthy, a moment before the data plane has it.
    await eventually(partial(call, *prefix, "curl", "-s", "-o", "/dev/null", url), lambda r: r[0] == 0)
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, str(LOAD), address, str(port), str(rate), str(long), str(patience)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"loading\n"
        yield outcome
        answer = json.loads((await process.communicate(b""))[0])
        outcome.done, outcome.failures = answer["done"], answer["failures"]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


_STARTED = 120.0
"""Seconds in which a daemon has its data plane, on a machine that runs twenty busy processes, too."""
POOLS = {"userspace": "127.113.0.0/16", "nftables": "10.113.0.0/16"}
"""Data plane -> its VIPs: the proxy's are on the namespace's loopback."""


@asynccontextmanager
async def worker(
    engine: Engine,
    directory: Path,
    drain_timeout: int = 15,
    plane: str = "userspace",
    *,
    teardown: bool = True,
    **settings: str,
) -> AsyncIterator[Worker]:
    """A daemon; what it leaves in the kernel is gone afterwards, unless the next one shall find it."""
    admin = f"unix://{directory}/admin.sock"
    environment = {
        "VIPMESH_NODE_NAME": "w1",
        "VIPMESH_VIP_POOL": POOLS[plane],
        "VIPMESH_DATAPLANE_DRIVER": plane,
        "VIPMESH_DATAPLANE_DRAIN_TIMEOUT": str(drain_timeout),
        "VIPMESH_DNS_LISTEN": "127.0.0.1:5353",
        "VIPMESH_DNS_UPSTREAM": "127.0.0.1:5354",
        "VIPMESH_STORE_URL": f"sqlite:///{directory}/store.db",
        "VIPMESH_ADMIN_LISTEN": admin,
        "VIPMESH_SOURCE_DOCKER_SOCKET": engine.url,
        **settings,
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VIPMESH_")}
    prefix = ("nsenter", f"--net={engine.namespace.path}")
    try:
        async with vipmesh("run", environment={**clean, **environment}, prefix=prefix) as daemon:
            await daemon.line(f"data plane {plane}", _STARTED)
            yield Worker(engine, admin, daemon, environment)
    finally:
        if plane != "userspace" and teardown:
            code, output = await call(
                "env", *(f"{k}={v}" for k, v in environment.items()), *prefix, *VIPMESH, "teardown"
            )
            assert code == 0, output
