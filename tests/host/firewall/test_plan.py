"""From the facts of a host to rules of ours, or to problems with the line to type."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mesh.config.settings import FirewallMode
from mesh.host.firewall.advice import OpenedAddresses
from mesh.host.firewall.facts import AcceptMark, Backend, FirewallFacts, FirewallTexts, IptablesRule, read_facts
from mesh.host.firewall.marking import DEFAULT_MARK
from mesh.host.firewall.plan import (
    BridgeAccess,
    FirewallDemand,
    FirewallPlan,
    FirewallSettings,
    firewall_problems,
    make_firewall_plan,
    update_bridges,
    wanted_rule,
)
from mesh.model.codes import Code
from mesh.model.service import Transport
from tests.builders import POOL
from tests.host.firewall.listings import ENGINE_20_10, ENGINE_28, OWN_CHAINS, engine_table

NFTABLES = FirewallSettings(
    OpenedAddresses(POOL, range(30000, 32768), "10.112.0.1"), FirewallMode.MANAGE, forwards=True, takes_input=False
)
IPVS = replace(NFTABLES, takes_input=True)
USERSPACE = replace(NFTABLES, forwards=False, takes_input=True)
DEMAND = FirewallDemand(frozenset(["192.0.2.1"]), frozenset([(Transport.TCP, 30080)]), needed=True)
OURS = "-m mark --mark 0x1000/0x1000 -m comment --comment vipmesh -j ACCEPT"
INPUT_RULES = ("ip daddr 10.112.0.0/16", "tcp dport 30000-32767", "udp dport 30000-32767")
BRIDGES = {"br-shop": 4, "br-secret": 5, "br-quiet": 6, "virbr0": 7}


def facts_of(save: str = "", nft: str = "", backend: Backend = Backend.NFT) -> FirewallFacts:
    return read_facts(FirewallTexts({backend: save}, nft=nft, links=frozenset([1, 2])), 4)


def chain(*rules: str) -> str:
    """An engine's filter table with these rules in DOCKER-USER."""
    own = "".join(f"-A DOCKER-USER {rule}\n" for rule in rules)
    return f"*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n{own}COMMIT\n"


def plan(facts: FirewallFacts, settings: FirewallSettings = NFTABLES, demand: FirewallDemand = DEMAND) -> FirewallPlan:
    return make_firewall_plan(facts, settings, demand, update_bridges(None, BRIDGES, facts, 0.0))


def edits(found: FirewallPlan) -> list[str]:
    return [" ".join(edit.arguments) for edit in found.edits]


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        pytest.param([], [f"-A DOCKER-USER {OURS}"], id="an empty chain, as from 28 on"),
        pytest.param(["-j RETURN"], [f"-I DOCKER-USER 1 {OURS}"], id="the engine's RETURN"),
        pytest.param(["-i eth0 -j DROP", "-j RETURN"], [f"-I DOCKER-USER 2 {OURS}"], id="after the operator's"),
        pytest.param(["-i eth0 -j DROP"], [f"-A DOCKER-USER {OURS}"], id="after the operator's, without RETURN"),
        pytest.param([OURS, "-j RETURN"], [], id="as it must be"),
        pytest.param([OURS, "-i eth0 -j DROP"], [], id="an operator may append"),
        pytest.param(["-j RETURN", OURS], [f"-D DOCKER-USER {OURS}", f"-I DOCKER-USER 1 {OURS}"], id="out of reach"),
        pytest.param(
            [OURS, OURS], [f"-D DOCKER-USER {OURS}", f"-D DOCKER-USER {OURS}", f"-A DOCKER-USER {OURS}"], id="twice"
        ),
        pytest.param(
            ["-m mark --mark 0x4/0x4 -m comment --comment vipmesh -j ACCEPT"],
            [
                "-D DOCKER-USER -m mark --mark 0x4/0x4 -m comment --comment vipmesh -j ACCEPT",
                f"-A DOCKER-USER {OURS}",
            ],
            id="with another mark",
        ),
        pytest.param(
            ["-m comment --comment all -j RETURN"], [f"-I DOCKER-USER 1 {OURS}"], id="a comment is no condition"
        ),
    ],
)
def test_the_rule_stands_once_where_it_has_effect(rules: list[str], wanted: list[str]) -> None:
    assert edits(plan(facts_of(chain(*rules)))) == wanted


def test_the_rule_is_as_iptables_lists_it() -> None:
    assert wanted_rule(DEFAULT_MARK) == IptablesRule(tuple(OURS.split()))


@pytest.mark.parametrize("save", [ENGINE_20_10, ENGINE_28])
@pytest.mark.parametrize("settings", [NFTABLES, IPVS])
def test_an_engine_of_iptables_is_opened_except_for_internal_networks(save: str, settings: FirewallSettings) -> None:
    found = plan(facts_of(save), settings)
    assert len(found.edits) == 1
    assert found.problems == ()
    assert found.opened == {Backend.NFT}
    assert found.marking is not None
    assert found.marking.open_interfaces == (1, 2, 4, 6, 7)
    assert (found.marking.internal_bridges, found.marking.silent_bridges) == ((5,), (6,))


def test_both_backends_are_opened_if_both_have_the_chain() -> None:
    texts = FirewallTexts({Backend.NFT: chain(), Backend.LEGACY: chain("-j RETURN")}, legacy_in_use=True)
    assert [edit.backend for edit in plan(read_facts(texts, 4)).edits] == [Backend.NFT, Backend.LEGACY]


@pytest.mark.parametrize("settings", [NFTABLES, replace(NFTABLES, mode=FirewallMode.REPORT), USERSPACE])
def test_without_services_everything_of_ours_goes_and_nothing_is_a_problem(settings: FirewallSettings) -> None:
    found = plan(facts_of(chain(OURS, "-j RETURN"), OWN_CHAINS), settings, FirewallDemand())
    assert found == FirewallPlan(edits=found.edits)
    assert edits(found) == [f"-D DOCKER-USER {OURS}"]


def test_a_host_without_a_firewall_gets_no_table() -> None:
    assert plan(facts_of("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")) == FirewallPlan()


def test_report_mode_marks_and_says_what_to_type_until_it_is_typed() -> None:
    settings = replace(NFTABLES, mode=FirewallMode.REPORT)
    found = plan(facts_of(chain("-i eth0 -j DROP", OURS, "-j RETURN")), settings)
    assert edits(found) == [f"-D DOCKER-USER {OURS}"]
    assert found.marking is not None
    (problem,) = found.problems
    assert problem.code is Code.FIREWALL_REPORTED
    typed = "iptables-nft -I DOCKER-USER 2 -m mark --mark 0x1000/0x1000 -j ACCEPT"
    assert problem.remedy == f"run `{typed}`"
    after = facts_of(chain("-i eth0 -j DROP", "-m mark --mark 0x1000/0x1000 -j ACCEPT", "-j RETURN"))
    assert plan(after, settings).problems == ()


def test_a_rule_that_drops_everything_is_the_operators_decision() -> None:
    found = plan(facts_of(chain("-i eth0 -j ACCEPT", "-j DROP")))
    assert edits(found) == []
    assert [problem.remedy for problem in found.problems] == [
        "run `iptables-nft -I DOCKER-USER 2 -m mark --mark 0x1000/0x1000 -j ACCEPT`"
    ]
    assert edits(plan(facts_of(chain(OURS, "-j DROP")))) == [], "an operator may append that, too"
    assert edits(plan(facts_of(chain("-j DROP", OURS)))) == [f"-D DOCKER-USER {OURS}"]
    for mode in FirewallMode:
        assert plan(facts_of(chain("-j ACCEPT")), replace(NFTABLES, mode=mode)).problems == ()


def test_a_chain_that_nothing_leads_to_is_reported() -> None:
    flushed = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A DOCKER-USER -j RETURN\nCOMMIT\n"
    assert "restart the container engine" in plan(facts_of(flushed)).problems[0].remedy


def test_an_engine_of_nftables_is_opened_by_the_mark_that_it_accepts() -> None:
    rule = "meta mark & 0x00000003 == 0x00000002 counter packets 0 bytes 0 accept"
    found = plan(facts_of(nft=engine_table(rule)))
    assert found.problems == ()
    assert found.marking is not None
    assert (found.marking.mark, found.marking.open_interfaces) == (AcceptMark(2, 3), (1, 2, 4, 6, 7))

    (problem,) = plan(facts_of(nft=engine_table())).problems
    assert problem.code is Code.FIREWALL_ENGINE_SETTING
    assert '"bridge-accept-fwmark": "0x1000/0x1000"' in problem.remedy
    assert plan(facts_of(nft=engine_table()), IPVS).problems == (), "it lets replies through"


def test_an_unreadable_backend_is_reported_with_the_line() -> None:
    texts = FirewallTexts(failures={Backend.LEGACY: "needs CAP_NET_RAW"}, legacy_in_use=True)
    (problem,) = plan(read_facts(texts, 4)).problems
    assert problem.code is Code.FIREWALL_UNREADABLE
    assert "needs CAP_NET_RAW" in problem.reason
    assert "iptables-legacy -I DOCKER-USER 1 -m mark --mark 0x1000/0x1000 -j ACCEPT" in problem.remedy


POLICY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n{}COMMIT\n"
ESTABLISHED = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"


@pytest.mark.parametrize(
    ("settings", "rules", "remedies"),
    [
        (NFTABLES, ESTABLISHED, ["run `iptables-nft -I FORWARD -m mark --mark 0x1000/0x1000 -j ACCEPT`"]),
        (NFTABLES, "-A FORWARD -m mark --mark 0x1000/0x1000 -j ACCEPT\n", []),
        (IPVS, ESTABLISHED, []),
        (IPVS, "", ["run `iptables-nft -I FORWARD -m mark --mark 0x1000/0x1000 -j ACCEPT`"]),
        (USERSPACE, "", []),
    ],
)
def test_a_policy_that_drops_is_reported_where_the_plane_forwards(
    settings: FirewallSettings, rules: str, remedies: list[str]
) -> None:
    assert [p.remedy for p in firewall_problems(facts_of(POLICY.format(rules)), settings)] == remedies


def test_chains_of_the_operator_are_reported_each_with_its_line_until_it_is_there() -> None:
    problems = list(firewall_problems(facts_of(nft=OWN_CHAINS), NFTABLES))
    assert [problem.remedy for problem in problems] == [
        "run `nft insert rule inet filter forward meta mark and 0x1000 == 0x1000 accept`",
        f"run `{' && '.join(f'nft insert rule inet filter input {rule} accept' for rule in INPUT_RULES)}`",
    ]
    opened = OWN_CHAINS.replace('iifname "lo"', "ip daddr 10.112.0.0/16 accept\n\t\tiifname").replace(
        "ct state est", "meta mark & 0x00001000 == 0x00001000 accept\n\t\tct state est"
    )
    assert list(firewall_problems(facts_of(nft=opened), NFTABLES)) == []
    assert [p.reason.split()[3] for p in firewall_problems(facts_of(nft=OWN_CHAINS), IPVS)] == ["input"]


def test_lines_for_ipv6_are_of_ipv6() -> None:
    opened = OpenedAddresses(ip_network("fd00:112::/64"), range(30000, 32768))
    facts = read_facts(FirewallTexts({Backend.NFT: POLICY.format("")}, nft=OWN_CHAINS), 6)
    lines = [p.remedy for p in firewall_problems(facts, replace(IPVS, opened=opened))]
    assert any("ip6tables-nft -I FORWARD" in line for line in lines)
    assert any("ip6 daddr fd00:112::/64" in line for line in lines)


def test_a_bridge_without_rules_is_open_once_the_engine_had_the_time_to_write_them() -> None:
    nothing, engine = facts_of(), facts_of(ENGINE_20_10)
    first = update_bridges(None, {"virbr0": 3}, nothing, 0.0)
    assert first["virbr0", 3].access is BridgeAccess.OPEN, "a restarted daemon does not close what worked"
    present = {"virbr0": 3, "br-new": 8, "br-secret": 9}
    second = update_bridges(first, present, nothing, 10.0)
    assert second["br-new", 8].access is second["br-secret", 9].access is BridgeAccess.UNKNOWN
    soon = update_bridges(second, present, engine, 11.0)
    assert soon["br-secret", 9].access is BridgeAccess.CLOSED
    later = update_bridges(soon, present, nothing, 15.0)
    assert later["br-new", 8].access is BridgeAccess.OPEN
    assert later["br-secret", 9].access is BridgeAccess.CLOSED, "no rules for a moment: the engine restarts"
    assert update_bridges(later, {"br-secret": 10}, nothing, 16.0)["br-secret", 10].access is BridgeAccess.UNKNOWN
