"""Addresses of containers, on a real engine through the whole daemon: each answers through its VIP."""

import asyncio
from pathlib import Path

import pytest

from tests.system.docker.engine import Engine
from tests.system.docker.worker import Worker, worker
from tests.system.e2e.programs import call, eventually

WORKER = "172.29.0.1"
"""The worker's address: that of its bridge, since the namespace has no other network."""
WHO = "/cgi-bin/who"


def labels(port: int = 80) -> dict[str, str]:
    """Port 80 of the VIP leads to this port. A container on the host's network listens at the VIP itself, too."""
    return {f"mesh.routing.port_{port}": "http://web.test", "mesh.probe.url": f"http://container:{port}/"}


async def answers(mesh: Worker, says: str) -> None:
    """Wait until the VIP answers, and check who does."""
    vip = await mesh.vip()
    url = f"http://{f'[{vip}]' if ':' in vip else vip}{WHO}"

    async def fetch() -> str:
        return (await call(*mesh.prefix, "curl", "-gs", "--max-time", "2", url))[1].strip()

    assert await eventually(fetch, lambda answer: answer == says, 20) == says


async def host_name(engine: Engine, name: str) -> str:
    return await engine.adocker("exec", name, "cat", "/etc/hostname")


@pytest.mark.parametrize("plane", ["userspace", "nftables"])
async def test_a_container_on_the_hosts_network(engine: Engine, tmp_path: Path, plane: str) -> None:
    command = ("httpd", "-f", "-p", "8085", "-h", "/www")
    options = ("--init", "--network", "host", "--hostname", "on-host")
    await asyncio.to_thread(engine.run, "bridge-is-up")
    await asyncio.to_thread(engine.run, "web-1", *options, labels=labels(8085), command=command)
    async with worker(engine, tmp_path, plane=plane, VIPMESH_NODE_ADDRESS=WORKER) as mesh:
        (endpoint,) = await mesh.serving("web-1")
        assert endpoint["address"] == WORKER
        await answers(mesh, "on-host")


@pytest.mark.parametrize("plane", ["userspace", "nftables"])
async def test_a_port_that_docker_publishes_on_the_worker(engine: Engine, tmp_path: Path, plane: str) -> None:
    await asyncio.to_thread(engine.run, "web-1", "--init", "-p", "80", labels=labels())
    await asyncio.to_thread(engine.run, "web-2", "--init", labels=labels())
    async with worker(
        engine,
        tmp_path,
        plane=plane,
        VIPMESH_NODE_ADDRESS=WORKER,
        VIPMESH_SOURCE_DOCKER_ENDPOINT_ADDRESS="host",
    ) as mesh:
        (endpoint,) = await mesh.serving("web-1")
        assert endpoint["address"] == WORKER
        await answers(mesh, await host_name(engine, "web-1"))


@pytest.mark.parametrize("plane", ["userspace", "nftables"])
async def test_several_networks_and_the_network_of_another(engine: Engine, tmp_path: Path, plane: str) -> None:
    await engine.adocker("network", "create", "--subnet", "172.30.1.0/24", "back")
    await engine.adocker("network", "create", "--subnet", "172.30.2.0/24", "front")
    await asyncio.to_thread(engine.run, "sidecar", "--init", "--network", "front", command=("sleep", "1000"))
    await engine.adocker("network", "connect", "back", "sidecar")
    await asyncio.to_thread(engine.run, "web-1", "--network", "container:sidecar", labels=labels())
    async with worker(engine, tmp_path, plane=plane) as mesh:
        (endpoint,) = await mesh.serving("web-1")
        assert endpoint["address"].startswith("172.30.2."), "the network that it was created with"
        await answers(mesh, await host_name(engine, "sidecar"))
        await engine.adocker("network", "disconnect", "front", "sidecar")
        await eventually(mesh.endpoints, lambda now: [e["address"][:9] for e in now if e["serving"]] == ["172.30.1."])
        await answers(mesh, await host_name(engine, "sidecar"))


@pytest.mark.parametrize("plane", ["userspace", "nftables"])
async def test_ipv6(engine: Engine, tmp_path: Path, plane: str) -> None:
    await engine.adocker("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six")
    command = ("httpd", "-f", "-p", "[::]:80", "-h", "/www")
    await asyncio.to_thread(engine.run, "web-1", "--init", "--network", "six", labels=labels(), command=command)
    async with worker(engine, tmp_path, plane=plane, VIPMESH_VIP_POOL="fd00:113::/64") as mesh:
        (endpoint,) = await mesh.serving("web-1")
        assert endpoint["address"].startswith("fd00:77::")
        await answers(mesh, await host_name(engine, "web-1"))


async def test_a_paused_container_gets_no_new_connection_and_answers_open_ones_later(
    engine: Engine, tmp_path: Path
) -> None:
    for name in ("web-1", "web-2"):
        await asyncio.to_thread(engine.run, name, "--init", labels=labels())
    async with worker(engine, tmp_path, plane="nftables") as mesh:
        await mesh.serving("web-1", "web-2")
        async with mesh.load() as outcome:
            await engine.adocker("pause", "web-1")
            await mesh.serving("web-2")
            await engine.adocker("unpause", "web-1")
            await mesh.serving("web-1", "web-2")
        assert outcome.failures == []
