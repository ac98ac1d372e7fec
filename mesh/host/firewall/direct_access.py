"""Judges whether the firewall of this host drops what other workers send to containers' own addresses. Pure.

Such a request was translated by another worker. On the endpoint's worker nothing distinguishes it from any other
packet, so that our own rules cannot accept it. A packet for each endpoint is taken through the listed rules. Only what
is dropped for certain is reported: a condition that is not understood, such as the sender's address, may hold or not.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address, ip_interface, ip_network

from mesh.host.firewall.advice import iptables_program
from mesh.host.firewall.facts import FirewallFacts, IptablesFilter, IptablesRule
from mesh.host.firewall.marking import DEFAULT_MARK
from mesh.model.codes import Code
from mesh.model.eligibility import real_key
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, Name, Service, Transport

_LISTED = 4
"""Services that one message names; the others are counted."""
_DEPTH = 16
"""Jumps from chain to chain that are followed; beyond, the outcome counts as unknown."""
_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "all": "", "0": ""}
_CONTINUING = frozenset(
    {"", "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "CT", "NOTRACK", "DSCP", "TOS", "AUDIT"}
)
"""Targets after which the next rule is tried."""
_ENGINE_SETS = re.compile(r"docker-ext-bridges-v[46] dst")
"""Docker's sets of the networks of its bridges that are not internal."""
_WITH_GATEWAY_MODES = frozenset({"DOCKER-FORWARD", "DOCKER-BRIDGE"})
"""Chains of engines that know the gateway mode `nat-unprotected`: Docker from 28 on."""


@dataclass(frozen=True, slots=True, order=True)
class DirectEndpoint:
    """Where other workers send the requests for an endpoint of this worker."""

    service: Name
    address: Address
    port: int
    transport: Transport


class DirectDrop(Enum):
    """Where the packet is dropped."""

    ADDRESS = auto()
    """Before it is routed, whichever port it is for: Docker's rules in `raw`. What comes after lets it through."""
    PORT = auto()
    """Because the container does not publish the port, whatever happens before."""


class _Holds(Enum):
    """Whether a condition holds for the packet."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class _Packet:
    """The first packet of a connection that arrives from another host."""

    endpoint: DirectEndpoint
    bridge: str
    """The bridge that it leaves by."""
    others: frozenset[str]
    """Bridges of the engine, by which it does not arrive."""


def direct_endpoints(services: Iterable[Service], endpoints: Iterable[Endpoint]) -> frozenset[DirectEndpoint]:
    """Return where the virtual servers of these services send their connections for these endpoints."""
    by_owner = {service.owner: service for service in services}
    return frozenset(
        DirectEndpoint(service.name, *real_key(endpoint, port, transport), transport)
        for endpoint in endpoints
        if (service := by_owner.get(endpoint.owner)) is not None
        for transport, port in service.declared
    )


def direct_drop(endpoint: DirectEndpoint, bridge: str, facts: FirewallFacts) -> DirectDrop | None:
    """Return where a request from another host to an endpoint behind a bridge is dropped for certain; None if it may
    pass.
    """
    engine = facts.open_bridges | facts.internal_bridges | facts.silent_bridges
    packet = _Packet(endpoint, bridge, engine | {bridge})
    by_iptables = any(_Walk(table, packet).drops("FORWARD") for table in facts.filters.values())
    if by_iptables or _entry_drops(facts.engine_entries.get(bridge, ()), packet):
        return DirectDrop.PORT
    by_iptables = any(_Walk(table, packet).drops("PREROUTING") for table in facts.raw.values())
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
        bridge = _bridge_of(endpoint.address, facts.networks)
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


def _bridge_of(address: Address, networks: Mapping[str, Collection[str]]) -> str | None:
    """Return the bridge whose network has the address; None if there is none, or if it is the host's own."""
    wanted = ip_address(address)
    own = [(bridge, ip_interface(text)) for bridge, texts in networks.items() for text in texts]
    if any(interface.ip == wanted for _, interface in own):
        return None
    return next((bridge for bridge, interface in own if wanted in interface.network), None)


# ------------------------------------------------------------------------------------------------- iptables


class _Walk:
    """Takes a packet through the chains of one table, and collects every verdict that it may get."""

    def __init__(self, table: IptablesFilter, packet: _Packet) -> None:
        self._table = table
        self._packet = packet
        self._known: dict[str, frozenset[str]] = {}

    def drops(self, chain: str) -> bool:
        """Return whether the packet is dropped for certain by a built-in chain, its policy included."""
        if chain not in self._table.chains:
            return False
        verdicts = self._verdicts(chain, 0)
        if "" in verdicts:
            verdicts = verdicts - {""} | {self._table.policies.get(chain, "ACCEPT")}
        return verdicts == {"DROP"}

    def _verdicts(self, chain: str, depth: int) -> frozenset[str]:
        """Return what may become of the packet in a chain: `ACCEPT`, `DROP`, or empty for the return to the caller."""
        if chain not in self._known:
            if depth > _DEPTH:
                return frozenset({"ACCEPT", "DROP", ""})
            self._known[chain] = frozenset(self._walk(self._table.chains[chain], depth))
        return self._known[chain]

    def _walk(self, rules: Iterable[IptablesRule], depth: int) -> Iterator[str]:
        for rule in rules:
            if rule.target in _CONTINUING:
                continue
            holds = _holds(rule, self._packet)
            if holds is _Holds.NO:
                continue
            verdicts = self._target(rule, depth)
            yield from verdicts - {""}
            if "" in verdicts and (rule.target == "RETURN" or "-g" in rule.words):
                yield ""
                if holds is _Holds.YES:
                    return
            if holds is _Holds.YES and "" not in verdicts:
                return
        yield ""

    def _target(self, rule: IptablesRule, depth: int) -> frozenset[str]:
        if rule.target in self._table.chains:
            return self._verdicts(rule.target, depth + 1)
        if rule.target == "RETURN":
            return frozenset({""})
        if rule.target in ("DROP", "REJECT"):
            return frozenset({"DROP"})
        # What is not known, such as NFQUEUE, may accept.
        return frozenset({"ACCEPT"} if rule.target == "ACCEPT" else {"ACCEPT", "DROP", ""})


def _holds(rule: IptablesRule, packet: _Packet) -> _Holds:
    """Return whether a rule's conditions hold for the packet."""
    found = [_condition(name, values, packet, negated=negated) for name, values, negated in _conditions(rule.words)]
    return min(found, key=lambda holds: holds.value, default=_Holds.YES)


def _conditions(words: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield the name, the values and the negation of each option before the target."""
    name, negated, pending = "", False, False
    values: list[str] = []
    for word in words:
        if word == "!":
            pending = True
        elif word.startswith("-"):
            if name:
                yield name, tuple(values), negated
            if word in ("-j", "-g"):
                return
            name, values, negated, pending = word, [], pending, False
        else:
            values.append(word)
    if name:
        yield name, tuple(values), negated


def _condition(name: str, values: tuple[str, ...], packet: _Packet, *, negated: bool) -> _Holds:
    if name in ("-m", "--comment"):
        return _Holds.YES
    test = _TESTS.get(name)
    holds = test(" ".join(values), packet) if test is not None and values else None
    if holds is None:
        return _Holds.MAYBE
    return _Holds.YES if holds is not negated else _Holds.NO


def _leaves_by(value: str, packet: _Packet) -> bool:
    return packet.bridge.startswith(value[:-1]) if value.endswith("+") else packet.bridge == value


def _arrives_by(value: str, packet: _Packet) -> bool | None:
    """None: it may be the interface that leads to the other workers."""
    return False if value == "lo" or value in packet.others else None


def _is_for(value: str, packet: _Packet) -> bool | None:
    try:
        return ip_address(packet.endpoint.address) in ip_network(value, strict=False)
    except ValueError:
        return None


def _has_protocol(value: str, packet: _Packet) -> bool:
    return _PROTOCOLS.get(value, value) in ("", packet.endpoint.transport.value)


def _has_port(value: str, packet: _Packet) -> bool | None:
    """`80`, `80:90` or `80,90:95`."""
    spans = [part.partition(":") for part in value.split(",")]
    if not all(low.isdecimal() and (high.isdecimal() or not colon) for low, colon, high in spans):
        return None
    return any(int(low) <= packet.endpoint.port <= int(high or low) for low, _, high in spans)


def _has_state(value: str, _: _Packet) -> bool:
    """It begins a connection, which nothing on this host has translated."""
    return "NEW" in value.split(",")


def _has_mark(value: str, _: _Packet) -> bool | None:
    """Our mark is for what this host has translated."""
    return False if value == str(DEFAULT_MARK) else None


def _is_to_kind(value: str, _: _Packet) -> bool | None:
    return {"LOCAL": False, "UNICAST": True}.get(value)


def _is_in_set(value: str, _: _Packet) -> bool | None:
    return True if _ENGINE_SETS.fullmatch(value) else None


_TESTS = {
    "-i": _arrives_by,
    "-o": _leaves_by,
    "-d": _is_for,
    "-p": _has_protocol,
    "--dport": _has_port,
    "--dports": _has_port,
    "--ctstate": _has_state,
    "--state": _has_state,
    "--mark": _has_mark,
    "--dst-type": _is_to_kind,
    "--match-set": _is_in_set,
}


# ---------------------------------------------------------------------------- the engine's nftables table


def _raw_drops(rule: str, packet: _Packet) -> bool:
    address, bridge = re.escape(packet.endpoint.address), re.escape(packet.bridge)
    return re.match(rf'ip6? daddr {address} iifname != "?{bridge}"? .*\bdrop\b', rule) is not None


def _entry_drops(rules: Iterable[str], packet: _Packet) -> bool:
    """Return whether the chain for what enters a bridge drops the packet. The first rule that decides counts."""
    bridge, endpoint = re.escape(packet.bridge), packet.endpoint
    decides = rf'(?:iifname != "?{bridge}"? )?(?:counter (?:packets \d+ bytes \d+ )?)?(accept|drop)\b'
    to_port = rf"ip6? daddr {re.escape(endpoint.address)} {endpoint.transport.value} dport {endpoint.port} .*\baccept\b"
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
