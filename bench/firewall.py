"""CPU per connection through the rules of a container engine: our opening beside one ACCEPT line typed by hand.

Needs root, nft and iptables; it runs in network namespaces of its own, with the nftables data plane. The CPU time is
that of the client and the backend: the kernel filters packets in the name of the process that sends them.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess

from ipvs import POOL, table
from ipvs_traffic import connections, network, with_backend

from harness import MissingError, Row, cpu_seconds, main, need, ratio
from mesh.config.settings import FirewallMode
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables.plane import NftablesDataPlane
from mesh.host.firewall.advice import OpenedAddresses
from mesh.host.firewall.plan import FirewallDemand, FirewallSettings
from mesh.host.firewall.programs import SystemPrograms
from mesh.host.firewall.upkeep import FirewallUpkeep, remove_opening
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Address, Transport
from mesh.testing.netns import Namespace, run_command

CONNECTIONS = 250
"""In one measurement."""
BY_HAND = ("DOCKER-USER", "-m", "conntrack", "--ctstate", "DNAT", "--ctorigdst", str(POOL), "-j", "ACCEPT")
RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o b1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o b1 -j DOCKER
-A FORWARD -i b1 ! -o b1 -j ACCEPT
-A FORWARD -i b1 -o b1 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i b1 ! -o b1 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o b1 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
"""The rules of Docker 20.10 for one network."""


def run(quick: bool) -> Sequence[Row]:
    """The one row."""
    if os.geteuid():
        raise MissingError("this bench makes network namespaces: run it as root")
    need("nft", "nftables")
    need("iptables-nft", "iptables")
    with closing(Namespace()) as there, there.entered(), network() as (client, server):
        run_command("iptables-nft-restore", given=RULES)
        vip = asyncio.run(_program())
        figures: dict[str, list[float]] = {"ours": [], "by hand": []}
        for _ in range(60 if quick else 250):
            for way in random.sample(list(figures), 2):
                asyncio.run(_open(by_hand=way == "by hand"))
                figures[way].append(_cpu(client, server, vip))
    middle, spread = ratio(figures["ours"], figures["by hand"])
    ours, by_hand = (f"{statistics.median(times) / CONNECTIONS * 1e6:.1f} us" for times in figures.values())
    name = "firewall: CPU per connection through Docker's rules, beside one ACCEPT line"
    return [Row(name, ours, by_hand, middle, spread, "<= 1.03", middle <= 1.03)]


def _cpu(client: Namespace, server: BaseProcess, vip: Address) -> float:
    """Seconds of CPU for the connections of one measurement."""
    assert server.pid is not None
    with client.entered():
        connections((vip, 80), 20)  # the first ones fill caches
        before = time.process_time() + cpu_seconds(server.pid)
        connections((vip, 80), CONNECTIONS)
        return time.process_time() + cpu_seconds(server.pid) - before


async def _program() -> Address:
    """Set up one service, and return its VIP."""
    wanted, interface = with_backend(table(1, 1)), MeshInterface()
    plane = NftablesDataPlane(POOL, interface)
    failures = await plane.apply(diff_tables(await plane.read(), wanted))
    assert not failures, failures[0]
    await plane.close()
    await interface.close()
    (vip,) = wanted.vips
    return vip


async def _open(*, by_hand: bool) -> None:
    programs = SystemPrograms()
    removed, failed = await remove_opening(programs)
    assert not failed, failed
    if not removed:
        run_command("iptables-nft", "-F", "DOCKER-USER")
        run_command("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")
    if by_hand:
        run_command("iptables-nft", "-I", *BY_HAND)
        return
    opened = OpenedAddresses(POOL, range(30000, 32768))
    settings = FirewallSettings(opened, FirewallMode.MANAGE, forwards=True, takes_input=False)
    demand = FirewallDemand(frozenset(["10.1.0.1", "10.2.0.254"]), frozenset([(Transport.TCP, 30080)]), needed=True)
    report = await FirewallUpkeep(settings, programs).repair(demand)
    assert not report.problems, report.problems[0]


if __name__ == "__main__":
    sys.exit(main(run, __doc__ or ""))
