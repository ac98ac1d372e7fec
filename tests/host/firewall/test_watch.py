"""Changes of rules are noticed, and those of our data plane are not."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.firewall.watch import concerns_firewall, watch_rule_changes
from tests.netns import private_network, run_command


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        yield


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("iptables-nft -A FORWARD -j ACCEPT", id="iptables"),
        pytest.param("nft add table inet theirs", id="nft"),
        pytest.param("nft add table ip vipmesh_forward", id="our own opening"),
        pytest.param("nft flush ruleset", id="a flush"),
    ],
)
async def test_changes_of_rules_are_noticed_and_those_of_the_data_plane_are_not(network: None, command: str) -> None:
    run_command("nft", "add", "table", "ip", "before")
    async with aclosing(watch_rule_changes()) as changes, asyncio.timeout(20):
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        for table in ("vipmesh", "vipmesh_lb"):
            script = f"add table ip {table}\nadd chain ip {table} c\nadd rule ip {table} c counter\n"
            run_command("nft", "-f", "-", given=script)
            run_command("nft", "delete", "table", "ip", table)
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        run_command(*command.split())
        await waiting


@given(st.binary(max_size=200))
def test_no_datagram_is_too_strange(datagram: bytes) -> None:
    concerns_firewall(datagram)
