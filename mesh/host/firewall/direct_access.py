"""Judges whether the firewall of this host drops what other workers send to containers' own addresses. Pure.

Such a request was translated by another worker. On the endpoint's worker nothing distinguishes it from any other
packet, so that our own rules cannot accept it. A packet for each endpoint is taken through the listed rules. Only what
is dropped for certain is reported: a condition that is not understood, such as the sender's address, may hold or not.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address, ip_interface

from mesh.host.firewall.advice import iptables_program
from mesh.host.firewall.facts import FirewallFacts
from mesh.host.firewall.marking import DEFAULT_MARK
from mesh.host.firewall.rule_walk import ForwardedPacket, RuleWalk
from mesh.model.codes import Code
from mesh.model.eligibility import real_key
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, Name, Service, Transport

_LISTED = 4
"""Services that one message names; the others are counted."""
_WITH_GATEWAY_MODES = frozenset({"DOCKER-FORWARD", "DOCKER-BRIDGE"})
"""Chains of engines that know the gateway mode `nat-unprotected`: Docker from 28 on."""


@dataclass(frozen=True, slots=True, order=True)
class DirectEndpoint:
    """Where other workers send the requests for an endpoint of this worker."""

    service: Name
    address: Address
    port: int
    transport: Transport
    owner: str = ""
    """The `Service.owner` of the service; empty if that does not matter."""


class DirectDrop(Enum):
    """Where the packet is dropped."""

    ADDRESS = auto()
    """Before it is routed, whichever port it is for: Docker's rules in `raw`. What comes after lets it through."""
    PORT = auto()
    """Because the container does not publish the port, whatever happens before."""


def direct_endpoints(services: Iterable[Service], endpoints: Iterable[Endpoint]) -> frozenset[DirectEndpoint]:
    """Return where the virtual servers of these services send their connections for these endpoints."""
    by_owner = {service.owner: service for service in services}
    return frozenset(
        DirectEndpoint(service.name, *real_key(endpoint, port, transport), transport, service.owner)
        for endpoint in endpoints
        if (service := by_owner.get(endpoint.owner)) is not None
        for transport, port in service.declared
    )


def direct_drop(endpoint: DirectEndpoint, bridge: str, facts: FirewallFacts) -> DirectDrop | None:
    """Return where a request from another host to an endpoint behind a bridge is dropped for certain; None if it may
    pass.
    """
    engine = facts.open_bridges | facts.internal_bridges | facts.silent_bridges
    packet = ForwardedPacket(endpoint.address, endpoint.port, endpoint.transport, bridge, engine | {bridge})
    by_iptables = any(RuleWalk(table, packet).drops("FORWARD") for table in facts.filters.values())
    if by_iptables or _entry_drops(facts.engine_entries.get(bridge, ()), packet):
        return DirectDrop.PORT
    by_iptables = any(RuleWalk(table, packet).drops("PREROUTING") for table in facts.raw.values())
    if by_iptables or any(_raw_drops(rule, packet) for rule in facts.engine_raw):
        return DirectDrop.ADDRESS
    return None


def direct_access_problems(
    facts: FirewallFacts, endpoints: Iterable[DirectEndpoint], version: int
) -> Iterator[Problem]:
    """Yield a problem for each container network in which endpoints are dropped, in the order of the bridges.

    `endpoints` are those that other workers use; those outside of this host's bridges are left out.
    """
    by_bridge: dict[str, list[tuple[DirectEndpoint, DirectDrop]]] = {}
    for endpoint in sorted(endpoints):
        bridge = bridge_of(endpoint.address, facts.networks)
        drop = None if bridge is None else direct_drop(endpoint, bridge, facts)
        if bridge is not None and drop is not None:
            by_bridge.setdefault(bridge, []).append((endpoint, drop))
    for bridge, dropped in sorted(by_bridge.items()):
        yield _problem(facts, bridge, dropped, version)


def _problem(
    facts: FirewallFacts, bridge: str, dropped: Collection[tuple[DirectEndpoint, DirectDrop]], version: int
) -> Problem:
    # No address of a container: the text must stay the same while containers are replaced.
    services = list(dict.fromkeys(endpoint.service for endpoint, _ in dropped))
    rest = len(services) - _LISTED
    named = ", ".join(services[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
    return Problem(
        Code.ENGINE_FIREWALL,
        Severity.WARNING,
        f"container network {bridge}",
        f"the firewall of this host drops what other workers send to the own addresses of containers there: {named}",
        _remedy(facts, bridge, {drop for _, drop in dropped}, version),
    )


def _remedy(facts: FirewallFacts, bridge: str, drops: Collection[DirectDrop], version: int) -> str:
    if bridge in facts.internal_bridges:
        return "attach the containers to a network that is not `--internal`, and publish their ports (`docker run -p`)"
    ways = ['publish the ports (`docker run -p`) and set [source.docker] endpoint_address = "auto"']
    if _knows_gateway_modes(facts):
        mode = f"com.docker.network.bridge.gateway_mode_ipv{version}=nat-unprotected"
        ways.append(f"make the network again by `docker network create -o {mode}`")
        if set(drops) == {DirectDrop.ADDRESS}:
            ways.append('write "allow-direct-routing": true to /etc/docker/daemon.json and restart the engine')
    else:
        program = next((iptables_program(backend, version) for backend in facts.filters), "iptables")
        ways.append(f"allow it from the address of each other worker: `{program} -I DOCKER-USER -s WORKER -j ACCEPT`")
    return ", or ".join(ways)


def _knows_gateway_modes(facts: FirewallFacts) -> bool:
    return facts.has_engine_table or any(
        not _WITH_GATEWAY_MODES.isdisjoint(table.chains) for table in facts.filters.values()
    )


def bridge_of(address: Address, networks: Mapping[str, Collection[str]]) -> str | None:
    """Return the bridge whose network has the address; None if there is none, or if it is the host's own."""
    wanted = ip_address(address)
    own = [(bridge, ip_interface(text)) for bridge, texts in networks.items() for text in texts]
    if any(interface.ip == wanted for _, interface in own):
        return None
    return next((bridge for bridge, interface in own if wanted in interface.network), None)


# ---------------------------------------------------------------------------- the engine's nftables table


def _raw_drops(rule: str, packet: ForwardedPacket) -> bool:
    address, bridge = re.escape(packet.address), re.escape(packet.bridge)
    return re.match(rf'ip6? daddr {address} iifname != "?{bridge}"? .*\bdrop\b', rule) is not None


def _entry_drops(rules: Iterable[str], packet: ForwardedPacket) -> bool:
    """Return whether the chain for what enters a bridge drops the packet. The first rule that decides counts."""
    bridge = re.escape(packet.bridge)
    decides = rf'(?:iifname != "?{bridge}"? )?(?:counter (?:packets \d+ bytes \d+ )?)?(accept|drop)\b'
    to_port = rf"ip6? daddr {re.escape(packet.address)} {packet.transport.value} dport {packet.port} .*\baccept\b"
    others = rf'ct state |iifname "?{bridge}"? |ip6? daddr \S+ \w+ dport \d+ |{_mark_pattern()} '
    for rule in rules:
        decided = re.match(decides, rule)
        if decided is not None:
            return decided[1] == "drop"
        if re.match(to_port, rule) or (re.search(r"\baccept\b", rule) and not re.match(others, rule)):
            return False
    return False


def _mark_pattern() -> str:
    return rf"(?:meta )?mark (?:&|and) 0x0*{DEFAULT_MARK.mask:x} == 0x0*{DEFAULT_MARK.value:x}"
