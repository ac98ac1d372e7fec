"""Beside a real engine's rules: what is translated passes, what is isolated stays so, and nothing of ours is left."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.netns import Namespace
from tests.system.docker.engine import Engine
from tests.system.docker.worker import Worker, worker
from tests.system.e2e.programs import call, eventually

HOST, CLIENT = "192.0.2.1", "192.0.2.2"
PORT = 30080
SERVICE = {
    "mesh.routing.port_80": "web.test",
    "mesh.routing.publish.port_80": str(PORT),
    "mesh.probe.url": "http://container:80/",
    "mesh.probe.interval_seconds": "0.3",
}


@pytest.fixture
def client(engine: Engine) -> Iterator[Namespace]:
    """Another host, which has this one as the router to the VIPs."""
    other = Namespace()
    engine.namespace.ip(
        f"link add eth0 type veth peer name eth0 netns {other.path}",
        f"address add {HOST}/24 dev eth0",
        "link set eth0 up",
    )
    other.ip("link set lo up", f"address add {CLIENT}/24 dev eth0", "link set eth0 up", f"route add default via {HOST}")
    yield other
    engine.namespace.ip("link delete eth0")
    other.close()


@pytest.fixture
async def mesh(engine: Engine, client: Namespace, tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker with a service in one network, and clients in others."""
    for network, options in {"shop": (), "front": (), "secret": ("--internal",)}.items():
        await engine.adocker("network", "create", *options, network)
    await asyncio.to_thread(engine.run, "web", "--network", "shop", "--init", labels=SERVICE)
    for name in ("front", "secret"):
        sleep = ("sleep", "1000")
        await asyncio.to_thread(engine.run, f"{name}-client", "--network", name, "--init", command=sleep)
    async with worker(engine, tmp_path, plane="nftables") as running:
        await running.serving("web")
        yield running
    engine.namespace_output("iptables-nft", "-F", "DOCKER-USER")
    engine.namespace_output("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")


async def fetch_inside(engine: Engine, container: str, address: str) -> str:
    """What a container gets from an address; empty if nothing comes back in two seconds."""
    command = f"busybox timeout 2 wget -qO- http://{address}/cgi-bin/who || true"
    return await engine.adocker("exec", container, "sh", "-c", command)


async def fetch_from(host: Namespace, address: str) -> str:
    command = ("curl", "-s", "-m", "2", f"http://{address}/cgi-bin/who")
    return (await call("nsenter", f"--net={host.path}", *command))[1].strip()


def user_chain(engine: Engine) -> list[str]:
    return engine.namespace_output("iptables-nft", "-S", "DOCKER-USER").splitlines()


async def test_translated_connections_pass_the_rules_of_the_engine(
    engine: Engine, client: Namespace, mesh: Worker
) -> None:
    vip = await mesh.vip()
    web = await engine.adocker("exec", "web", "cat", "/etc/hostname")
    assert await fetch_inside(engine, "front-client", vip) == web
    assert await fetch_inside(engine, "front-client", f"{HOST}:{PORT}") == web
    assert await fetch_from(client, vip) == web
    assert await fetch_from(client, f"{HOST}:{PORT}") == web


async def test_internal_networks_stay_internal(engine: Engine, client: Namespace, mesh: Worker) -> None:
    gateway = await engine.adocker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "secret")
    assert await fetch_inside(engine, "secret-client", f"{gateway}:{PORT}") == ""
    hidden = {**SERVICE, "mesh.routing.port_80": "hidden.test", "mesh.routing.publish.port_80": "30081"}
    await asyncio.to_thread(engine.run, "hidden", "--network", "secret", "--init", labels=hidden)
    await mesh.serving("web", "hidden")
    assert await fetch_from(client, f"{HOST}:30081") == ""
    assert await fetch_inside(engine, "front-client", f"{HOST}:30081") == ""


async def test_the_rule_is_set_once_before_the_return_and_after_the_operators_and_repaired(
    engine: Engine, client: Namespace, mesh: Worker
) -> None:
    ours = "-A DOCKER-USER -m mark --mark 0x1000/0x1000 -m comment --comment vipmesh -j ACCEPT"
    assert user_chain(engine) == ["-N DOCKER-USER", ours, "-A DOCKER-USER -j RETURN"]
    engine.namespace_output("iptables-nft", "-F", "DOCKER-USER")
    engine.namespace_output("iptables-nft", "-A", "DOCKER-USER", "-s", CLIENT, "-j", "DROP")
    engine.namespace_output("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")
    theirs = f"-A DOCKER-USER -s {CLIENT}/32 -j DROP"

    async def rules() -> list[str]:
        return user_chain(engine)

    wanted = ["-N DOCKER-USER", theirs, ours, "-A DOCKER-USER -j RETURN"]
    assert await eventually(rules, lambda now: now == wanted, 15) == wanted
    assert await fetch_from(client, await mesh.vip()) == "", "the operator's rule comes first"
    assert await fetch_inside(engine, "front-client", await mesh.vip())


async def test_what_nobody_has_translated_does_not_pass(engine: Engine, client: Namespace, mesh: Worker) -> None:
    address = (await mesh.endpoints())[0]["address"]
    assert await fetch_from(client, address) == "", "the address of an endpoint"
    assert await fetch_inside(engine, "front-client", address) == ""
    rule = ("PREROUTING", "-p", "tcp", "--dport", "31000", "-j", "DNAT", "--to-destination", f"{address}:80")
    engine.namespace_output("iptables-nft", "-t", "nat", "-I", *rule)
    try:
        assert await fetch_from(client, f"{HOST}:31000") == "", "what another program has translated, in our port range"
    finally:
        engine.namespace_output("iptables-nft", "-t", "nat", "-D", *rule)


async def test_the_opening_goes_with_the_last_service(engine: Engine, mesh: Worker) -> None:
    async def rules() -> list[str]:
        return user_chain(engine)

    await engine.adocker("rm", "-f", "web")
    await eventually(rules, lambda now: now == ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN"], 30)
    assert "vipmesh_forward" not in engine.namespace_output("nft", "list", "tables")
