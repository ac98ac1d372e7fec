"""The whole daemon on real IPVS: from a compose file to a connection, and a restart without interruption."""

import asyncio
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.netns import run_command, run_ip
from tests.system.e2e.programs import VIPMESH, call, eventually, status, vipmesh
from tests.system.ipvs.endpoints import filter_bridged
from tests.system.ipvs.lab import Client, Lab, Servers, ask_name, ask_tcp

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(900)]

SLOW = 300.0
"""Seconds to start a program: the virtual machine may emulate its processor."""

COMPOSE = """
name: shop
services:
  web:
    labels:
      mesh.routing.port_8080: http://web.shop.test
      mesh.routing.publish.port_8080: "30080"
      mesh.routing.scheduler: rr
      mesh.probe.url: tcp://container:8080
      mesh.probe.interval_seconds: "0.5"
      mesh.probe.timeout_seconds: "20"  # an emulated processor that is shared may be slow, a refusal comes at once
    x-endpoints: [10.2.0.1, 10.2.0.2]
"""

SETTINGS = """
[node]
name = "director"
[dns]
listen = ["10.1.0.1:53"]
upstream = ["10.1.0.2:53"]
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
[source.compose]
files = ["{directory}/compose.yaml"]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    file = tmp_path / "vipmesh.toml"
    file.write_text(SETTINGS.format(directory=tmp_path))
    return file


def serving(shown: dict[str, Any]) -> list[bool]:
    """Of every endpoint; none before the first pass."""
    return [endpoint["serving"] for service in shown["services"] for endpoint in service["endpoints"]]


@pytest.fixture
async def servers(lab: Lab) -> AsyncIterator[Servers]:
    async with Servers(lab) as servers:
        yield servers


async def test_from_labels_to_a_connection_that_survives_a_restart(
    lab: Lab, servers: Servers, settings: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        await servers.start(name)
    admin = f"unix://{tmp_path}/admin.sock"
    assert filter_bridged("1"), "needs the module br_netfilter: modprobe br_netfilter"

    async with vipmesh("-v", "run", "-c", str(settings)) as daemon:
        await daemon.line("data plane ipvs: this kernel has IPVS; dns on 10.1.0.1:53", seconds=SLOW)
        await daemon.line("10.2.0.2:8080 healthy", seconds=SLOW)
        shown = await eventually(lambda: status(admin), lambda s: serving(s) == [True, True], SLOW)
        # the name comes after the VIP, and the VIP after the verdict that the status shows
        vip = await eventually(partial(ask_name, lab), bool, SLOW)
        assert vip == shown["services"][0]["vip"]
        web = VirtualKey(vip, 80, Transport.TCP)
        assert {await ask_tcp(lab, web) for _ in range(4)} == {"a", "b"}

        for address in ("10.1.0.1", "10.2.0.254"):
            published = VirtualKey(address, 30080, Transport.TCP)
            assert {await ask_tcp(lab, published) for _ in range(4)} == {"a", "b"}, "on every address of the worker"

        established = Client(lab)
        await established.connect(web)
        served_by = await established.echo()
        before = await eventually(lambda: asyncio.to_thread(run_command, "ipvsadm", "-Sn"), is_complete)
        enough = asyncio.Event()
        loading = asyncio.ensure_future(load(lab, web, enough))
        await daemon.end(signal.SIGKILL)
    assert await established.echo() == served_by, "the kernel forwards while no daemon runs"

    async with vipmesh("-v", "run", "-c", str(settings)) as successor:
        await successor.line("adopted 1 virtual servers with 2 real servers", seconds=SLOW)
        code, said = await call(*VIPMESH, "teardown", "-c", str(settings), seconds=SLOW)
        assert code == 1, "not while a daemon runs"
        assert "stop that daemon" in said
        await eventually(lambda: status(admin), lambda s: bool(s["services"]), SLOW)
        await asyncio.sleep(2)  # several probes and passes: none of them has anything to do
        assert run_command("ipvsadm", "-Sn") == before
        enough.set()
        assert await loading > 20, "every connection through the kill and the restart was answered"
        assert await established.echo() == served_by
        assert await ask_tcp(lab, web) in {"a", "b"}
        await established.close()
        assert await successor.end(signal.SIGTERM) == 0
        assert "data plane: " not in "".join(successor.output).replace("data plane: adopted", "")
    assert run_command("ipvsadm", "-Sn") == before, "stopping the daemon leaves the data plane running"

    run_command("ipvsadm", "-A", "-t", "10.1.0.1:443", "-s", "rr")
    code, said = await call(*VIPMESH, "teardown", "-c", str(settings), seconds=SLOW)
    assert code == 0, said
    assert " removed; claims stay in sqlite" in said.splitlines()[-1]
    for removed in ("delete interface mesh0", "delete nftables table ip vipmesh", "hairpin off at bridge port eb"):
        assert removed in said
    assert run_command("ipvsadm", "-Sn").split() == ["-A", "-t", "10.1.0.1:443", "-s", "rr"], (
        "another's is never touched"
    )
    assert "mesh0" not in run_command("ip", "link")
    assert "vipmesh" not in run_command("nft", "list", "ruleset")
    assert "hairpin on" not in run_command("ip", "-d", "link")


async def load(lab: Lab, key: VirtualKey, enough: asyncio.Event) -> int:
    """New connections without a pause until told; how many. Raises for the first one that fails."""
    count = 0
    while not enough.is_set():
        await ask_tcp(lab, key)
        count += 1
        await asyncio.sleep(0.02)  # leave some of an emulated processor to the daemon
    return count


async def test_a_dead_backend_is_pruned_and_a_returned_one_serves_again(
    lab: Lab, servers: Servers, settings: Path, tmp_path: Path
) -> None:
    await servers.start("a")
    async with Servers(lab) as mortal:
        await mortal.start("b")
        async with vipmesh("run", "-c", str(settings)) as daemon:
            await daemon.line("data plane ipvs", seconds=SLOW)
            for _ in range(2):
                await daemon.line("healthy", seconds=SLOW)
            await eventually(partial(ask_name, lab), bool, SLOW)  # the VIP is there: its name comes after it
            await mortal.__aexit__()
            await daemon.line(r"10\.2\.0\.2:8080 unhealthy: refused \(3 of 3\)", seconds=SLOW)
            shown = await eventually(
                lambda: status(f"unix://{tmp_path}/admin.sock"),
                lambda s: serving(s) == [True, False],
                SLOW,
            )
            web = VirtualKey(shown["services"][0]["vip"], 80, Transport.TCP)
            assert [await ask_tcp(lab, web) for _ in range(4)] == ["a"] * 4
            await mortal.start("b")
            await daemon.line(r"10\.2\.0\.2:8080 healthy", seconds=SLOW)
            await eventually(
                lambda: status(f"unix://{tmp_path}/admin.sock"),
                lambda s: serving(s) == [True, True],
                SLOW,
            )
            assert {await ask_tcp(lab, web) for _ in range(4)} == {"a", "b"}
            assert await daemon.end() == 0


def is_complete(table: str) -> bool:
    """The VIP, and the published port at both addresses of the worker, each with both containers."""
    return (table.count("-A "), table.count("-a ")) == (3, 6)


async def test_outside_changes_are_repaired_and_reported(
    lab: Lab, servers: Servers, settings: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        await servers.start(name)
    conntrack = Path("/proc/sys/net/ipv4/vs/conntrack")
    async with vipmesh("run", "-c", str(settings)) as daemon:
        await daemon.line("set up: sysctl|data plane ipvs", seconds=SLOW)
        for _ in range(2):
            await daemon.line("healthy", seconds=SLOW)
        shown = await eventually(
            lambda: status(f"unix://{tmp_path}/admin.sock"),
            lambda s: serving(s) == [True, True],
            SLOW,
        )
        vip = shown["services"][0]["vip"]
        web = VirtualKey(vip, 80, Transport.TCP)
        before = await eventually(lambda: asyncio.to_thread(run_command, "ipvsadm", "-Sn"), is_complete)

        run_ip(f"address del {vip}/32 dev mesh0")
        await daemon.line(f"repaired: the data plane was changed outside vipmesh: bind VIP {vip}", seconds=9)
        assert await ask_tcp(lab, web) in {"a", "b"}

        run_command("ipvsadm", "-C")
        await daemon.line("repaired: the data plane was changed outside vipmesh: add virtual server", seconds=20)
        await eventually(lambda: asyncio.to_thread(run_command, "ipvsadm", "-Sn"), lambda text: text == before)

        conntrack.write_text("0")
        await daemon.line("repaired: sysctl net.ipv4.vs.conntrack is 1, was 0", seconds=20)
        assert conntrack.read_text().strip() == "1"

        run_command("nft", "flush", "ruleset")
        await daemon.line("repaired: nftables table ip vipmesh made", seconds=25)
        assert "masquerade" in run_command("nft", "list", "table", "ip", "vipmesh")

        run_ip("link del mesh0")
        await daemon.line(f"bind VIP {vip}", seconds=9)
        assert await ask_tcp(lab, web) in {"a", "b"}
        assert (await status(f"unix://{tmp_path}/admin.sock"))["repairs"] == 14
        assert await daemon.end() == 0
