"""A whole daemon over a store with hostile records: it serves its own, says what it refuses, and starts again."""

import asyncio
import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.store.sqlite import SqliteStore
from tests.model.test_gate import POISON
from tests.store.etcd.server import EtcdServer, etcd, worker
from tests.system.e2e.programs import call, eventually, free_port, status, vipmesh

SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.114.0.0/16"
[dataplane]
driver = "userspace"
[dns]
listen = ["127.0.0.1:{dns}"]
upstream = ["127.0.0.1:{upstream}"]
[store]
url = "{store}"
saved_view = "{directory}/state/view.json"
[peers]
listen = "off"
[admin]
listen = "unix://{directory}/run/admin.sock"
[source.compose]
files = ["{directory}/compose.yaml"]
"""
COMPOSE = """
name: shop
services:
  web:
    labels: {{mesh.routing.port_80: "web.shop.test:8000", mesh.probe.url: "tcp://container:{port}"}}
    x-endpoints: ["127.0.0.21:{port}"]
"""
BAD_ADDRESS = {"v": 1, "id": "shop/web/9", "owner": "shop/web", "worker": "w0", "address": "x"}
BAD_WEIGHT = {"v": 1, "id": "other", "owner": "a/b", "worker": "w0", "address": "10.0.0.1", "weight": -1}
OTHERS = {
    "workers/w0/endpoints/shop%2Fweb%2F9": json.dumps(BAD_ADDRESS).encode(),
    "workers/w0/endpoints/other": json.dumps(BAD_WEIGHT).encode(),
    "workers/w0/daemon": b'{"version": 5}',
    "workers/%FF/daemon": b"\xff",
    "health/w0/x": b'{"health": "dead"}',
    "claims/names/no dns name": b'{"owner": "shop/web"}',
    "claims/names/a..b": b'{"owner": "shop/web"}',
    "claims/services/web.shop.other": b'{"vip": "0.0.0.0"}',
    "claims/ports/tcp/99999999999999999999": b'{"name": "web.test", "container_port": 1}',
    "claims/ports/icmp/1": b'{"name": "web.test", "container_port": 1}',
    "claims/vips/127.114.0.9/../x": b"{}",
    "origins/x": b"whatever",
}


def hostile() -> dict[str, bytes]:
    found = {
        f"workers/w{n}/services/x{n}": v if isinstance(v, bytes) else v.encode()
        for n, v in enumerate(POISON.values(), 2)
    }
    return found | OTHERS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "etcd") as running:
        yield running


def write_settings(directory: Path, store: str) -> tuple[Path, int, int]:
    """The settings file, the port of the name server and that of the endpoint."""
    dns, port = free_port(), free_port()
    (directory / "compose.yaml").write_text(COMPOSE.format(port=port))
    settings = directory / "vipmesh.toml"
    settings.write_text(SETTINGS.format(dns=dns, upstream=free_port(), store=store, directory=directory))
    return settings, dns, port


async def works(directory: Path, settings: Path, dns: int, port: int, refused: int) -> None:
    """Start the daemon twice: it serves its own service, and says what it refuses."""
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.21", port)
    try:
        for _ in range(2):
            async with vipmesh("run", "-c", str(settings)) as daemon:
                await daemon.line("data plane userspace")
                shown = await eventually(
                    lambda: status(f"unix://{directory}/run/admin.sock"),
                    lambda s: [e["serving"] for v in s["services"] for e in v["endpoints"]] == [True],
                )
                assert len([line for line in shown["problems"] if "it cannot be read" in line]) >= refused
                assert not [line for line in shown["problems"] if "internal" in line], shown["problems"]
                for _ in range(50):  # connections that are reset at once
                    with socket.socket() as client:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.connect(("127.0.0.1", dns))
                code, output = await call("dig", "@127.0.0.1", "-p", str(dns), "+short", "+tcp", "web.shop.test")
                assert (code, output.strip()) == (0, shown["services"][0]["vip"])
                settings.rename(directory / "kept.toml")
                os.mkfifo(settings)
                daemon.send(signal.SIGHUP)
                await daemon.line("it is not a regular file")
                settings.unlink()
                (directory / "kept.toml").rename(settings)
                assert (await status(f"unix://{directory}/run/admin.sock"))["worker"] == "w1"
                assert await daemon.end() == 0
    finally:
        listener.close()


async def test_over_the_embedded_store(tmp_path: Path) -> None:
    settings, dns, port = write_settings(tmp_path, f"sqlite:///{tmp_path}/state/store.db")
    store = await SqliteStore.open(tmp_path / "state" / "store.db", "w9")
    for key, value in hostile().items():
        await store.claim({key: value})
    await store.close()
    await works(tmp_path, settings, dns, port, refused=20)


async def test_over_etcd_and_the_saved_view(tmp_path: Path, server: EtcdServer) -> None:
    url = server.fresh()
    settings, dns, port = write_settings(
        tmp_path, f"etcd://{server.urls[0].removeprefix('http://')}{url.prefix.rstrip('/')}"
    )
    async with worker(url, "w9") as store:
        for key, value in hostile().items():
            await store.claim({key: value})
    await works(tmp_path, settings, dns, port, refused=15)
