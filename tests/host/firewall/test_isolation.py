"""Whom a client of the proxy may not reach."""

from ipaddress import ip_network

import pytest

from mesh.host.firewall.facts import Backend, FirewallTexts, read_facts
from mesh.host.firewall.isolation import IsolatedNetwork, NetworkIsolation
from mesh.host.firewall.plan import isolated_networks, update_bridges
from mesh.host.firewall.upkeep import FirewallUpkeep
from mesh.model.table import RealKey
from mesh.testing.firewall import FakeFirewallPrograms
from tests.host.firewall.listings import ENGINE_20_10, ENGINE_28, engine_table
from tests.host.firewall.test_plan import BRIDGES, DEMAND, NFTABLES

NETWORKS = {
    "br-shop": ["172.18.0.1/16"],
    "br-secret": ["172.20.0.1/16"],
    "br-quiet": ["172.21.0.1/16"],
    "virbr0": ["192.168.122.1/24"],
}
SHOP, SECRET, QUIET, QUIET_2, REMOTE = "172.18.0.2", "172.20.0.2", "172.21.0.2", "172.21.0.3", "192.0.2.7"
EVERYBODY = tuple(RealKey(address, 80) for address in (SHOP, SECRET, QUIET, REMOTE))


def isolation(texts: FirewallTexts) -> NetworkIsolation:
    facts, kept = read_facts(texts, 4), NetworkIsolation()
    kept.replace(isolated_networks(update_bridges(None, BRIDGES, facts, 0.0), facts, NETWORKS))
    return kept


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(FirewallTexts({Backend.NFT: ENGINE_20_10}), id="20.10"),
        pytest.param(FirewallTexts({Backend.NFT: ENGINE_28}), id="28"),
        pytest.param(FirewallTexts({Backend.NFT: ""}, nft=engine_table()), id="29, nftables"),
    ],
)
@pytest.mark.parametrize(
    ("client", "barred"),
    [
        pytest.param(SHOP, [SECRET], id="an open network"),
        pytest.param(REMOTE, [SECRET], id="another host"),
        pytest.param("2001:db8::1", [SECRET], id="another host, IPv6"),
        pytest.param(SECRET, [SHOP, QUIET, REMOTE], id="an internal network"),
        pytest.param(QUIET_2, [SECRET, QUIET], id="a network whose containers are apart"),
        pytest.param("172.20.0.1", [], id="the host itself"),
    ],
)
def test_an_internal_network_reaches_itself_and_a_silent_one_everybody_else(
    texts: FirewallTexts, client: str, barred: list[str]
) -> None:
    assert [real.address for real in isolation(texts).barred(client, EVERYBODY)] == barred


def test_without_isolated_networks_nobody_is_barred() -> None:
    assert list(NetworkIsolation().barred(SECRET, EVERYBODY)) == []


async def test_the_upkeep_keeps_it_up_to_date() -> None:
    internal = "-A DOCKER-INTERNAL ! -s 172.20.0.0/16 -o br-secret -j DROP\n"
    texts = FirewallTexts(bridges={"br-secret": 5}, networks=NETWORKS)
    programs, kept = FakeFirewallPrograms({Backend.NFT: internal}, texts), NetworkIsolation()
    kept.replace([IsolatedNetwork(ip_network("10.9.0.0/16"), "10.9.0.1", internal=True, silent=False)])
    await FirewallUpkeep(NFTABLES, programs, kept).repair(DEMAND)
    assert list(kept.barred(REMOTE, EVERYBODY)) == [RealKey(SECRET, 80)]
    assert list(kept.barred(REMOTE, [RealKey("10.9.0.2", 80)])) == []
