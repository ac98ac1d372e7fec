"""The opening of a firewall over its life: made, kept, repaired, reported, taken back."""

from dataclasses import replace

import pytest

from mesh.config.settings import FirewallMode
from mesh.host.firewall.direct_access import DirectEndpoint
from mesh.host.firewall.facts import Backend, FirewallTexts
from mesh.host.firewall.plan import FirewallDemand, FirewallSettings
from mesh.host.firewall.upkeep import FirewallReport, FirewallUpkeep, remove_opening
from mesh.model.codes import Code
from mesh.model.service import Transport
from mesh.testing.firewall import FakeFirewallPrograms
from tests.host.firewall.listings import engine_table
from tests.host.firewall.test_plan import DEMAND, NFTABLES, OURS

ENGINE = ":FORWARD DROP [0:0]\n-A DOCKER-FORWARD -i br-shop -j ACCEPT\n"
BRIDGES = FirewallTexts(bridges={"br-shop": 4}, links=frozenset([2]))
INSERTED = f"iptables-nft -I DOCKER-USER 1 {OURS}"


@pytest.fixture
def programs() -> FakeFirewallPrograms:
    return FakeFirewallPrograms({Backend.NFT: ENGINE}, BRIDGES)


def upkeep(programs: FakeFirewallPrograms, settings: FirewallSettings = NFTABLES) -> FirewallUpkeep:
    return FirewallUpkeep(settings, programs)


async def test_it_is_opened_kept_and_taken_back(programs: FakeFirewallPrograms) -> None:
    firewall, table = upkeep(programs), programs.tables["ip"]
    assert await firewall.repair(DEMAND) == FirewallReport(("nftables table ip vipmesh_forward made", INSERTED))
    assert programs.rules[Backend.NFT] == [OURS, "-j RETURN"]
    assert table.text is not None
    assert "elements = { 2, 4 }" in table.text
    assert await firewall.repair(DEMAND) == FirewallReport()
    assert await upkeep(programs).repair(DEMAND) == FirewallReport(), "a restarted daemon finds it"
    report = await firewall.repair(FirewallDemand())
    assert report == FirewallReport(
        ("nftables table ip vipmesh_forward removed", f"iptables-nft -D DOCKER-USER {OURS}")
    )
    assert programs.rules[Backend.NFT] == ["-j RETURN"]
    assert programs.tables["ip"].text is None
    assert await firewall.repair(FirewallDemand()) == FirewallReport()


async def test_what_is_dropped_of_other_workers_is_said_with_the_time_of_the_first_look(
    programs: FakeFirewallPrograms,
) -> None:
    firewall = upkeep(programs)
    endpoint = DirectEndpoint("web.test", "192.0.2.1", 9000, Transport.TCP, "demo/web")
    demand = replace(DEMAND, direct=frozenset([endpoint]))
    assert [problem.code for problem in (await firewall.repair(demand)).problems] == []
    programs.rest[Backend.NFT] = f"{ENGINE}:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\n"
    first, second = (await firewall.repair(demand)).problems, (await firewall.repair(demand)).problems
    assert [problem.code for problem in first] == [Code.PEERS_DROPPED]
    assert first == second, "neither the time nor anything else changes while it lasts"
    assert (await firewall.repair(DEMAND)).problems == ()


async def test_what_was_changed_outside_is_repaired_and_counted(programs: FakeFirewallPrograms) -> None:
    firewall = upkeep(programs)
    await firewall.repair(DEMAND)
    programs.rules[Backend.NFT] = ["-s 192.0.2.9/32 -j DROP", "-j RETURN"]
    assert (await firewall.repair(DEMAND)).repaired == (f"iptables-nft -I DOCKER-USER 2 {OURS}",)
    programs.tables["ip"].text = "changed"
    assert (await firewall.repair(DEMAND)).repaired == ("nftables table ip vipmesh_forward was changed",)
    programs.tables["ip"].text = None
    assert (await firewall.repair(DEMAND)).repaired == ("nftables table ip vipmesh_forward made",)
    assert await firewall.repair(DEMAND) == FirewallReport()


async def test_a_table_of_a_former_start_goes_even_if_nothing_needs_it(programs: FakeFirewallPrograms) -> None:
    await upkeep(programs).repair(DEMAND)
    report = await upkeep(programs, replace(NFTABLES, forwards=False)).repair(DEMAND)
    assert len(report.set_up) == 2, "now a proxy in user space forwards"
    assert programs.tables["ip"].text is None


async def test_a_refusal_is_a_problem_and_is_tried_again(programs: FakeFirewallPrograms) -> None:
    firewall = upkeep(programs)
    programs.refusal = "iptables-nft refuses: no"
    report = await firewall.repair(DEMAND)
    assert [problem.code for problem in report.problems] == [Code.FIREWALL_FAILED]
    assert "iptables-nft refuses: no" in report.problems[0].reason
    assert f"run `{INSERTED}` on the host" in report.problems[0].remedy
    programs.refusal = None
    assert await firewall.repair(DEMAND) == FirewallReport((INSERTED,))


async def test_report_mode_leaves_the_chain_alone(programs: FakeFirewallPrograms) -> None:
    report = await upkeep(programs, replace(NFTABLES, mode=FirewallMode.REPORT)).repair(DEMAND)
    assert programs.rules[Backend.NFT] == ["-j RETURN"]
    assert programs.tables["ip"].text is not None, "what the operator accepts is marked"
    assert [problem.code for problem in report.problems] == [Code.FIREWALL_REPORTED]


async def test_a_new_bridge_is_marked_only_when_the_engine_lets_it_out(programs: FakeFirewallPrograms) -> None:
    firewall, table = upkeep(programs), programs.tables["ip"]
    await firewall.repair(DEMAND)
    programs.texts = FirewallTexts(bridges={"br-shop": 4, "br-new": 5})
    await firewall.repair(DEMAND)
    assert table.text is not None
    assert "elements = { 4 }" in table.text
    again = FakeFirewallPrograms({Backend.NFT: ENGINE + "-A DOCKER-FORWARD -i br-new -j ACCEPT\n"}, programs.texts)
    programs.read = again.read  # type: ignore[method-assign]
    await firewall.repair(DEMAND)
    assert "elements = { 4, 5 }" in table.text


async def test_teardown_removes_what_any_start_has_left(programs: FakeFirewallPrograms) -> None:
    await upkeep(programs).repair(DEMAND)
    await programs.tables["ip6"].ensure("a table of a start with another pool")
    assert await remove_opening(programs) == (
        [
            f"iptables-nft -D DOCKER-USER {OURS}",
            "delete nftables table ip vipmesh_forward",
            "delete nftables table ip6 vipmesh_forward",
        ],
        [],
    )
    assert await remove_opening(programs) == ([], [])
    await upkeep(programs).repair(DEMAND)
    programs.refusal = "no"
    removed, failed = await remove_opening(programs)
    assert (len(removed), [error.code for error in failed]) == (1, [Code.FIREWALL_FAILED])


async def test_an_engine_of_nftables_that_restarts_is_marked_for_as_before() -> None:
    rule = "meta mark & 0x00000003 == 0x00000002 counter accept"
    programs = FakeFirewallPrograms({}, FirewallTexts(nft=engine_table(rule), bridges=BRIDGES.bridges))
    firewall, table = upkeep(programs), programs.tables["ip"]
    await firewall.repair(DEMAND)
    made = table.text
    assert made is not None
    assert "| 0x2 accept" in made
    programs.texts = FirewallTexts(bridges=BRIDGES.bridges)
    assert await firewall.repair(DEMAND) == FirewallReport()
    assert table.text == made
