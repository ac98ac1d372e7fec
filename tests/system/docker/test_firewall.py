"""Beside a real engine's rules: what is translated passes, what is isolated stays so, and nothing of ours is left."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.netns import Namespace
from tests.system.docker.engine import CLIENT, HOST, Engine
from tests.system.docker.worker import Worker, worker
from tests.system.e2e.programs import call, eventually, status

PORT, HIDDEN, APART, FOREIGN = 30080, 30081, 30082, 31000
SERVICE = {
    "mesh.routing.port_80": "web.test",
    "mesh.routing.publish.port_80": str(PORT),
    "mesh.probe.url": "http://container:80/",
    "mesh.probe.timeout_seconds": "1",
    "mesh.probe.interval_seconds": "1",
}
IN_SECRET = {**SERVICE, "mesh.routing.port_80": "hidden.test", "mesh.routing.publish.port_80": str(HIDDEN)}
RULE = "-A DOCKER-USER -m mark --mark 0x1000/0x1000 -m comment --comment vipmesh -j ACCEPT"
EMPTY = ["-A DOCKER-USER -j RETURN"]


@asynccontextmanager
async def service(
    engine: Engine, tmp_path: Path, firewall: str = "manage", plane: str = "nftables"
) -> AsyncIterator[Worker]:
    """A worker with a service in one network; nothing of it is left in the rules of the engine."""
    await engine.adocker("network", "create", "shop")
    await asyncio.to_thread(engine.run, "web", "--network", "shop", "--init", labels=SERVICE)
    try:
        async with worker(engine, tmp_path, plane=plane, VIPMESH_HOST_FIREWALL=firewall) as running:
            await running.serving("web")
            yield running
        assert RULE not in user_chain(engine), "`teardown` has removed it"
    finally:
        engine.namespace_output("iptables-nft", "-F", "DOCKER-USER")
        engine.namespace_output("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")


async def run_client(engine: Engine, network: str, *options: str) -> None:
    await engine.adocker("network", "create", *options, network)
    sleep = ("sleep", "1000")
    await asyncio.to_thread(engine.run, f"{network}-client", "--network", network, "--init", command=sleep)


async def fetch_inside(engine: Engine, container: str, address: str) -> str:
    """What a container gets from an address; empty if nothing comes back in two seconds."""
    command = f"busybox timeout 2 wget -qO- http://{address}/cgi-bin/who || true"
    return await engine.adocker("exec", container, "sh", "-c", command)


async def fetch_from(host: Namespace, address: str) -> str:
    command = ("curl", "-s", "-m", "2", f"http://{address}/cgi-bin/who")
    return (await call("nsenter", f"--net={host.path}", *command))[1].strip()


def user_chain(engine: Engine) -> list[str]:
    listed = engine.namespace_output("iptables-nft-save", "-t", "filter").splitlines()
    return [line for line in listed if line.startswith("-A DOCKER-USER ")]


async def chain_becomes(engine: Engine, *rules: str) -> None:
    async def chain() -> list[str]:
        return user_chain(engine)

    await eventually(chain, lambda now: now == [*rules], 20)


@pytest.mark.timeout(120)
async def test_translated_connections_pass_and_no_others(engine: Engine, client: Namespace, tmp_path: Path) -> None:
    async with service(engine, tmp_path) as mesh:
        await run_client(engine, "front")
        await run_client(engine, "secret", "--internal")
        await asyncio.to_thread(engine.run, "hidden", "--network", "secret", "--init", labels=IN_SECRET)
        await mesh.serving("web", "hidden")
        web = await engine.adocker("exec", "web", "cat", "/etc/hostname")
        shown = {each["name"]: each for each in (await status(mesh.admin))["services"]}
        vip, address = shown["web.test"]["vip"], shown["web.test"]["endpoints"][0]["address"]
        gateway = await engine.adocker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "secret")
        rule = ("PREROUTING", "-p", "tcp", "--dport", str(FOREIGN), "-j", "DNAT", "--to-destination", f"{address}:80")
        engine.namespace_output("iptables-nft", "-t", "nat", "-I", *rule)
        try:
            for place in (vip, f"{HOST}:{PORT}"):
                assert await fetch_inside(engine, "front-client", place) == web
                assert await fetch_from(client, place) == web
            for place in (address, f"{HOST}:{FOREIGN}", shown["hidden.test"]["vip"], f"{HOST}:{HIDDEN}"):
                assert await fetch_inside(engine, "front-client", place) == "", place
                assert await fetch_from(client, place) == "", place
            assert await fetch_inside(engine, "secret-client", f"{gateway}:{PORT}") == ""
        finally:
            engine.namespace_output("iptables-nft", "-t", "nat", "-D", *rule)


@pytest.mark.timeout(120)
async def test_the_proxy_in_user_space_keeps_networks_apart(engine: Engine, tmp_path: Path) -> None:
    """Its connections are the host's own, which the engine's rules let through everywhere."""

    async def gateway(network: str) -> str:
        return await engine.adocker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network)

    async with service(engine, tmp_path, plane="userspace") as mesh:
        await run_client(engine, "front")
        await run_client(engine, "secret", "--internal")
        await run_client(engine, "quiet", "-o", "com.docker.network.bridge.enable_icc=false")
        await asyncio.to_thread(engine.run, "hidden", "--network", "secret", "--init", labels=IN_SECRET)
        apart = {**SERVICE, "mesh.routing.port_80": "apart.test", "mesh.routing.publish.port_80": str(APART)}
        await asyncio.to_thread(engine.run, "apart", "--network", "quiet", "--init", labels=apart)
        await mesh.serving("web", "hidden", "apart")
        served = {"front": (PORT, APART), "secret": (HIDDEN,), "quiet": (PORT,)}
        for network, ports in served.items():
            for port in (PORT, HIDDEN, APART):
                found = await fetch_inside(engine, f"{network}-client", f"{await gateway(network)}:{port}")
                assert bool(found) == (port in ports), (network, port)


@pytest.mark.timeout(120)
async def test_the_rule_is_kept_after_those_of_the_operator_and_goes_with_the_last_service(
    engine: Engine, client: Namespace, tmp_path: Path
) -> None:
    async with service(engine, tmp_path) as mesh:
        await chain_becomes(engine, RULE, *EMPTY)
        theirs = f"-A DOCKER-USER -s {CLIENT}/32 -j DROP"
        restored = f"*filter\n-F DOCKER-USER\n{theirs}\n{EMPTY[0]}\nCOMMIT\n"
        engine.namespace_output("sh", "-c", f"printf '{restored}' | iptables-nft-restore --noflush")
        await chain_becomes(engine, theirs, RULE, *EMPTY)
        assert await fetch_from(client, await mesh.vip()) == "", "the operator's rule comes first"
        await engine.adocker("rm", "-f", "web")
        await chain_becomes(engine, theirs, *EMPTY)
        assert "vipmesh_forward" not in engine.namespace_output("nft", "list", "tables")


@pytest.mark.timeout(120)
async def test_report_mode_says_what_to_type_and_that_is_enough(
    engine: Engine, client: Namespace, tmp_path: Path
) -> None:
    async def problems() -> list[str]:
        return [line for line in (await status(mesh.admin))["problems"] if "firewall" in line]

    async with service(engine, tmp_path, "report") as mesh:
        assert await fetch_from(client, await mesh.vip()) == ""
        (problem,) = await eventually(problems, bool, 10)
        (line,) = re.findall(r"run `(.*)`$", problem)
        assert f"run `{line}`" in await mesh.beside("doctor")
        engine.namespace_output(*line.split())
        assert await fetch_from(client, await mesh.vip())
        await eventually(problems, lambda now: now == [], 20)
        assert f"run `{line}`" not in await mesh.beside("doctor")
    assert user_chain(engine) == EMPTY


@dataclass
class Attempts:
    """Connections that were tried from another host."""

    made: int = 0
    failed: int = 0


async def connect_on(client: Namespace, where: tuple[str, int], attempts: Attempts) -> None:
    """Connect again and again, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        with client.entered():
            sock = socket.socket()
        sock.setblocking(False)
        try:
            async with asyncio.timeout(3):
                await loop.sock_connect(sock, where)
        except OSError:
            attempts.failed += 1
        attempts.made += 1
        sock.close()
        await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
async def test_an_engine_that_restarts_closes_nothing_and_one_that_lost_its_rules_is_opened_again(
    engine: Engine, client: Namespace, tmp_path: Path
) -> None:
    try:
        await asyncio.to_thread(engine.end)
        await asyncio.to_thread(engine.start, "--live-restore")
        async with service(engine, tmp_path) as mesh:
            await asyncio.to_thread(engine.run, "plain", "-p", "8080:80", "--init")
            vip, ours, theirs = await mesh.vip(), Attempts(), Attempts()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(connect_on(client, (vip, 80), ours)),
                    tasks.create_task(connect_on(client, (HOST, 8080), theirs)),
                ]
                await asyncio.to_thread(engine.end)
                await asyncio.to_thread(engine.start, "--live-restore")
                await asyncio.sleep(3)
                for task in running:
                    task.cancel()
            assert ours.made > 20
            assert ours.failed <= theirs.failed
            assert RULE in user_chain(engine)

            await asyncio.to_thread(engine.end)
            for command in ("-F", "-X"):
                engine.namespace_output("iptables-nft", command)
            await asyncio.to_thread(engine.start, "--live-restore")
            # With containers running, this engine makes the chain again only with its next network.
            await engine.adocker("network", "create", "later")
            await chain_becomes(engine, RULE, *EMPTY)
            assert await fetch_from(client, vip)
    finally:
        await asyncio.to_thread(engine.remove_all)
        await asyncio.to_thread(engine.end)
        await asyncio.to_thread(engine.start)
