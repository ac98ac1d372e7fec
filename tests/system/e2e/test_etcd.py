"""`vipmesh run` on etcd: records shared by workers, and a start, a status and a VIP without the store."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.etcd.server import EtcdServer, etcd
from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, status, vipmesh

COMPOSE = """
name: shop
services:
  web:
    labels:
      mesh.routing.port_80: http://web.shop.test:8000
      mesh.probe.url: tcp://container:80
    x-endpoints: ["127.0.0.21:{port}"]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def settings(server: EtcdServer, tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(port=free_port()))
    file = tmp_path / "vipmesh.toml"
    file.write_text(
        f"""
        [node]
        name = "w1"
        [vip]
        pool = "127.113.0.0/16"
        [dataplane]
        driver = "userspace"
        [dns]
        listen = ["127.0.0.1:{free_port()}"]
        upstream = ["127.0.0.1:{free_port()}"]
        [store]
        url = "etcd://127.0.0.1:1,{server.urls[0].removeprefix("http://")}/vipmesh"
        saved_view = "{tmp_path}/state/view.json"
        [admin]
        listen = "unix://{tmp_path}/run/admin.sock"
        [source.compose]
        files = ["{tmp_path}/compose.yaml"]
        """
    )
    return file


async def test_endpoints_and_verdicts_of_another_worker_are_followed(
    server: EtcdServer, settings: Path, tmp_path: Path
) -> None:
    admin = f"unix://{tmp_path}/run/admin.sock"
    endpoint = {"v": 9, "id": "e", "owner": "shop/web", "worker": "w2", "address": "10.2.0.9", "newer": [1]}
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lambda: status(admin), lambda s: bool(s["services"] and s["services"][0]["vip"]))
        keys = server.ctl("get", "--prefix", "--keys-only", "/vipmesh/").split()
        assert "/vipmesh/claims/services/web.shop.test" in keys
        assert "/vipmesh/workers/w1/services/shop%2Fweb" in keys
        assert "/vipmesh/workers/w1/daemon" in keys
        server.ctl("put", "/vipmesh/workers/w2/endpoints/e", json.dumps(endpoint))
        server.ctl("put", "/vipmesh/health/w2/e", '{"v":9,"health":"healthy"}')

        def serving(shown: dict[str, Any]) -> bool:
            endpoints = shown["services"][0]["endpoints"]
            return [e["address"] for e in endpoints if e["serving"]] == ["10.2.0.9"]

        await eventually(lambda: status(admin), serving)
        server.ctl("del", "/vipmesh/health/w2/e")
        shown = await eventually(lambda: status(admin), lambda s: not serving(s))
        assert shown["problems"] == []
        assert await daemon.end() == 0


async def test_a_worker_starts_while_the_store_is_unreachable_and_keeps_its_vip(
    server: EtcdServer, settings: Path, tmp_path: Path
) -> None:
    admin = f"unix://{tmp_path}/run/admin.sock"
    view = tmp_path / "state" / "view.json"

    async def vip() -> str | None:
        shown = await status(admin)
        return shown["services"][0]["vip"] if shown["services"] else None

    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        before = await eventually(vip, lambda address: address is not None)
        assert before is not None
        async with asyncio.timeout(10):
            while not view.exists() or before not in view.read_text():
                await asyncio.sleep(0.05)
        server.stop()
        shown = await eventually(lambda: status(admin), lambda s: bool(s["frozen"]))
        assert shown["frozen"][0].startswith("since 20")
        assert shown["services"][0]["vip"] == before
        await daemon.end(signal.SIGKILL)
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("starting with the view saved in")
        assert await eventually(vip, lambda address: address is not None) == before
        assert str(view) in (await status(admin))["frozen"][0]
        await eventually(lambda: status(admin), lambda s: "Connection refused" in s["frozen"][0])
        server.start()
        await eventually(lambda: status(admin), lambda s: not s["frozen"])
        assert await vip() == before
        assert await daemon.end() == 0


async def test_users_that_etcd_begins_to_require_are_reported(
    server: EtcdServer, settings: Path, tmp_path: Path
) -> None:
    """The open watch and the keepalives of the lease go on without a user."""
    admin = f"unix://{tmp_path}/run/admin.sock"
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lambda: status(admin), lambda s: bool(s["services"] and s["services"][0]["vip"]))
        assert not (await status(admin))["frozen"]
        server.ctl("user", "add", "root:secret")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("auth", "enable")
        server.tls = ["--user", "root:secret"]
        (frozen,) = (await eventually(lambda: status(admin), lambda s: bool(s["frozen"])))["frozen"]
        assert "etcd requires a user: set [store] user and password" in frozen
        _, shown = await call(*VIPMESH, "status", "--admin", admin)
        assert "set [store] user and password" in shown
        assert "[VM402]" in shown
        server.ctl("auth", "disable")
        await eventually(lambda: status(admin), lambda s: not s["frozen"])


async def test_a_worker_without_etcd_says_one_thing_everywhere(
    server: EtcdServer, settings: Path, tmp_path: Path
) -> None:
    admin = f"unix://{tmp_path}/run/admin.sock"
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lambda: status(admin), lambda s: bool(s["services"] and s["services"][0]["vip"]))
        server.stop()
        shown = await eventually(lambda: status(admin), lambda s: bool(s["frozen"]))
        (line,) = shown["frozen"]
        assert "; this worker is cut off from etcd: VIPs, names and endpoints stay as they were read last" in line
        for verb in (("status",), ("workers",), ("explain", "web.shop.test"), ("explain", "nobody"), ("doctor",)):
            where = ("-c", str(settings)) if verb == ("doctor",) else ("--admin", admin)
            _, output = await call(*VIPMESH, *verb, *where)
            assert line in output, verb
        events = await eventually(
            lambda: call(*VIPMESH, "events", "--admin", admin), lambda told: "is cut off from etcd" in told[1]
        )
        assert line in events[1]
        assert await daemon.end() == 0
