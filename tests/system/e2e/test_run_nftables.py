"""The whole daemon on the nftables data plane: labels to connections between namespaces, a kill, a repair, teardown."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.netns import private_network, run_command, run_ip
from tests.system.e2e.programs import CI, VIPMESH, call, eventually, status, vipmesh
from tests.system.ipvs.endpoints import filter_bridged
from tests.system.ipvs.lab import BACKENDS, PORT, Client, Lab, Servers, ask_name, ask_tcp, name_in

SETTINGS = """
[node]
name = "w1"
[vip]
pool = "10.112.0.0/16"
[dataplane]
driver = "nftables"
[dns]
listen = ["10.1.0.1:53"]
upstream = ["127.0.0.1:9"]
[source.compose]
files = ["{directory}/compose.yaml"]
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
"""

COMPOSE = """
name: shop
services:
  web:
    x-endpoints: [{endpoints}]
    labels:
      mesh.routing.port_{port}: http://web.shop.test
      mesh.routing.publish.port_{port}: "30080"
      mesh.probe.url: tcp://container:{port}
"""


async def own_service(lab: Lab, key: VirtualKey) -> str:
    """Which backend answers backend a; empty if none does within a few seconds."""
    with lab.on_backend_socket("a") as sock, suppress(TimeoutError):
        async with asyncio.timeout(3):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (key.address, key.port))
            await loop.sock_sendall(sock, b"hello\n")
            return name_in(await loop.sock_recv(sock, 100))
    return ""


FORWARD_DROPS = """
table ip isolation {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established accept
    }
}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        lab = Lab(ipvs=False)
        yield lab
        lab.close()


@pytest.fixture
async def servers(lab: Lab) -> AsyncIterator[Servers]:
    async with Servers(lab) as servers:
        for name in BACKENDS:
            await servers.start(name)
        yield servers


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(SETTINGS.format(directory=tmp_path))
    write(tmp_path, *BACKENDS)
    return settings


def write(directory: Path, *names: str) -> None:
    endpoints = ", ".join(f'"{BACKENDS[name].address}"' for name in names)
    (directory / "compose.yaml").write_text(COMPOSE.format(endpoints=endpoints, port=PORT))


def serving(shown: dict[str, Any]) -> list[bool]:
    return [endpoint["serving"] for service in shown["services"] for endpoint in service["endpoints"]]


async def answers(lab: Lab, key: VirtualKey) -> set[str]:
    return {await ask_tcp(lab, key) for _ in range(4)}


async def answers_if_any(lab: Lab, key: VirtualKey) -> set[str]:
    """The same; empty while connections are refused."""
    try:
        return await answers(lab, key)
    except ConnectionRefusedError:
        return set()


async def test_from_labels_to_a_connection_that_outlives_the_daemon(
    lab: Lab, servers: Servers, settings: Path, tmp_path: Path
) -> None:
    admin = f"unix://{tmp_path}/admin.sock"
    published = VirtualKey("10.1.0.1", 30080, Transport.TCP)
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane nftables: asked for by")
        await eventually(lambda: status(admin), lambda s: serving(s) == [True, True])
        # The name comes after the VIP, and the VIP after the verdict that the status shows.
        vip = await eventually(lambda: ask_name(lab), bool)
        web = VirtualKey(vip, 80, Transport.TCP)
        # Until the pass that follows the verdicts, the VIP refuses: it had no endpoint.
        await eventually(lambda: answers_if_any(lab, web), lambda names: names == {"a", "b"})
        assert await answers(lab, published) == {"a", "b"}
        established = Client(lab)
        await established.connect(web)
        served_by = await established.echo()
        before = run_command("nft", "-a", "list", "table", "ip", "vipmesh_lb")
        await daemon.end(signal.SIGKILL)

    assert await established.echo() == served_by
    assert await ask_tcp(lab, web) in BACKENDS
    async with vipmesh("run", "-c", str(settings)) as successor:
        await successor.line("adopted 2 virtual servers with 2 real servers|adopted 3 virtual servers")
        await eventually(lambda: status(admin), lambda s: serving(s) == [True, True])
        assert run_command("nft", "-a", "list", "table", "ip", "vipmesh_lb") == before, "a restart writes nothing"

        run_command("nft", "flush", "ruleset")
        await successor.line("repaired: the data plane was changed outside vipmesh: add virtual server", seconds=25)
        assert await ask_tcp(lab, web) in BACKENDS
        assert "masquerade" in run_command("nft", "list", "table", "ip", "vipmesh")

        write(tmp_path, "a")
        await eventually(lambda: answers(lab, web), lambda names: names == {"a"})
        if filter_bridged("1"):
            assert await eventually(lambda: own_service(lab, web), bool) == "a"
            run_ip("link set dev ea type bridge_slave hairpin off")
            await successor.line("repaired: hairpin on at bridge port ea", seconds=25)
            assert await own_service(lab, web) == "a"
        assert await successor.end() == 0
    assert await ask_tcp(lab, web) == "a", "stopping the daemon leaves the data plane running"

    code, said = await call(*VIPMESH, "teardown", "-c", str(settings))
    assert code == 0, said
    assert "delete nftables table ip vipmesh_lb" in said
    assert "vipmesh" not in run_command("nft", "list", "ruleset")
    assert "mesh0" not in run_command("ip", "link")
    assert "hairpin on" not in run_command("ip", "-d", "link")
    await established.close()


async def test_requests_that_a_firewall_drops_are_reported_until_it_lets_them_pass(
    lab: Lab, servers: Servers, settings: Path, tmp_path: Path
) -> None:
    admin = f"unix://{tmp_path}/admin.sock"
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("data plane nftables")
        await eventually(lambda: status(admin), lambda s: serving(s) == [True, True])
        vip = await eventually(lambda: ask_name(lab), bool)
        web = VirtualKey(vip, 80, Transport.TCP)
        assert await ask_tcp(lab, web) in BACKENDS
        run_command("nft", "-f", "-", given=FORWARD_DROPS)

        async def tried() -> dict[str, Any]:
            for _ in range(3):
                lab.knock(web)
            return await status(admin)

        reported = "warning: service shop/web: requests from other hosts have not arrived since "
        shown = await eventually(tried, lambda s: any(reported in line for line in s["problems"]), 120)
        assert [service["not_arriving"] for service in shown["services"]] == [["other hosts"]]
        code, said = await call(*VIPMESH, "explain", "web.shop.test", "--admin", admin)
        assert code == 1, "a request does not arrive"
        assert (
            "not-arriving: requests from other hosts do not arrive: a packet filter of this worker drops them" in said
        )

        run_command("nft", "delete table ip isolation")
        assert await ask_tcp(lab, web) in BACKENDS
        await eventually(lambda: status(admin), lambda s: s["problems"] == [], 120)
        assert (await call(*VIPMESH, "explain", "web.shop.test", "--admin", admin))[0] == 0
        assert await daemon.end() == 0
