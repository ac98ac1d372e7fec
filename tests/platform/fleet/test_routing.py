"""Two releases that the engine runs are one service of the mesh, by their owner label, and its VIP leads to both."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mesh.platform.fleet.protocol import FleetContainer, FleetPort, FleetSpec
from mesh.platform.fleet.swarm import SwarmFleet
from tests.system.docker.engine import IMAGE, Engine
from tests.system.docker.worker import worker
from tests.system.e2e.programs import call, eventually, status

WORKER = "172.29.0.1"
"""The worker's address: that of its bridge, since the namespace has no other network."""


def release(name: str) -> FleetSpec:
    labels = {
        "mesh.service": "shop/web",
        "mesh.routing.port_80": "web.test",
        "mesh.routing.release": name,
        "mesh.probe.url": "http://container:80/",
        "mesh.probe.interval_seconds": "0.3",
    }
    container = FleetContainer(IMAGE, args=("httpd", "-f", "-p", "80", "-h", "/www"), labels=labels, init=True)
    return FleetSpec(f"shop_web--{name}", container, {"mesh.stack": "shop"}, ports=(FleetPort(80),))


@pytest.mark.parametrize("address", ["container", "host"])
async def test_two_releases_are_one_service_and_its_vip_leads_to_both(
    fleet_engine: Engine, tmp_path: Path, address: str
) -> None:
    fleet = SwarmFleet(fleet_engine.url)
    if not (await fleet.state()).is_active:
        await fleet.initialize()
    ids = [await fleet.create(release(name)) for name in ("v1", "v2")]
    try:
        async with worker(
            fleet_engine, tmp_path, VIPMESH_NODE_ADDRESS=WORKER, VIPMESH_SOURCE_DOCKER_ENDPOINT_ADDRESS=address
        ) as mesh:

            async def services() -> list[dict[str, Any]]:
                shown: list[dict[str, Any]] = (await status(mesh.admin))["services"]
                return shown

            def both_serve(now: list[dict[str, Any]]) -> bool:
                serving = [each for one in now for each in one["endpoints"] if each["serving"]]
                return len(serving) == 2

            (service,) = await eventually(services, both_serve, 40)
            assert service["owner"] == "shop/web"
            assert sorted(each["release"] for each in service["endpoints"]) == ["v1", "v2"]
            on_worker = [each["address"] == WORKER for each in service["endpoints"]]
            assert on_worker == [address == "host"] * 2
            vip = await mesh.vip()

            async def answer() -> str:
                return (await call(*mesh.prefix, "curl", "-s", f"http://{vip}/cgi-bin/who"))[1].strip()

            seen = set()

            async def hosts() -> set[str]:
                seen.add(await answer())
                return {each for each in seen if each}

            containers = [task.container_id[:12] for task in await fleet.tasks() if task.desired == "running"]
            assert await eventually(hosts, lambda now: len(now) == 2, 40) == set(containers)
    finally:
        await asyncio.gather(*map(fleet.remove, ids))
