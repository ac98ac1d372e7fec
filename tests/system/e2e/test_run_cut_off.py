"""The whole daemon while its path to the endpoints is cut: no service loses its endpoints."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import Namespace, private_network, run_ip
from tests.system.e2e.programs import eventually, status, vipmesh

SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.112.0.0/16"
[dataplane]
low_port_offset = 8000
[dns]
listen = ["127.0.0.1:0"]
resolver = "off"
upstream = ["127.0.0.1:9"]
[source.compose]
files = ["{directory}/compose.yaml"]
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
"""
SIZES = {"alone": 1, "pair": 2, "shop": 4}
SERVICE = """
  {name}:
    x-endpoints: [{endpoints}]
    labels:
      mesh.routing.port_80: {name}.test
      mesh.probe.url: {url}
      mesh.probe.interval_seconds: "0.5"
      mesh.probe.timeout_seconds: "0.4"
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def address(name: str, number: int) -> str:
    return f"10.7.{list(SIZES).index(name)}.{number + 11}"


@pytest.fixture
def away() -> Iterator[Namespace]:
    """Where the endpoints are, at the other end of a cable."""
    with private_network():
        away = Namespace()
        run_ip(
            f"link add cable type veth peer name cable netns {away.path}",
            "address add 10.7.255.1/16 dev cable",
            "link set cable up",
        )
        addresses = [f"address add {address(n, i)}/16 dev cable" for n, size in SIZES.items() for i in range(size)]
        away.ip("link set lo up", *addresses, "link set cable up")
        yield away
        away.close()


@pytest.fixture
async def servers(away: Namespace) -> AsyncIterator[dict[str, asyncio.Server]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4096):
            writer.write(ANSWER)
        writer.close()

    servers: dict[str, asyncio.Server] = {}
    with away.entered():
        for name, size in SIZES.items():
            for number in range(size):
                there = address(name, number)
                servers[there] = await asyncio.start_server(answer, there, 80)
    yield servers
    for server in servers.values():
        server.close()
        await server.wait_closed()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    urls = {"alone": "http://container:80/", "pair": "tcp://container:80", "shop": "http://container:80/health"}
    services = (
        SERVICE.format(name=n, url=urls[n], endpoints=", ".join(f'"{address(n, i)}"' for i in range(size)))
        for n, size in SIZES.items()
    )
    (tmp_path / "compose.yaml").write_text("name: demo\nservices:" + "".join(services))
    file = tmp_path / "vipmesh.toml"
    file.write_text(SETTINGS.format(directory=tmp_path))
    return file


def serving(shown: dict[str, Any]) -> dict[str, int]:
    return {s["name"].partition(".")[0]: sum(e["serving"] for e in s["endpoints"]) for s in shown["services"]}


def unhealthy(shown: dict[str, Any]) -> int:
    return sum(e["health"] == "unhealthy" for s in shown["services"] for e in s["endpoints"])


@pytest.mark.parametrize("end", ["the worker's: unreachable", "the other: silence"])
async def test_every_service_keeps_half_of_its_endpoints(
    away: Namespace, servers: dict[str, asyncio.Server], settings: Path, tmp_path: Path, end: str
) -> None:
    there = run_ip if end.startswith("the worker") else away.ip
    admin = f"unix://{tmp_path}/admin.sock"
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane userspace")
        await eventually(lambda: status(admin), lambda s: serving(s) == SIZES)
        there("link set cable down")
        fewest = dict(SIZES)

        async def look() -> dict[str, Any]:
            shown = await status(admin)
            for name, count in serving(shown).items():
                fewest[name] = min(fewest[name], count)
            return shown

        shown = await eventually(look, lambda s: unhealthy(s) == sum(SIZES.values()), 30)
        for _ in range(3):
            shown = await look()
        assert all(2 * fewest[name] >= size for name, size in SIZES.items()), (fewest, shown)
        assert any("fail at once" in line for line in shown["suspicions"])
        verdicts = shown["services"][0]["endpoints"][0]["verdicts"]
        assert [v["ok"] for v in verdicts][-3:] == [False] * 3
        there("link set cable up")
        await eventually(lambda: status(admin), lambda s: serving(s) == SIZES and not s["suspicions"], 30)
        servers[address("shop", 0)].close()
        await eventually(lambda: status(admin), lambda s: serving(s) == {**SIZES, "shop": 3})
        assert await daemon.end() == 0
