"""Reads the output of `nft monitor trace`, and judges where the packets of one request were lost. Pure."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.model.service import Address, Transport

BALANCER_TABLE = "vipmesh_lb"
"""The table of our data plane: what it refuses has no endpoint."""
ISOLATION_TABLE = "vipmesh_forward"
"""The table of ours that keeps internal networks and containers of networks without ICC apart."""
TEST_TABLES = "vipmesh_test"
"""The beginning of the names of tables that trace packets; they decide nothing."""

_LINE = re.compile(r"trace id (?P<id>[0-9a-f]+) (?P<family>\S+) (?P<table>\S+) (?P<chain>\S+) (?P<rest>.*)")
_LINK = re.compile(r'\b(iif|oif) "?([^" ]+)"?')
_ADDRESSES = re.compile(r"\bip6? saddr (\S+) ip6? daddr (\S+)")
_PORTS = re.compile(r"\b(tcp|udp) sport (\d+) (?:tcp|udp) dport (\d+)\b")
_RULE = re.compile(r"rule (?P<text>.*) \(verdict (?P<verdict>\w+)[^)]*\)")
_COUNTER = re.compile(r"counter packets \d+ bytes \d+ ?")


class LossCause(StrEnum):
    """Why a packet was lost. The values are stable: programs may compare them."""

    RULE = "rule"
    """A rule of a packet filter dropped it or refused it."""
    POLICY = "policy"
    """No rule of a chain accepted it, and the policy of the chain is to drop."""
    NO_ENDPOINT = "no-endpoint"
    """Our own rules refused it, since no endpoint takes connections."""
    ISOLATION = "isolation"
    """Our own rules keep two containers apart, as the operator of their network asked for."""
    ROUTING = "routing"
    """The kernel dropped it between two hooks, when it chose the route."""
    HAIRPIN = "hairpin"
    """It should have left through the bridge that it came from."""
    UNANSWERED = "unanswered"
    """It left this host towards the endpoint, and nothing came back."""
    UNDELIVERED = "undelivered"
    """The answer left this host towards the client, and did not arrive."""
    UNTRACED = "untraced"
    """It came to a hook and never left it, and no rule of nftables dropped it: iptables' legacy backend may have."""
    UNSEEN = "unseen"
    """It never came to the packet filter of this host."""


@dataclass(frozen=True, slots=True)
class PacketLoss:
    """Where the packets of a request were lost."""

    cause: LossCause
    where: str
    """The place, for a sentence: `ip filter FORWARD policy drop`."""
    reply: bool = False
    """Whether it was the answer that was lost."""
    family: str = ""
    """`ip`, `ip6` or `inet`; empty if it was not a chain that dropped it, as the next three."""
    table: str = ""
    chain: str = ""
    rule: str = ""
    """The rule as nft prints it; empty for a policy."""
    iif: str = ""
    """The interface that the packet came from; empty if it was sent by this host."""
    oif: str = ""
    """The interface that the packet was leaving by; empty before a route was chosen."""
    passed_docker_user: bool = False
    """Whether the packet passed the chain that Docker leaves to operators."""


@dataclass(slots=True)
class TracedPacket:
    """One packet in one chain of a hook, with what followed there."""

    transport: str
    iif: str
    oif: str
    source: Address
    destination: Address
    sport: int
    dport: int
    chains: list[str] = field(default_factory=list)
    """The chains that it passed, with their tables: `ip filter DOCKER-USER`."""
    drop: tuple[str, str, str, str] | None = None
    """Family, table, chain and rule of the drop; the rule is empty for a policy. None: it was not dropped here."""
    hook: str = ""
    """The chain of the trace's own table that shows it: the name of a hook, or `tests`, where a packet is shown first;
    empty in other tables.
    """


def judge_loss(
    packets: Iterable[TracedPacket], transport: Transport, port: int, endpoints: Collection[Address] = ()
) -> PacketLoss:
    """Return where the packets of one request were lost, from the packets of a trace and the port of the client.

    `endpoints`: the addresses of the endpoints that the request may have been meant for.
    """
    traced = [p for p in packets if p.transport == transport and port in (p.sport, p.dport)]
    requests = [packet for packet in traced if packet.sport == port]
    replies = [packet for packet in traced if packet.dport == port]
    user = any("DOCKER-USER" in chain for packet in traced for chain in packet.chains)
    for ways, reply in ((requests, False), (replies, True)):
        for packet in ways:
            if packet.drop is not None:
                return _dropped(packet, packet.drop, reply=reply, passed_docker_user=user)
    if replies:
        return _vanished_reply(replies)
    return _vanished_request(requests, endpoints)


def _dropped(
    packet: TracedPacket, drop: tuple[str, str, str, str], *, reply: bool, passed_docker_user: bool
) -> PacketLoss:
    family, table, chain, rule = drop
    own = {BALANCER_TABLE: LossCause.NO_ENDPOINT, ISOLATION_TABLE: LossCause.ISOLATION}
    cause = own.get(table, LossCause.RULE if rule else LossCause.POLICY)
    where = f"{family} {table} {chain}: {rule}" if rule else f"{family} {table} {chain}: policy drop"
    return PacketLoss(cause, where, reply, family, table, chain, rule, packet.iif, packet.oif, passed_docker_user)


def _vanished_request(requests: Sequence[TracedPacket], endpoints: Collection[Address]) -> PacketLoss:
    """Return where a request was lost that no rule has dropped."""
    if not requests:
        return PacketLoss(LossCause.UNSEEN, "before the packet filter of this host")
    last = next((packet for packet in reversed(requests) if packet.hook), requests[-1])
    if (left := _last_at(requests, "postrouting")) is not None:
        place = f"{left.destination}:{left.dport} on {left.oif}"
        # By the addresses and not by `iif`, which a packet that IPVS sends on does not have.
        if left.destination == requests[0].source:
            text = f"back to {place}: the client is the endpoint that was chosen"
            return PacketLoss(LossCause.HAIRPIN, text, iif=left.oif, oif=left.oif)
        return PacketLoss(LossCause.UNANSWERED, f"behind {place}", iif=left.iif, oif=left.oif)
    if last.oif:
        return PacketLoss(LossCause.UNTRACED, f"in the hook {_hook(last)}", iif=last.iif, oif=last.oif)
    if last.hook == "input":
        return PacketLoss(LossCause.UNANSWERED, f"in this host itself, behind {last.iif}", iif=last.iif)
    if last.source in endpoints:
        # With bridge-nf-call-iptables the bridge sends it on itself, and never back to the port that it came from.
        text = f"on the bridge {last.iif}: the client is the endpoint that was chosen"
        return PacketLoss(LossCause.HAIRPIN, text, iif=last.iif, oif=last.iif)
    return PacketLoss(LossCause.ROUTING, f"behind the interface {last.iif}, where a route is chosen", iif=last.iif)


def _vanished_reply(replies: Sequence[TracedPacket]) -> PacketLoss:
    """Return where an answer was lost that no rule has dropped."""
    last = next((packet for packet in reversed(replies) if packet.hook), replies[-1])
    if (left := _last_at(replies, "postrouting")) is not None:
        place = f"{left.destination}:{left.dport} on {left.oif}"
        return PacketLoss(LossCause.UNDELIVERED, f"behind {place}", reply=True, iif=left.iif, oif=left.oif)
    if last.oif or last.hook == "input":
        text = f"in the hook {_hook(last)}"
        return PacketLoss(LossCause.UNTRACED, text, reply=True, iif=last.iif, oif=last.oif)
    text = f"behind the interface {last.iif}, where a route is chosen"
    return PacketLoss(LossCause.ROUTING, text, reply=True, iif=last.iif)


def _hook(packet: TracedPacket) -> str:
    """Return the hook of a packet that has come to this host's own chains, or that has a way out."""
    if not packet.oif:
        return "input"
    return "forward" if packet.iif else "output"


def _last_at(packets: Sequence[TracedPacket], hook: str) -> TracedPacket | None:
    return next((packet for packet in reversed(packets) if packet.hook == hook), None)


def parse_trace(lines: Iterable[str]) -> Sequence[TracedPacket]:
    """Return the packets of a trace, once for each base chain that shows them; lines that do not fit are skipped."""
    current: dict[str, TracedPacket] = {}
    found: list[TracedPacket] = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        if match["rest"].startswith("packet: "):
            packet = _packet(match["rest"])
            if packet is not None:
                packet.hook = match["chain"] if match["table"].startswith(TEST_TABLES) else packet.hook
                current[match["id"]] = packet
                found.append(packet)
        # Ids are hashes that may be used again: they belong to the last packet that had them.
        elif (packet := current.get(match["id"])) is not None and not match["table"].startswith(TEST_TABLES):
            _follow(packet, match)
    return found


def _packet(text: str) -> TracedPacket | None:
    """Return the packet that a line shows; None if it is not TCP or UDP."""
    links, addresses, ports = dict(_LINK.findall(text)), _ADDRESSES.search(text), _PORTS.search(text)
    if ports is None or addresses is None:
        return None
    transport, sport, dport = ports.groups()
    source, destination = addresses.groups()
    return TracedPacket(
        transport, links.get("iif", ""), links.get("oif", ""), source, destination, int(sport), int(dport)
    )


def _follow(packet: TracedPacket, match: re.Match[str]) -> None:
    """Add what a chain did with a packet."""
    family, table, chain, rest = match["family"], match["table"], match["chain"], match["rest"].strip()
    packet.chains.append(f"{family} {table} {chain}")
    rule = _RULE.fullmatch(rest)
    if rule is not None and rule["verdict"] == "drop":
        packet.drop = family, table, chain, _COUNTER.sub("", rule["text"]).strip()
    elif rest == "policy drop" or (rest.startswith("unknown rule") and "(verdict drop)" in rest):
        packet.drop = family, table, chain, "" if rest == "policy drop" else rest.partition(" (")[0]
