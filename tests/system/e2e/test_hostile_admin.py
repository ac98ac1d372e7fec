"""Hostile requests to the admin port and the unix socket of a real daemon."""

import asyncio
from pathlib import Path

from tests.api.http.hostile_requests import HOSTILE_REQUESTS
from tests.system.e2e.programs import free_port, status, vipmesh

SETTINGS = """
[node]
name = "w1"
[vip]
pool = "127.117.0.0/16"
[dataplane]
driver = "userspace"
[dns]
listen = ["127.0.0.1:{dns}"]
upstream = ["127.0.0.1:{upstream}"]
[store]
url = "sqlite:///{path}/store.db"
[admin]
listen = "unix://{path}/admin.sock"
tcp = "127.0.0.1:{port}"
token_file = "{path}/token"
"""


async def test_hostile_requests_get_a_4xx_and_the_daemon_runs_on(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    file = tmp_path / "vipmesh.toml"
    file.write_text(SETTINGS.format(path=tmp_path, dns=free_port(), upstream=free_port(), port=port))
    async with vipmesh("run", "-c", str(file)) as daemon:
        await daemon.line("dns on")
        for over_tcp in (True, False):
            for request in HOSTILE_REQUESTS:
                if over_tcp:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                else:
                    reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
                writer.write(request)
                async with asyncio.timeout(10):
                    first = await reader.readline()
                assert 400 <= int(first.split()[1]) < 500, request
                writer.close()
        shown = await status(f"unix://{tmp_path}/admin.sock")
        assert [problem for problem in shown["problems"] if "VM751" in str(problem)] == []
        assert await daemon.end() == 0
        assert "Traceback" not in "".join(daemon.output)
        assert " ERROR " not in "".join(daemon.output)
