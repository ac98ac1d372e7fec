"""A drain that lasts, typed at a real daemon: its progress, and Ctrl-C."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.system.e2e.programs import VIPMESH, eventually, free_port, status, vipmesh

COMPOSE = """
name: shop
services:
  web:
    labels:
      mesh.routing.port_80: http://web.shop.test:8000
    x-endpoints: ["127.0.0.21:{port}", "127.0.0.22:{port}", "127.0.0.23:{port}"]
"""
SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.114.0.0/16"
[dataplane]
driver = "userspace"
drain_timeout = 600
[dns]
listen = ["127.0.0.1:{dns}"]
upstream = ["127.0.0.1:9"]
[store]
url = "sqlite:///{directory}/state.db"
[admin]
listen = "unix://{directory}/admin.sock"
audit_file = "{directory}/audit.log"
[source.compose]
files = ["{directory}/compose.yaml"]
"""


def close(connections: Mapping[str, list[asyncio.StreamWriter]]) -> None:
    for writers in connections.values():
        for writer in writers:
            writer.close()


async def test_ctrl_c_ends_what_has_not_begun(tmp_path: Path) -> None:
    port, admin = free_port(), f"unix://{tmp_path}/admin.sock"
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(port=port))
    (tmp_path / "vipmesh.toml").write_text(SETTINGS.format(directory=tmp_path, dns=free_port()))
    asked: dict[str, list[asyncio.StreamWriter]] = {}

    async def endpoint(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.setdefault(writer.get_extra_info("sockname")[0], []).append(writer)

    servers = [await asyncio.start_server(endpoint, f"127.0.0.2{n}", port) for n in (1, 2, 3)]

    async def endpoints() -> dict[str, dict[str, Any]]:
        services = (await status(admin))["services"]
        return {row["address"]: row for row in services[0]["endpoints"]} if services else {}

    async with AsyncExitStack() as stack:
        for server in servers:
            stack.callback(server.close)
        stack.callback(close, asked)
        async with vipmesh("run", "-c", str(tmp_path / "vipmesh.toml")) as daemon:
            await daemon.line("data plane userspace")
            shown = await eventually(endpoints, lambda rows: sum(row["serving"] for row in rows.values()) == 3)
            vip = (await status(admin))["services"][0]["vip"]
            clients = []
            while len(asked) < 3:  # one connection to each endpoint
                clients.append(await asyncio.open_connection(vip, 8000))
                await eventually(lambda: asyncio.sleep(0, sum(map(len, asked.values()))), lambda n: n == len(clients))
            ids = [shown[f"127.0.0.2{n}"]["id"] for n in (1, 2)]
            typed = await asyncio.create_subprocess_exec(
                *VIPMESH,
                "drain",
                *ids,
                "--admin",
                admin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert typed.stderr is not None
            async with asyncio.timeout(60):
                line = (await typed.stderr.readline()).decode()
            assert line == f"{ids[0]}: drains, connections left: {len(asked['127.0.0.21'])}\n"
            typed.send_signal(signal.SIGINT)
            async with asyncio.timeout(60):
                printed, said = await typed.communicate()
            assert (typed.returncode, printed) == (130, b"")
            assert f"{ids[0]}: interrupted; it stays drained" in said.decode()
            assert f"nothing was done to {ids[1]} [VM685]" in said.decode()

            async def audit() -> str:
                return (tmp_path / "audit.log").read_text()

            lines = await eventually(audit, lambda text: "the client has gone" in text)
            assert ids[1] not in lines
            assert {each: row["drain"] for each, row in (await endpoints()).items()} == {
                "127.0.0.21": "asked",
                "127.0.0.22": None,
                "127.0.0.23": None,
            }
            for _, writer in clients:
                writer.close()
            assert await daemon.end() == 0
