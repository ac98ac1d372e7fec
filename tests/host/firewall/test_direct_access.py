"""Which endpoints other workers cannot reach at containers' own addresses, by the listed rules of the host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.firewall.direct_access import (
    DirectDrop,
    DirectEndpoint,
    direct_access_problems,
    direct_drop,
    direct_endpoints,
)
from mesh.host.firewall.facts import Backend, FirewallFacts, FirewallTexts, read_facts
from mesh.model.codes import Code
from mesh.model.service import Transport
from tests.builders import endpoint, service
from tests.host.firewall.listings import ENGINE_20_10, ENGINE_28, engine_table

WEB_80 = DirectEndpoint("web.test", "172.18.0.2", 80, Transport.TCP)
"""ENGINE_20_10 publishes this port."""
WEB_81 = DirectEndpoint("web.test", "172.18.0.2", 81, Transport.TCP)
NETWORKS = {"br-shop": ["172.18.0.1/16"], "br-secret": ["172.20.0.1/16"], "docker0": []}
RAW_DROP = "-A PREROUTING -d 172.18.0.2/32 ! -i br-shop -j DROP\n"
FORWARD_DROP = "-A DOCKER ! -i br-shop -o br-shop -j DROP\n"
"""The rule of Docker 28 for ports that are not published."""
PUBLISHED = "-A DOCKER -d 172.18.0.2/32 ! -i br-shop -o br-shop -p tcp -m tcp --dport 80 -j ACCEPT\n"
PUBLISHED_28 = ENGINE_28.replace(FORWARD_DROP, PUBLISHED + FORWARD_DROP)
UNPROTECTED = ENGINE_28.replace(RAW_DROP, "").replace(FORWARD_DROP, "-A DOCKER ! -i br-shop -o br-shop -j ACCEPT\n")
"""The same network with the gateway mode `nat-unprotected`."""
ENGINE_SETS = ENGINE_28.replace(
    "-A DOCKER-BRIDGE -o br-shop -j DOCKER", "-A DOCKER-BRIDGE -m set --match-set docker-ext-bridges-v4 dst -j DOCKER"
)
OPERATOR = '-A DOCKER-USER -s 198.51.100.7/32 -m comment --comment "no \\"guests\\" here" -j DROP\n'


def by_operator(*rules: str, engine: str = ENGINE_20_10) -> str:
    """Docker's rules with others in DOCKER-USER."""
    return engine.replace(OPERATOR, "".join(f"-A DOCKER-USER {rule}\n" for rule in rules))


def facts_of(save: str = "", nft: str = "", backend: Backend = Backend.NFT) -> FirewallFacts:
    return read_facts(FirewallTexts({backend: save}, nft=nft, bridges={"br-shop": 4}, networks=NETWORKS), 4)


CASES = [
    ("no rules", "", WEB_81, None),
    ("20.10, a port that is not published", ENGINE_20_10, WEB_81, DirectDrop.PORT),
    ("20.10, a published port", ENGINE_20_10, WEB_80, None),
    (
        "20.10, the same port over UDP",
        ENGINE_20_10,
        DirectEndpoint("w", "172.18.0.2", 80, Transport.UDP),
        DirectDrop.PORT,
    ),
    ("20.10, the policy lets it pass", ENGINE_20_10.replace("FORWARD DROP", "FORWARD ACCEPT"), WEB_81, None),
    ("28, a port that is not published", ENGINE_28, WEB_81, DirectDrop.PORT),
    ("28, a published port", PUBLISHED_28, WEB_80, DirectDrop.ADDRESS),
    ("28, a published port with allow-direct-routing", PUBLISHED_28.replace(RAW_DROP, ""), WEB_80, None),
    ("28, another port with allow-direct-routing", PUBLISHED_28.replace(RAW_DROP, ""), WEB_81, DirectDrop.PORT),
    ("28, nat-unprotected", UNPROTECTED, WEB_81, None),
    ("28.0, with sets of networks", ENGINE_SETS, WEB_81, DirectDrop.PORT),
    (
        "28, a trusted interface",
        PUBLISHED_28.replace(RAW_DROP, "-A PREROUTING -d 172.18.0.2/32 -i vxlan1 -j ACCEPT\n" + RAW_DROP),
        WEB_80,
        None,
    ),
    ("an operator accepts the other workers", by_operator("-s 10.1.0.0/24 -j ACCEPT"), WEB_81, None),
    ("an operator accepts all but one", by_operator("! -s 10.1.0.9/32 -j ACCEPT"), WEB_81, None),
    ("an operator accepts by interface", by_operator("-i eth0 -j ACCEPT"), WEB_81, None),
    ("an operator accepts the port", by_operator("-p tcp -m tcp --dport 80:81 -j ACCEPT"), WEB_81, None),
    ("an operator accepts ports", by_operator("-p tcp -m multiport --dports 22,81 -j ACCEPT"), WEB_81, None),
    (
        "an operator accepts other ports",
        by_operator("-p tcp -m multiport --dports 22,90:99 -j ACCEPT"),
        WEB_81,
        DirectDrop.PORT,
    ),
    ("an operator accepts another address", by_operator("-d 172.18.0.3/32 -j ACCEPT"), WEB_81, DirectDrop.PORT),
    ("an operator accepts the network", by_operator("-d 172.18.0.0/16 -j ACCEPT"), WEB_81, None),
    (
        "an operator accepts replies",
        by_operator("-m state --state RELATED,ESTABLISHED -j ACCEPT"),
        WEB_81,
        DirectDrop.PORT,
    ),
    (
        "an operator accepts what is translated",
        by_operator("-m conntrack --ctstate DNAT -j ACCEPT"),
        WEB_81,
        DirectDrop.PORT,
    ),
    (
        "our own rule",
        by_operator("-m mark --mark 0x1000/0x1000 -m comment --comment vipmesh -j ACCEPT"),
        WEB_81,
        DirectDrop.PORT,
    ),
    ("an operator's mark", by_operator("-m mark --mark 0x4/0x4 -j ACCEPT"), WEB_81, None),
    ("a condition that is not known", by_operator("-m geoip --source-country DE -j ACCEPT"), WEB_81, None),
    ("a target that is not known", by_operator("-j NFQUEUE --queue-num 1"), WEB_81, None),
    ("a target that only logs", by_operator('-j LOG --log-prefix "-j ACCEPT "'), WEB_81, DirectDrop.PORT),
    (
        "an operator drops by sender before accepting all",
        by_operator("-s 10.9.0.0/16 -j DROP", "-j ACCEPT"),
        WEB_81,
        None,
    ),
    (
        "an operator rejects everything",
        by_operator("-j REJECT --reject-with icmp-port-unreachable"),
        WEB_80,
        DirectDrop.PORT,
    ),
    ("an operator returns early", by_operator("-j RETURN", "-j ACCEPT"), WEB_81, DirectDrop.PORT),
    ("an internal network", ENGINE_20_10, DirectEndpoint("w", "172.20.0.2", 80, Transport.TCP), DirectDrop.PORT),
]


@pytest.mark.parametrize(("save", "wanted", "drop"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("backend", list(Backend))
def test_only_what_is_dropped_for_certain_counts(
    save: str, wanted: DirectEndpoint, drop: DirectDrop | None, backend: Backend
) -> None:
    bridge = "br-secret" if wanted.address.startswith("172.20.") else "br-shop"
    assert direct_drop(wanted, bridge, facts_of(save, backend=backend)) is drop


ENTRY = '\t\tcounter packets 0 bytes 0 drop comment "UNPUBLISHED PORT DROP"\n'
TO_80 = "\t\tip daddr 172.18.0.2 tcp dport 80 counter packets 3 bytes 180 accept\n"
DIRECT = 'ip daddr 172.18.0.2 iifname != "br-shop" counter packets 0 bytes 0 drop comment "DROP DIRECT ACCESS"'
OUR_MARK = "meta mark & 0x00001000 == 0x00001000 counter packets 0 bytes 0 accept"


@pytest.mark.parametrize(
    ("table", "wanted", "drop"),
    [
        pytest.param(engine_table(), WEB_81, DirectDrop.PORT, id="not published"),
        pytest.param(engine_table(OUR_MARK), WEB_81, DirectDrop.PORT, id="our mark is for what is translated here"),
        pytest.param(engine_table(OUR_MARK.replace("1000", "0004")), WEB_81, DirectDrop.ADDRESS, id="another mark"),
        pytest.param(engine_table().replace(ENTRY, TO_80 + ENTRY), WEB_80, DirectDrop.ADDRESS, id="published"),
        pytest.param(engine_table().replace(ENTRY, TO_80 + ENTRY), WEB_81, DirectDrop.PORT, id="another port"),
        pytest.param(
            engine_table().replace(ENTRY, TO_80 + ENTRY).replace(DIRECT, ""), WEB_80, None, id="allow-direct-routing"
        ),
        pytest.param(
            engine_table()
            .replace(ENTRY, '\t\tcounter packets 0 bytes 0 accept comment "UNPROTECTED"\n')
            .replace(DIRECT, ""),
            WEB_81,
            None,
            id="nat-unprotected",
        ),
        pytest.param(
            engine_table().replace(ENTRY, TO_80 + ENTRY).replace('!= "br-shop"', '!= { "br-shop", "vxlan1" }'),
            WEB_80,
            None,
            id="a trusted interface",
        ),
        pytest.param(engine_table(family="ip6"), WEB_81, None, id="the other IP version"),
    ],
)
def test_the_engines_own_table_is_judged_too(table: str, wanted: DirectEndpoint, drop: DirectDrop | None) -> None:
    assert direct_drop(wanted, "br-shop", facts_of(nft=table)) is drop


def test_a_problem_names_the_network_and_its_services_and_no_container() -> None:
    many = [DirectEndpoint(f"s{n}.test", f"172.18.0.{n}", 81, Transport.TCP) for n in range(2, 9)]
    elsewhere = [
        DirectEndpoint("x.test", address, 81, Transport.TCP) for address in ("192.0.2.7", "172.18.0.1", "fd00::2")
    ]
    (problem,) = direct_access_problems(facts_of(ENGINE_20_10), [*many, *elsewhere], 4)
    assert (problem.code, problem.subject) == (Code.ENGINE_FIREWALL, "container network br-shop")
    assert problem.reason.endswith("containers there: s2.test, s3.test, s4.test, s5.test and 3 more")
    assert "172.18." not in str(problem), "the text stays the same while containers are replaced"
    assert list(direct_access_problems(facts_of(ENGINE_20_10), elsewhere, 4)) == []


@pytest.mark.parametrize(
    ("save", "wanted", "shown", "missing"),
    [
        pytest.param(
            ENGINE_20_10, WEB_81, "`iptables-nft -I DOCKER-USER -s WORKER -j ACCEPT`", "gateway_mode", id="20.10"
        ),
        pytest.param(ENGINE_28, WEB_81, "gateway_mode_ipv4=nat-unprotected`", "allow-direct-routing", id="28"),
        pytest.param(PUBLISHED_28, WEB_80, '"allow-direct-routing": true', "DOCKER-USER", id="28, published"),
        pytest.param(
            ENGINE_20_10,
            DirectEndpoint("w", "172.20.0.2", 80, Transport.TCP),
            "a network that is not `--internal`",
            "DOCKER-USER",
            id="internal",
        ),
    ],
)
def test_the_remedy_is_one_that_this_engine_has(save: str, wanted: DirectEndpoint, shown: str, missing: str) -> None:
    (problem,) = direct_access_problems(facts_of(save), [wanted], 4)
    assert shown in problem.remedy
    assert missing not in problem.remedy


def test_endpoints_are_where_virtual_servers_send_to() -> None:
    web, own, unknown = service(), endpoint(), endpoint("b", owner="demo/other")
    assert web.declared
    assert direct_endpoints([web], [own, unknown]) == {
        DirectEndpoint(web.name, own.address, own.port_for(port, transport), transport, web.owner)
        for transport, port in web.declared
    }


WORDS = [
    "-A",
    "FORWARD",
    "DOCKER",
    "PREROUTING",
    "!",
    "-i",
    "-o",
    "-d",
    "-j",
    "-g",
    "br-shop",
    "DROP",
    "ACCEPT",
    "RETURN",
]


@given(st.lists(st.lists(st.sampled_from([*WORDS, "--dport", "81:", "172.18.0.2/99", "-m"]), max_size=9), max_size=12))
def test_no_rules_are_too_strange(rules: list[list[str]]) -> None:
    text = "\n".join(" ".join(["-A", *rule]) for rule in rules)
    jump = "-A DOCKER -j DOCKER"
    save = f"*raw\n:PREROUTING ACCEPT\n{text}\nCOMMIT\n*filter\n:FORWARD DROP\n:DOCKER -\n{text}\n{jump}\nCOMMIT\n"
    assert direct_drop(WEB_81, "br-shop", facts_of(save)) in {None, *DirectDrop}
