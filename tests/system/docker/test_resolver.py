"""Containers use the resolver on the interface of the VIPs, and reach services by their VIPs."""

import asyncio
from pathlib import Path

import pytest

from meshdns.server import NameServer
from meshdns.zone import Zone
from tests.system.docker.engine import Engine
from tests.system.docker.worker import worker
from tests.system.e2e.programs import eventually, status

SERVER = {"aliyun.routing.port_80": "restserver.local"}
RESOLVER = "10.112.0.1"


@pytest.mark.parametrize("network", ["bridge", "own"])
async def test_a_container_resolves_services_and_external_names(engine: Engine, tmp_path: Path, network: str) -> None:
    """On a network of its own Docker answers first, and asks us for what it does not know.

    It does so too for a link to a name that no container has, which is what compose makes of `external_links`.
    """
    outside = NameServer(
        [("127.0.0.1", 5354)], Zone.build({"www.example.org": ("192.0.2.80",)}, ["example.org"], ttl=5, serial=1)
    )
    with engine.namespace.entered():
        await outside.start()
    if network == "own":
        await engine.adocker("network", "create", "own")
    await asyncio.to_thread(engine.run, "server-1", "--init", "--network", network, labels=SERVER)
    options = ["--init", "--network", network, "--dns", RESOLVER]
    if network == "own":
        options += ["--link", "restserver.local:restserver.local"]
    await asyncio.to_thread(engine.run, "client-1", *options, command=("sleep", "1000"))
    try:
        async with worker(engine, tmp_path, VIPMESH_VIP_POOL="10.112.0.0/16") as mesh:
            await mesh.serving("server-1")
            vip = await mesh.vip()
            assert f"{RESOLVER}:53" in (await status(mesh.admin))["dns"]

            async def fetch() -> str:
                return await engine.adocker(
                    "exec", "client-1", "sh", "-c", "wget -qO- http://restserver.local/ || true"
                )

            assert await eventually(fetch, lambda answer: answer == "up") == "up"
            found = await engine.adocker("exec", "client-1", "nslookup", "restserver.local")
            assert f"Address: {vip}" in found
            found = await engine.adocker("exec", "client-1", "nslookup", "www.example.org")
            assert "Address: 192.0.2.80" in found
            await mesh.daemon.end()
        shown = engine.namespace_output("ip", "-brief", "address", "show", "mesh0")
        assert f"{RESOLVER}/32" in shown, "what the kernel has stays when the daemon ends"
    finally:
        await outside.stop()
        if "mesh0" in engine.namespace_output("ip", "-brief", "link"):
            engine.namespace.ip("link delete mesh0")
