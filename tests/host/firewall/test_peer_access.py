"""Which requests of other workers a rule of this host drops, although its own probes succeed."""

from dataclasses import replace

import pytest

from mesh.host.firewall.direct_access import DirectEndpoint
from mesh.host.firewall.facts import Backend, FirewallFacts, FirewallTexts, read_facts
from mesh.host.firewall.peer_access import peer_drops
from mesh.host.firewall.plan import FirewallDemand
from mesh.model.codes import Code
from mesh.model.service import Transport
from tests.host.firewall.listings import ENGINE_20_10, ENGINE_28

OWN = "192.0.2.2"
W1, W3 = "192.0.2.1", "192.0.2.3"
NAT = f"""\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i br-shop -j RETURN
-A DOCKER ! -i br-shop -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:80
-A DOCKER -d {OWN}/32 ! -i br-shop -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.18.0.9:80
COMMIT
"""
PUBLISHED = DirectEndpoint("web.test", OWN, 8080, Transport.TCP, "shop/web")
AT_HOST = DirectEndpoint("web.test", OWN, 9000, Transport.TCP, "shop/web")
"""No engine translates this port: a container in the host's own network."""
INSIDE = DirectEndpoint("web.test", "172.18.0.2", 80, Transport.TCP, "shop/web")
DEMAND = FirewallDemand(frozenset([OWN]), needed=True, senders=frozenset([W1, W3]))


def facts_of(save: str, *rules: str) -> FirewallFacts:
    """The engine's rules with others before them: `FORWARD -p tcp -j DROP`."""
    first: dict[str, list[str]] = {}
    for rule in rules:
        first.setdefault(rule.partition(" ")[0], []).append(f"-A {rule}\n")
    lines = []
    for line in save.splitlines(keepends=True):
        words = line.split()
        if words[:1] == ["-A"] and words[1] in first:
            lines += first.pop(words[1])
        lines.append("".join(f"{each}" for each in line))
    rest = "".join(each for added in first.values() for each in added)
    text = "".join(lines).replace("COMMIT\n", f"{rest}COMMIT\n", 1) + NAT
    texts = FirewallTexts({Backend.NFT: text}, bridges={"br-shop": 4}, networks={"br-shop": ["172.18.0.1/16"]})
    return read_facts(texts, 4)


CASES = [
    ("the engine's rules alone", PUBLISHED, (), None),
    (
        "a rule before them",
        PUBLISHED,
        ("FORWARD -d 172.18.0.0/16 -p tcp -m tcp --dport 80 -j DROP",),
        "-D FORWARD -d 172.18.0.0/16 -p tcp -m tcp --dport 80 -j DROP",
    ),
    (
        "the operator's chain, by the sender's network",
        PUBLISHED,
        ("DOCKER-USER -s 192.0.2.0/24 -j REJECT --reject-with icmp-port-unreachable",),
        "-D DOCKER-USER -s 192.0.2.0/24 -j REJECT --reject-with icmp-port-unreachable",
    ),
    (
        "by the port that the client asked for",
        PUBLISHED,
        ("FORWARD -p tcp -m conntrack --ctstate DNAT -j DROP",),
        "-D FORWARD -p tcp -m conntrack --ctstate DNAT -j DROP",
    ),
    ("another port", PUBLISHED, ("FORWARD -p tcp -m tcp --dport 81 -j DROP",), None),
    ("another sender", PUBLISHED, ("DOCKER-USER -s 198.51.100.0/24 -j DROP",), None),
    ("only replies", PUBLISHED, ("FORWARD -m conntrack --ctstate ESTABLISHED -j DROP",), None),
    ("a condition that is not known", PUBLISHED, ("FORWARD -p tcp -m geoip --source-country DE -j DROP",), None),
    ("a limit", PUBLISHED, ("FORWARD -m limit --limit 5/sec -j ACCEPT", "FORWARD -p tcp -j DROP"), None),
    ("accepted before", PUBLISHED, ("FORWARD -p tcp -j ACCEPT", "FORWARD -p tcp -j DROP"), None),
    ("a filter of what the host itself takes", PUBLISHED, ("INPUT -p tcp -m tcp --dport 8080 -j DROP",), None),
    (
        "a port of the host itself",
        AT_HOST,
        ("INPUT -p tcp -m tcp --dport 9000 -j DROP",),
        "-D INPUT -p tcp -m tcp --dport 9000 -j DROP",
    ),
    ("a port of the host itself and a filter of what is forwarded", AT_HOST, ("FORWARD -p tcp -j DROP",), None),
    (
        "a container's own address",
        INSIDE,
        ("FORWARD -d 172.18.0.2/32 -p tcp -j DROP",),
        "-D FORWARD -d 172.18.0.2/32 -p tcp -j DROP",
    ),
    ("an address elsewhere", replace(PUBLISHED, address="203.0.113.7"), ("FORWARD -p tcp -j DROP",), None),
]


@pytest.mark.parametrize(("endpoint", "rules", "line"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_rule_that_drops_requests_of_other_workers_is_found(
    endpoint: DirectEndpoint, rules: tuple[str, ...], line: str | None
) -> None:
    found = peer_drops(facts_of(ENGINE_20_10, *rules), replace(DEMAND, direct=frozenset([endpoint])))
    assert [" ".join(drop.words) for drop in found] == ([] if line is None else [line])
    assert all(not drop.senders for drop in found), "they are dropped from all workers"


def test_a_rule_before_the_engines_translation_is_in_another_table() -> None:
    facts = facts_of(ENGINE_28, "PREROUTING -p tcp -m tcp --dport 8080 -j DROP")
    (drop,) = peer_drops(facts, replace(DEMAND, direct=frozenset([PUBLISHED])))
    assert " ".join(drop.words) == "-t raw -D PREROUTING -p tcp -m tcp --dport 8080 -j DROP"


def test_the_workers_are_named_if_others_get_through() -> None:
    facts = facts_of(ENGINE_20_10, f"DOCKER-USER -s {W3}/32 -j DROP")
    (drop,) = peer_drops(facts, replace(DEMAND, direct=frozenset([PUBLISHED])))
    assert drop.senders == (W3,)
    assert f"what the workers at {W3} send to web.test there" in drop.problem("now", 4).reason


def test_without_the_addresses_of_the_workers_a_rule_for_one_sender_is_not_certain() -> None:
    facts = facts_of(ENGINE_20_10, f"DOCKER-USER -s {W3}/32 -j DROP")
    assert peer_drops(facts, replace(DEMAND, direct=frozenset([PUBLISHED]), senders=frozenset())) == ()


def test_a_published_port_of_the_mesh_is_left_out() -> None:
    facts = facts_of(ENGINE_20_10, "FORWARD -p tcp -j DROP")
    demand = replace(DEMAND, direct=frozenset([PUBLISHED]))
    assert peer_drops(facts, demand)
    assert peer_drops(facts, replace(demand, ports=frozenset([(Transport.TCP, 8080)]))) == ()


def test_one_rule_is_said_once_for_each_service() -> None:
    facts = facts_of(ENGINE_20_10, "FORWARD -d 172.18.0.0/16 -p tcp -j DROP")
    direct = frozenset([PUBLISHED, replace(PUBLISHED, port=8081), replace(PUBLISHED, owner="shop/b", service="b.test")])
    found = peer_drops(facts, replace(DEMAND, direct=direct))
    problems = [drop.problem("2026-11-30 23:43:48+00:00", 4) for drop in found]
    assert [problem.owner for problem in problems] == ["shop/b", "shop/web"]
    assert {problem.code for problem in problems} == {Code.PEERS_DROPPED}
    assert problems[1].reason == (
        "the rule `-d 172.18.0.0/16 -p tcp -j DROP` of the chain FORWARD has dropped what other workers send to "
        "web.test there, at port 8080/tcp, since 2026-11-30 23:43:48+00:00"
    )
    assert "`iptables-nft -D FORWARD -d 172.18.0.0/16 -p tcp -j DROP` on that worker" in problems[1].remedy


def test_a_policy_without_a_rule_for_the_port_is_answered_by_one() -> None:
    facts = facts_of(ENGINE_20_10.replace("INPUT ACCEPT", "INPUT DROP"))
    (drop,) = peer_drops(facts, replace(DEMAND, direct=frozenset([AT_HOST])))
    assert drop.problem("now", 4).reason.startswith("the policy of the chain INPUT has dropped")
    assert " ".join(drop.words) == f"-I INPUT -d {OWN} -p tcp --dport 9000 -j ACCEPT"
