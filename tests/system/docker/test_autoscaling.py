"""A service is scaled by its load: a real engine as a swarm of its own, a real daemon, cgroups of this host."""

import asyncio
from pathlib import Path

import pytest

from tests.system.docker.engine import Engine
from tests.system.docker.test_stacks import vipmesh
from tests.system.docker.worker import worker
from tests.system.e2e.programs import eventually

FILE = """
name: shop
services:
  server:
    image: test_service
    command: ["sh", "-c", "touch /busy; (while [ -e /busy ]; do :; done) & exec httpd -f -p 80 -h /www"]
    deploy: {resources: {limits: {cpus: "0.15"}}}
    labels:
      aliyun.routing.port_80: restserver.mesh.internal
      aliyun.scale: "1"
      aliyun.probe.url: http://container:80
      aliyun.probe.interval_seconds: "1"
      aliyun.probe.timeout_seconds: "1"
      aliyun.auto_scaling.max_cpu: "50"
      aliyun.auto_scaling.min_cpu: "25"
      aliyun.auto_scaling.max_instances: "2"
      aliyun.auto_scaling.cooldown_seconds: "15"
"""


@pytest.mark.timeout(500)
async def test_load_adds_an_instance_and_its_end_removes_it(swarm_engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(FILE)
    async with worker(swarm_engine, tmp_path, plane="nftables") as mesh:
        await vipmesh(mesh, "deploy", "--init", str(file))
        async with mesh.load(20, 1) as outcome:
            await mesh.daemon.line("autoscaling: shop/server: 1 -> 2: CPU", 150)
            await eventually(mesh.endpoints, lambda now: sum(each["serving"] for each in now) == 2, 60)
            assert "nothing to do" in await vipmesh(mesh, "deploy", str(file)), "a deploy keeps the number"
            names = (await swarm_engine.adocker("ps", "--quiet")).split()
            await asyncio.gather(*(swarm_engine.adocker("exec", name, "rm", "/busy") for name in names))
            await mesh.daemon.line("autoscaling: shop/server: 2 -> 1: CPU", 150)
            await eventually(mesh.endpoints, lambda now: sum(each["serving"] for each in now) == 1, 60)
        assert outcome.failures == []
        await vipmesh(mesh, "undeploy", "shop")
