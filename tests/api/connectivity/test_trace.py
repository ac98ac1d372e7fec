"""Where a request was lost, from recorded traces (`tests/data/traces/README.md`) and from hostile lines."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.connectivity.plan import ConnectivityTarget, TargetKind
from mesh.api.connectivity.remedies import RemedyContext, loss_remedy
from mesh.api.connectivity.trace import LossCause, PacketLoss, judge_loss, parse_trace
from mesh.model.service import Transport

TRACES = Path(__file__).parents[2] / "data" / "traces"
CLIENT_PORT = 40000
ENDPOINT = "172.18.0.2"
TARGET = ConnectivityTarget(
    "web.test", "demo/web", TargetKind.VIP, Transport.TCP, "10.113.0.7", 80, endpoints=(ENDPOINT,)
)
NFTABLES = RemedyContext(TARGET, "nftables", "10.113.0.0/16")


def judged(name: str, transport: Transport = Transport.TCP) -> PacketLoss:
    lines = (TRACES / f"{name}.txt").read_text().splitlines()
    return judge_loss(parse_trace(lines), transport, CLIENT_PORT, [ENDPOINT])


@pytest.mark.parametrize(
    ("name", "cause", "where", "remedy"),
    [
        (
            "rule",
            LossCause.RULE,
            'inet fw forward: iifname "br-2" oifname "br-1" drop',
            "nft insert rule inet fw forward ct status dnat ct original ip daddr 10.113.0.0/16 accept",
        ),
        (
            "policy",
            LossCause.POLICY,
            "inet fw forward: policy drop",
            "nft insert rule inet fw forward ct status dnat ct original ip daddr 10.113.0.0/16 accept",
        ),
        (
            "reply",
            LossCause.RULE,
            'inet fw forward: iifname "br-1" oifname "br-2" drop',
            "nft insert rule inet fw forward ct status dnat ct original ip daddr 10.113.0.0/16 accept",
        ),
        (
            "docker-user",
            LossCause.RULE,
            'ip filter DOCKER-ISOLATION-STAGE-2: oifname "br-1" drop',
            "iptables -I DOCKER-USER -m conntrack --ctstate DNAT --ctorigdst 10.113.0.0/16 -j ACCEPT",
        ),
        (
            "reject",
            LossCause.RULE,
            "inet fw forward: reject with icmpx admin-prohibited",
            "nft insert rule inet fw forward ct status dnat ct original ip daddr 10.113.0.0/16 accept",
        ),
        (
            "no-endpoint",
            LossCause.NO_ENDPOINT,
            "ip vipmesh_lb q: ip daddr 10.113.0.7 reject with tcp reset",
            "vipmesh explain web.test",
        ),
        (
            "unanswered",
            LossCause.UNANSWERED,
            "behind 172.18.0.2:8080 on br-1",
            "check the packet filter of the endpoint, or of the worker that runs it",
        ),
        (
            "undelivered",
            LossCause.UNDELIVERED,
            "behind 172.19.0.2:40000 on br-2",
            "check the packet filter of the client",
        ),
        (
            "routing",
            LossCause.ROUTING,
            "behind the interface br-2, where a route is chosen",
            "sysctl -w net.ipv4.conf.br-2.rp_filter=2",
        ),
        (
            "hairpin",
            LossCause.HAIRPIN,
            "on the bridge br-1: the client is the endpoint that was chosen",
            "for p in /sys/class/net/br-1/brif/*; do echo 1 > $p/hairpin_mode; done",
        ),
    ],
)
def test_the_place_of_a_loss_and_the_line_that_helps(name: str, cause: LossCause, where: str, remedy: str) -> None:
    loss = judged(name)
    assert (loss.cause, loss.where, loss_remedy(loss, NFTABLES)) == (cause, where, remedy)
    assert loss.reply == (name in ("reply", "undelivered"))


def test_what_our_own_rules_keep_apart_is_told_from_what_has_no_endpoint() -> None:
    lines = (TRACES / "rule.txt").read_text().replace("inet fw forward", "inet vipmesh_forward forward").splitlines()
    loss = judge_loss(parse_trace(lines), Transport.TCP, CLIENT_PORT)
    assert loss.cause is LossCause.ISOLATION
    assert "not isolated" in loss_remedy(loss, NFTABLES)


def shown(chain: str, links: str, source: str, destination: str, ports: str) -> str:
    """A line of a trace, as far as it is read."""
    packet = f"{links} ip saddr {source} ip daddr {destination} ip protocol tcp ip length 60 {ports}"
    return f"trace id 0a inet vipmesh_test_1_0 {chain} packet: {packet} tcp flags == syn"


@pytest.mark.parametrize("links", ['oif "br-1"', 'iif "br-1" oif "br-1"'], ids=["ipvs", "nftables"])
@pytest.mark.parametrize(
    ("destination", "cause"), [("172.18.0.2", LossCause.HAIRPIN), ("172.18.0.3", LossCause.UNANSWERED)]
)
def test_a_client_that_is_its_own_endpoint_is_told_from_a_neighbour(
    links: str, destination: str, cause: LossCause
) -> None:
    ports = f"tcp sport {CLIENT_PORT} tcp dport"
    lines = [
        shown("tests", 'iif "br-1"', "172.18.0.2", "10.113.0.7", f"{ports} 80"),
        shown("postrouting", links, "172.18.0.2", destination, f"{ports} 8080"),
    ]
    loss = judge_loss(parse_trace(lines), Transport.TCP, CLIENT_PORT, [destination])
    assert (loss.cause, loss.oif) == (cause, "br-1")


@pytest.mark.parametrize(("links", "hook"), [('iif "br-2" oif "br-1"', "forward"), ('oif "eth0"', "output")])
def test_what_vanishes_in_a_hook_without_a_rule_was_not_traced(links: str, hook: str) -> None:
    """As with rules of iptables' legacy backend."""
    chain = "forward" if hook == "forward" else "tests"
    line = shown(chain, links, "172.19.0.2", "172.18.0.2", f"tcp sport {CLIENT_PORT} tcp dport 8080")
    loss = judge_loss(parse_trace([line]), Transport.TCP, CLIENT_PORT)
    assert (loss.cause, loss.where) == (LossCause.UNTRACED, f"in the hook {hook}")
    assert "iptables-legacy-save" in loss_remedy(loss, NFTABLES)


def test_a_datagram_is_judged_by_its_own_transport() -> None:
    assert judged("udp", Transport.UDP).cause is LossCause.POLICY
    assert judged("udp", Transport.TCP).cause is LossCause.UNSEEN


def test_a_packet_of_another_port_is_not_ours() -> None:
    lines = (TRACES / "rule.txt").read_text().splitlines()
    assert judge_loss(parse_trace(lines), Transport.TCP, CLIENT_PORT + 1).cause is LossCause.UNSEEN
    assert judge_loss(parse_trace([]), Transport.TCP, CLIENT_PORT).cause is LossCause.UNSEEN


DOCKER = judged("docker-user")
PUBLISHED = replace(TARGET, kind=TargetKind.PUBLISHED, port=30080, worker="w1")


@pytest.mark.parametrize(
    ("loss", "context", "remedy"),
    [
        (
            DOCKER,
            replace(NFTABLES, data_plane="ipvs"),
            "iptables -I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED --ctorigdst 10.113.0.0/16 -j ACCEPT",
        ),
        (
            DOCKER,
            replace(NFTABLES, target=PUBLISHED),
            "iptables -I DOCKER-USER -m conntrack --ctstate DNAT -p tcp --ctorigdstport 30080 -j ACCEPT",
        ),
        (
            replace(DOCKER, chain="FORWARD", rule="", passed_docker_user=False),
            NFTABLES,
            "iptables -I FORWARD -m conntrack --ctstate DNAT --ctorigdst 10.113.0.0/16 -j ACCEPT",
        ),
        (
            replace(DOCKER, chain="ufw-reject-forward", passed_docker_user=False),
            NFTABLES,
            "iptables -I ufw-reject-forward -m conntrack --ctstate DNAT --ctorigdst 10.113.0.0/16 -j ACCEPT",
        ),
        (
            replace(DOCKER, chain="INPUT", oif="", passed_docker_user=False),
            replace(NFTABLES, data_plane="ipvs"),
            "iptables -I INPUT -m conntrack --ctstate NEW,RELATED,ESTABLISHED --ctorigdst 10.113.0.0/16 -j ACCEPT",
        ),
        (
            replace(DOCKER, family="ip6"),
            replace(NFTABLES, pool="fd00:112::/64"),
            "ip6tables -I DOCKER-USER -m conntrack --ctstate DNAT --ctorigdst fd00:112::/64 -j ACCEPT",
        ),
        (
            replace(DOCKER, chain="DOCKER-USER"),
            NFTABLES,
            "an operator's own rule does this: `iptables -S DOCKER-USER` shows it, and `iptables -D` removes it",
        ),
        (
            replace(DOCKER, table="raw", chain="PREROUTING"),
            NFTABLES,
            "start dockerd with --allow-direct-routing, or set [source.docker] endpoint_address to host",
        ),
        (
            replace(DOCKER, table="docker-bridges", chain="raw-PREROUTING"),
            NFTABLES,
            "start dockerd with --allow-direct-routing, or set [source.docker] endpoint_address to host",
        ),
        (
            replace(DOCKER, table="docker-bridges", chain="filter-forward-in__br-1"),
            NFTABLES,
            'write "bridge-accept-fwmark": "0x1000/0x1000" to /etc/docker/daemon.json and restart the engine',
        ),
        (
            judged("rule"),
            replace(NFTABLES, target=PUBLISHED, data_plane="ipvs"),
            (
                "nft insert rule inet fw forward ct state related,established meta l4proto tcp "
                "ct original proto-dst 30080 accept"
            ),
        ),
    ],
)
def test_the_line_fits_the_plane_the_destination_and_the_chain(
    loss: PacketLoss, context: RemedyContext, remedy: str
) -> None:
    assert loss_remedy(loss, context) == remedy


EVERY_LINE = [line for file in sorted(TRACES.glob("*.txt")) for line in file.read_text().splitlines()]


@given(st.lists(st.sampled_from(EVERY_LINE) | st.text(max_size=80), max_size=30), st.integers(0, 200))
def test_any_lines_have_a_judgement(lines: list[str], cut: int) -> None:
    """A line may be cut, as when the reader begins in the middle of one."""
    loss = judge_loss(
        parse_trace(line[cut:] if number == 0 else line for number, line in enumerate(lines)), Transport.TCP, 40000
    )
    assert loss_remedy(loss, NFTABLES)
