"""A container on two networks, on this kernel: what is reported is what is lost, and the remedy as it is printed helps.

other host 192.0.2.2 -- worker -- br-a 10.1.0.0/24 -- container 10.1.0.2 (its default route), neighbour 10.1.0.3
                               `- br-b 10.2.0.0/24 -- container 10.2.0.2, where the service is reached
"""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.host.fact_reader import read_host_facts
from mesh.host.host_problems import HostNeeds, host_problems
from mesh.model.codes import Code
from mesh.model.engine_facts import AttachedContainer, EngineFacts, EngineNetwork
from mesh.model.problem import Problem
from tests.netns import Namespace, private_network, run_command, run_ip
from tests.system.ipvs.endpoints import filter_bridged

NEEDS = HostNeeds(pool=ip_network("10.112.0.0/16"), data_plane="nftables")
ENGINE = EngineFacts(
    networks=(
        EngineNetwork("a", (ip_network("10.1.0.0/24"),), masquerades=False),
        EngineNetwork("b", (ip_network("10.2.0.0/24"),)),
    ),
    on_several_networks=(AttachedContainer("web-1", ("10.1.0.2", "10.2.0.2")),),
)
TRANSLATION = """
table ip lb {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ip daddr 10.112.0.7 tcp dport 80 dnat to 10.2.0.2:80
    }
}
"""
LOST = 1.5
"""Seconds without an answer that count as never: TCP tries again after one."""


@dataclass
class TwoNetworks:
    """The hosts around the worker, whose namespace the test is in."""

    container: Namespace
    neighbour: Namespace
    other: Namespace

    def is_answered(self, client: Namespace) -> bool:
        with client.entered():
            sock = socket.socket()
        sock.settimeout(LOST)
        with sock:
            return sock.connect_ex(("10.112.0.7", 80)) == 0

    async def problems(self) -> list[Problem]:
        facts = replace(await read_host_facts(NEEDS.pool), engine=ENGINE)
        return [problem for problem in host_problems(facts, NEEDS) if problem.subject == "container web-1"]


def set_filter(everywhere: int, bridge: int) -> None:
    for name, value in (("all", everywhere), ("br-a", bridge)):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text(str(value))


@pytest.fixture
def lab() -> Iterator[TwoNetworks]:
    with private_network():
        hosts = [Namespace() for _ in range(3)]
        container, neighbour, other = hosts
        run_ip(
            *(line for each, net in (("a", 1), ("b", 2)) for line in _bridge(each, net)),
            f"link add ea type veth peer name e0 netns {container.path}",
            f"link add eb type veth peer name e1 netns {container.path}",
            f"link add na type veth peer name e0 netns {neighbour.path}",
            *(f"link set {port} master br-{port[1]} up" for port in ("ea", "eb", "na")),
            f"link add u1 type veth peer name e0 netns {other.path}",
            "address add 192.0.2.1/24 dev u1",
            "link set u1 up",
        )
        _configure(container, "10.1.0.1", "10.1.0.2/24 dev e0", "10.2.0.2/24 dev e1")
        _configure(neighbour, "10.1.0.1", "10.1.0.3/24 dev e0")
        _configure(other, "192.0.2.1", "192.0.2.2/24 dev e0")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        run_command("nft", "-f", "-", given=TRANSLATION)
        with container.entered():
            server = socket.create_server(("", 80))
        yield TwoNetworks(container, neighbour, other)
        server.close()
        for host in hosts:
            host.close()


def _bridge(name: str, net: int) -> Iterator[str]:
    yield f"link add br-{name} type bridge"
    yield f"address add 10.{net}.0.1/24 dev br-{name}"
    yield f"link set br-{name} up"


def _configure(host: Namespace, router: str, *addresses: str) -> None:
    links = dict.fromkeys(address.split()[-1] for address in addresses)
    host.ip("link set lo up", *(f"link set {link} up" for link in links))
    host.ip(*(f"address add {address}" for address in addresses), f"route add default via {router}")
    with host.entered():
        for setting in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
            setting.write_text("0")


def apply(remedy: str) -> None:
    """Run the commands between backticks of a remedy, except those that load a module: that is for good."""
    commands = [part for line in re.findall(r"`([^`]+)`", remedy) for part in line.split(" && ")]
    for command in commands:
        if not command.startswith("modprobe "):
            run_command(*command.split())


@pytest.mark.parametrize(("everywhere", "bridge"), [(0, 0), (0, 1), (1, 0), (0, 2), (2, 1)])
async def test_strict_reverse_path_filtering(lab: TwoNetworks, everywhere: int, bridge: int) -> None:
    filter_bridged("1")
    set_filter(everywhere, bridge)
    found = await lab.problems()
    assert [problem.code for problem in found] == ([] if lab.is_answered(lab.other) else [Code.REVERSE_PATH_FILTER])
    for problem in found:
        apply(problem.remedy)
        assert lab.is_answered(lab.other)
        assert await lab.problems() == []


async def test_replies_on_a_bridge(lab: TwoNetworks) -> None:
    if not filter_bridged("0"):
        pytest.skip("needs the module br_netfilter: modprobe br_netfilter")
    set_filter(0, 0)
    assert not lab.is_answered(lab.neighbour)
    (problem,) = await lab.problems()
    assert problem.code is Code.BRIDGE_FILTERING
    apply(problem.remedy)
    assert lab.is_answered(lab.neighbour)
    assert await lab.problems() == []
