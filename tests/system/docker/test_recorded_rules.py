"""The recorded rules of Docker are those that the installed engine writes."""

import asyncio

import pytest

from tests.system.docker.engine import Engine
from tests.system.hosts.rule_sets import DockerContainer, DockerHost, DockerNetwork, PublishedPort, render_rules

DOCKER0 = DockerNetwork("docker0", "172.29.0.0/24")
FRONT = DockerNetwork("br-front", "172.30.1.0/24")
BACK = DockerNetwork("br-back", "172.30.2.0/24")
PORTS = (PublishedPort("tcp", 8088, 80), PublishedPort("udp", 8053, 53))


async def test_the_rules_of_docker_20_10_are_those_of_the_installed_engine(engine: Engine) -> None:
    version = await engine.adocker("version", "-f", "{{.Server.Version}}")
    if not version.startswith("20.10."):
        pytest.skip(f"the recorded rules are of Docker 20.10, and this engine is {version}")
    for name, network in (("front", FRONT), ("back", BACK)):
        bridge = ("-o", f"com.docker.network.bridge.name={network.bridge}")
        await engine.adocker("network", "create", "--subnet", network.subnet, *bridge, name)
    published = [flag for port in PORTS for flag in ("-p", f"{port.host_port}:{port.container_port}/{port.transport}")]
    await asyncio.to_thread(engine.run, "web", "--init", "--network", "front", "--ip", "172.30.1.9", *published)

    host = DockerHost((DOCKER0, FRONT, BACK), (DockerContainer(FRONT, "172.30.1.9", published=PORTS),))
    assert _rules(engine.namespace_output("iptables-save")) == _rules(render_rules("docker-20.10.iptables", host))


def _rules(saved: str) -> dict[str, list[str]]:
    """The rules and policies by chain, without counters; the order of chains and of published ports does not count."""
    rules: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if "--comment vipmesh" in line:
            continue  # of a daemon that was killed beside this engine
        if line.startswith("*"):
            table = line
        elif line.startswith((":", "-A")):
            chain = line.removeprefix(":").removeprefix("-A ").split()[0]
            rules.setdefault(f"{table} {chain}", []).append(line.partition(" [")[0])
    published = {"*nat POSTROUTING", "*nat DOCKER", "*filter DOCKER"}
    return {chain: sorted(lines) if chain in published else lines for chain, lines in rules.items()}
