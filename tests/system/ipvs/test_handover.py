"""Another data plane after a restart: connections continue, and state of the former one is removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.netns import run_command
from tests.system.e2e.programs import eventually, status, vipmesh
from tests.system.ipvs.lab import PORT, Client, Lab, Servers, ask_tcp

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(300)]

SLOW = 120.0
SETTINGS = """
[node]
name = "director"
[dataplane]
driver = "{driver}"
[dns]
listen = ["10.1.0.1:53"]
upstream = ["127.0.0.1:9"]
resolver = "off"
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
[source.compose]
files = ["{directory}/compose.yaml"]
"""
COMPOSE = f"""
name: shop
services:
  web:
    x-endpoints: [10.2.0.1]
    labels:
      mesh.routing.port_{PORT}: http://web.shop.test
      mesh.routing.vip: 10.112.0.9
      mesh.routing.publish.port_{PORT}: "30080"
"""
WEB = VirtualKey("10.112.0.9", 80, Transport.TCP)
PUBLISHED = VirtualKey("10.1.0.1", 30080, Transport.TCP)


def rules() -> str:
    return run_command("nft", "list", "tables")


def servers_in_ipvs() -> str:
    return run_command("ipvsadm", "-Sn")


def carries(shown: dict[str, Any]) -> bool:
    """Whether the data plane has the service; it is told of before its VIP is claimed."""
    return any(service["virtual_servers"] for service in shown["services"])


@pytest.mark.parametrize(
    ("former", "then", "left"),
    [
        pytest.param("nftables", "ipvs", lambda: "vipmesh_lb" in rules(), id="from nftables to IPVS"),
        pytest.param("ipvs", "nftables", lambda: "10.112.0.9" in servers_in_ipvs(), id="from IPVS to nftables"),
    ],
)
async def test_the_next_start_takes_over_from_the_former_data_plane(
    lab: Lab, tmp_path: Path, former: str, then: str, left: Callable[[], bool]
) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    settings = tmp_path / "vipmesh.toml"
    admin = f"unix://{tmp_path}/admin.sock"
    async with Servers(lab) as servers:
        await servers.start("a")
        settings.write_text(SETTINGS.format(directory=tmp_path, driver=former))
        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line(f"data plane {former}", seconds=SLOW)
            await eventually(lambda: status(admin), carries, SLOW)
            established = Client(lab)
            await established.connect(WEB)
            assert await established.echo() == "a"
        assert left(), "stopping leaves the data plane running"

        settings.write_text(SETTINGS.format(directory=tmp_path, driver=then))
        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line(f"data plane {then}", seconds=SLOW)
            if then == "nftables":
                await eventually(lambda: status(admin), carries, SLOW)
                assert await established.echo() == "a"
                assert left(), "IPVS leads the connection that is still there"
                await established.close()
            await daemon.line("of an earlier start", seconds=SLOW)
            assert not left()
            if then == "ipvs":
                assert await established.echo() == "a", "conntrack knows where it was led"
                await established.close()
                assert "10.112.0.9:80" in servers_in_ipvs()
            assert await ask_tcp(lab, WEB) == "a"
            assert await ask_tcp(lab, PUBLISHED) == "a"
