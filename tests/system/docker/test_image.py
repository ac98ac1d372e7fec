"""The Dockerfile: built on the engine from a base made here, run on the host's network with two capabilities."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.docker import base_image
from tests.system.docker.engine import Engine
from tests.system.e2e.programs import call, eventually

ROOT = Path(__file__).parents[3]
SERVER = {"aliyun.routing.port_80": "restserver.local", "aliyun.probe.url": "http://container:80"}
RESOLVER = "10.112.0.1"
NET_BIND_SERVICE, NET_ADMIN = 10, 12  # linux/capability.h


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    """vipmesh as an image, built as its users build it."""
    with subprocess.Popen(engine.command("import", "-", "mesh-test-base"), stdin=subprocess.PIPE) as loading:
        assert loading.stdin is not None
        base_image.write(loading.stdin)
        loading.stdin.close()
        assert loading.wait(60) == 0
    built = subprocess.run(
        engine.command(
            *("build", "--network", "none", "-t", "vipmesh", "--build-arg", "BASE=mesh-test-base"),
            *("--build-arg", "LOCKED=no", str(ROOT)),
        ),
        env={**os.environ, "DOCKER_BUILDKIT": "0", "HOME": "/nonexistent"},
        capture_output=True,
        check=False,
        timeout=400,
    )
    assert built.returncode == 0, built.stdout.decode()[-3000:] + built.stderr.decode()[-3000:]
    yield "vipmesh"
    engine.remove_all()
    engine.docker("rmi", "-f", "vipmesh", "mesh-test-base")
    engine.docker("image", "prune", "-f")


def remove_what_it_left(engine: Engine) -> None:
    engine.namespace_output("iptables-nft", "-F", "DOCKER-USER")
    engine.namespace_output("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")
    if "mesh0" in engine.namespace_output("ip", "-brief", "link"):
        engine.namespace.ip("link delete mesh0")
    for table in re.findall(r"table (ip vipmesh\S*)", engine.namespace_output("nft", "list", "tables")):
        engine.namespace_output("nft", "delete", "table", *table.split())


async def send_from_own_container(engine: Engine) -> None:
    """`vipmesh test` in the image may not enter namespaces; a drop is found and named all the same."""
    client = "network bridge (container of vipmesh)"

    async def tested() -> list[dict[str, Any]]:
        output = (await call(*engine.command("exec", "mesh", "vipmesh", "test", "--json")))[1]
        return [row for row in json.loads(output)["rows"] if row["client"] == client and row["by"] == "address"]

    (row,) = await tested()
    assert (row["state"], row["outcome"]) == ("ok", "answered"), row
    drop = ("-p", "tcp", "--dport", "80", "-j", "DROP")
    engine.namespace_output("iptables", "-I", "DOCKER-USER", *drop)
    try:
        (row,) = await tested()
    finally:
        engine.namespace_output("iptables", "-D", "DOCKER-USER", *drop)
    assert (row["state"], row["lost_cause"]) == ("failed", "rule"), row
    assert row["lost_at"].startswith("ip filter DOCKER-USER: ")
    assert await engine.adocker("ps", "-aq", "--filter", "label=io.vipmesh.test") == "", "none is left"


@pytest.mark.timeout(600)
async def test_the_image_serves_containers_of_another_network_by_name_and_vip(engine: Engine, image: str) -> None:
    for name in ("server-1", "server-2"):
        await asyncio.to_thread(engine.run, name, "--init", labels=SERVER)
    await engine.adocker("network", "create", "front")
    await asyncio.to_thread(
        engine.run, "client", "--init", "--network", "front", "--dns", RESOLVER, command=("sleep", "1000")
    )
    await engine.adocker(
        *("run", "-d", "--name", "mesh", "--network", "host", "--read-only", "--tmpfs", "/run/vipmesh"),
        *("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_BIND_SERVICE"),
        *("--security-opt", "no-new-privileges", "-v", f"{engine.directory}:/host/run:ro"),
        *("-e", "VIPMESH_SOURCE_DOCKER_SOCKET=unix:///host/run/docker.sock", "-e", "VIPMESH_NODE_NAME=w1"),
        *("-e", "VIPMESH_DATAPLANE_DRIVER=nftables", image),
    )

    async def fetch() -> str:
        script = "for i in 1 2 3 4; do wget -qO- http://restserver.local/cgi-bin/who || true; done"
        return await engine.adocker("exec", "client", "sh", "-c", script)

    async def shown() -> str:
        return (await call(*engine.command("logs", "mesh")))[1]

    try:
        await eventually(fetch, lambda said: len(said.split()) == 4 and len(set(said.split())) == 2, 30)
        state = json.loads(await engine.adocker("exec", "mesh", "vipmesh", "status", "--json"))
        assert [line for line in state["problems"] if "live-restore is off" not in line] == [], "else as it should be"
        (service,) = state["services"]
        assert [endpoint["serving"] for endpoint in service["endpoints"]] == [True, True]

        async def health() -> str:
            return await engine.adocker("inspect", "-f", "{{.State.Health.Status}}", "mesh")

        assert await eventually(health, lambda said: said == "healthy", 30) == "healthy"
        await send_from_own_container(engine)
        process = await engine.adocker("exec", "mesh", "cat", "/proc/1/status")
        effective = re.search(r"CapEff:\s*([0-9a-f]+)", process)
        assert effective is not None
        assert int(effective[1], 16) == 1 << NET_ADMIN | 1 << NET_BIND_SERVICE
        assert "--comment vipmesh" in engine.namespace_output("iptables-nft", "-S", "DOCKER-USER")
        await engine.adocker("stop", "mesh")
        assert await engine.adocker("inspect", "-f", "{{.State.ExitCode}}", "mesh") == "0"
    finally:
        sys.stdout.write(await shown())  # pytest shows it beside a failure
        remove_what_it_left(engine)
