"""`vipmesh explain`: a real daemon, an endpoint that answers, one that does not, a label that is refused."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.e2e.programs import VIPMESH, call, eventually, free_port, vipmesh

COMPOSE = """
name: shop
services:
  web:
    labels:
      mesh.routing.port_80: http://web.shop.test:8000
      mesh.probe.url: http://container:80/health
      mesh.probe.interval_seconds: "0.2"
      mesh.probe.timeout_seconds: "0.2"
    x-endpoints: ["127.0.0.21:{good}", "127.0.0.22:{bad}"]
  zoo:
    labels: {{mesh.routing.port_80: "web.shop.test:8001"}}
    x-endpoints: [127.0.0.23]
  bad:
    labels: {{mesh.routing.port_80: "http://x.test/path"}}
    x-endpoints: [127.0.0.24]
"""
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
url = "sqlite:///{path}/store.db"
[admin]
listen = "unix://{path}/admin.sock"
[source.compose]
files = ["{path}/compose.yaml"]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(good=free_port(), bad=free_port()))
    file = tmp_path / "vipmesh.toml"
    file.write_text(SETTINGS.format(path=tmp_path, dns=free_port(), upstream=free_port()))
    return file


async def explained(asked: str, settings: Path) -> dict[str, Any]:
    _, output = await call(*VIPMESH, "explain", asked, "--json", "-c", str(settings))
    answer: dict[str, Any] = json.loads(output)
    return answer


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def settled(explanation: dict[str, Any]) -> bool:
    endpoints = [endpoint for way in explanation["ways"] for endpoint in way["endpoints"]]
    return sorted(endpoint["serving"] for endpoint in endpoints) == [False, True] and all(
        endpoint["last_probe"] for endpoint in endpoints
    )


async def test_explain_of_a_name_shows_serving_and_failing_endpoints(settings: Path) -> None:
    port = int(settings.with_name("compose.yaml").read_text().partition("127.0.0.21:")[2].partition('"')[0])
    async with await asyncio.start_server(answer, "127.0.0.21", port), vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lambda: explained("shop/web", settings), settled)
        code, text = await call(*VIPMESH, "explain", "http://web.shop.test:8000/x", "-c", str(settings))
        assert code == 0, "a request gets to an endpoint"
        assert f"100%  weight 1    127.0.0.21:{port}" in text
        assert "not-probed-yet: GET http://127.0.0.22:" in text
        assert "/health: refused, " in text
        code, text = await call(*VIPMESH, "explain", "shop/zoo", "-c", str(settings))
        assert code == 1
        assert "name-taken: the name web.shop.test is held by shop/web; give" in text
        code, text = await call(*VIPMESH, "explain", "127.0.0.24", "-c", str(settings))
        assert code == 1
        assert "compose.yaml:15: service bad, label mesh.routing.port_80:" in text
        code, text = await call(*VIPMESH, "explain", "wbe.shop.test", "-c", str(settings))
        assert code == 1
        assert "did you mean web.shop.test?" in text
        assert await daemon.end() == 0
