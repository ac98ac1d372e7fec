"""The whole daemon on the engine of the bench, with the nftables data plane."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.docker.engine import Engine

CHECKED = {
    "mesh.routing.port_80": "web.test",
    "mesh.probe.url": "http://container:80/",
    "mesh.probe.interval_seconds": "0.3",
    "mesh.probe.timeout_seconds": "0.3",
}
"""Labels of the service: asked as often as HAProxy asks."""
PATIENCE = 60.0
"""Seconds for anything that is waited for."""


@dataclass
class Mesh:
    """A running daemon."""

    pid: int
    admin: str

    async def vipmesh(self, verb: str, *arguments: str) -> str:
        """The output of a verb; it must succeed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mesh", verb, "--admin", self.admin, *arguments), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said
        return said.decode()

    async def services(self) -> list[dict[str, Any]]:
        """The services of `vipmesh status --json`."""
        found: list[dict[str, Any]] = json.loads(await self.vipmesh("status", "--json"))["services"]
        return found

    async def vip(self) -> str:
        """The first service's."""
        return str((await self.services())[0]["vip"])

    async def serving(self, *names: str) -> None:
        """Wait until exactly these containers take connections."""
        deadline = time.monotonic() + PATIENCE
        while True:
            there = [e["name"] for service in await self.services() for e in service["endpoints"] if e["serving"]]
            if sorted(there) == sorted(names):
                return
            assert time.monotonic() < deadline, f"{sorted(there)} serve after {PATIENCE} s"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def mesh(engine: Engine, directory: Path) -> AsyncIterator[Mesh]:
    """A daemon while the block runs; what it left in the kernel is removed."""
    admin = f"unix://{directory}/admin.sock"
    settings = {
        "VIPMESH_NODE_NAME": "w1",
        "VIPMESH_DATAPLANE_DRIVER": "nftables",
        "VIPMESH_DNS_LISTEN": "127.0.0.1:5353",
        "VIPMESH_DNS_UPSTREAM": "127.0.0.1:9",
        "VIPMESH_STORE_URL": f"sqlite:///{directory}/store.db",
        "VIPMESH_ADMIN_LISTEN": admin,
        "VIPMESH_SOURCE_DOCKER_SOCKET": engine.url,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIPMESH_")} | settings
    log = directory / "log"
    program = (*engine.inside, sys.executable, "-m", "mesh")
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(*program, "run", env=environment, stderr=errors)
    try:
        deadline = time.monotonic() + PATIENCE
        while not Path(admin.removeprefix("unix://")).exists():
            assert process.returncode is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.05)
        yield Mesh(process.pid, admin)
    except BaseException:
        sys.stderr.write(log.read_text()[-8000:])
        raise
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        removing = await asyncio.create_subprocess_exec(
            *program, "teardown", env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        await removing.wait()
        Path(admin.removeprefix("unix://")).unlink(missing_ok=True)
