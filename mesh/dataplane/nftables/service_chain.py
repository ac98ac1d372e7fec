"""Writes a virtual server as a chain of nft rules, and reads such a chain back.

    chain tcp-10.112.0.7-80 {
        meta l4proto 6 dnat ip to numgen inc mod 2 map { 0 : 10.2.0.1 . 8080, 1 : 10.2.0.2 . 8080 }
        return comment "vipmesh 1 wrr unit 1 persistence 0"
        return comment "10.2.0.3:8080 weight 0"
    }

The traffic map holds the weights: the weight of a real server is its number of slots times the unit. What the map
cannot express follows behind the deciding rule, where no packet ever arrives: the settings, and the weights of real
servers that are not in the map. Limits of connections are noted there too, but not enforced.

With persistence, each real server that takes new connections has a chain and a set of clients of the same name:

    chain tcp-10.112.0.7-80/10.2.0.1-8080 {
        update @tcp-10.112.0.7-80/10.2.0.1-8080 { ip saddr }
        meta l4proto 6 dnat to 10.2.0.1:8080
    }

The virtual server's chain looks into all sets before it balances a client. A real server that leaves takes its set
along, so that no client is ever sent to a real server that is gone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from mesh.dataplane.netlink import PROTOCOLS
from mesh.dataplane.nftables.balancer import BalancerChoice, choose_balancer, eligible_servers, weight_unit
from mesh.model.service import Address, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer

FOREIGN_VALUE = -1
"""A persistence that no plan contains: the chain differs from what we would write, and the next diff corrects it."""

_SETTINGS = re.compile(r"vipmesh 1 (\w+) unit (\d+) persistence (\d+)((?: \w+)*)")
_NOTE = re.compile(r"(.+):(\d+) weight (\d+)(?: limits (\d+) (\d+))?")
_NAME = re.compile(r"(tcp|udp|sctp)-([0-9a-f._]+)-(\d+)")
_SLOT = re.compile(r"(\d+)(?:-(\d+))? : ([^,}]+)")
_CLIENTS = 1 << 16
"""Maximum clients that a real server's set holds; further ones are balanced without being remembered."""


@dataclass(frozen=True, slots=True)
class ChainRule:
    """A rule as text."""

    text: str
    comment: str = ""
    """The comment without quotes; empty for none."""

    @override
    def __str__(self) -> str:
        return f'{self.text} comment "{self.comment}"' if self.comment else self.text


@dataclass(frozen=True, slots=True)
class ServiceChains:
    """Everything that a virtual server consists of, except its element in the map of services."""

    chains: Mapping[str, tuple[ChainRule, ...]]
    """Rules by name of the chain; the virtual server's own chain comes first."""
    clients: Mapping[str, int]
    """Seconds that a client stays in each set of clients, by name of the set."""


def chain_name(key: VirtualKey) -> str:
    """Return the name of a virtual server's chain, such as `tcp-10.112.0.7-80`.

    A name cannot contain a colon, so an underscore stands for it.
    """
    return f"{key.transport}-{_plain(key.address)}-{key.port}"


def chain_virtual_key(name: str) -> VirtualKey | None:
    """Return the key of the virtual server that a chain belongs to; None if it is not a virtual server's own chain."""
    match = _NAME.fullmatch(name)
    return VirtualKey(match[2].replace("_", ":"), int(match[3]), Transport(match[1])) if match else None


def client_chain_name(key: VirtualKey, real: RealKey) -> str:
    """Return the name of the chain and the set of a real server behind a virtual server with persistence."""
    return f"{chain_name(key)}/{_plain(real.address)}-{real.port}"


def service_chains(key: VirtualKey, server: VirtualServer) -> ServiceChains:
    """Return the chains and sets that the kernel must have for a virtual server."""
    chosen = choose_balancer(key, server)
    remembered = {client_chain_name(key, real): real for real in eligible_servers(server)} if server.persistence else {}
    own = (
        *(ChainRule(f"{_ip(key)} saddr @{name} goto {name}") for name in remembered),
        ChainRule(_decision(key, chosen, sticky=bool(remembered))),
        ChainRule("return", _settings(server)),
        *(ChainRule("return", text) for text in _notes(server, chosen)),
    )
    others = {name: _client_rules(key, name, real) for name, real in remembered.items()}
    return ServiceChains({chain_name(key): own, **others}, dict.fromkeys(remembered, server.persistence))


def parse_virtual_server(key: VirtualKey, found: ServiceChains) -> VirtualServer:
    """Return the virtual server that these chains describe.

    Its persistence is `FOREIGN_VALUE` if the chains differ from what we would write for it.
    """
    own = found.chains[chain_name(key)]
    server = _understood(key, own)
    if server is None:
        return VirtualServer(persistence=FOREIGN_VALUE)
    if service_chains(key, server) == found:
        return server
    return VirtualServer(server.scheduler, FOREIGN_VALUE, server.real_servers, server.flags)


def client_set_declaration(key: VirtualKey, seconds: int) -> str:
    """Return the declaration of a set of clients; `seconds` is how long a client stays in it."""
    kind = "ipv6_addr" if ":" in key.address else "ipv4_addr"
    return f"{{ type {kind}; flags dynamic,timeout; timeout {seconds}s; size {_CLIENTS}; }}"


def _plain(address: Address) -> str:
    return address.replace(":", "_")


def _ip(key: VirtualKey) -> str:
    return "ip6" if ":" in key.address else "ip"


def _decision(key: VirtualKey, chosen: BalancerChoice | None, *, sticky: bool) -> str:
    """Return the rule that balances a new connection, or refuses it if there is no real server to take it."""
    if chosen is None:
        return "reject with tcp reset" if key.transport is Transport.TCP else _refusal(key)
    if sticky:
        targets = (f"{slots} : goto {client_chain_name(key, real)}" for slots, real in chosen.ranges())
        return f"{chosen.number} vmap {{ {', '.join(targets)} }}"
    places = (f"{slots} : {real.address} . {real.port}" for slots, real in chosen.ranges())
    # nft does not list the protocol if the hashed port implies it, and a rule must be written as nft lists it.
    protocol = "" if chosen.selector.endswith("sport") else f"meta l4proto {PROTOCOLS[key.transport]} "
    return f"{protocol}dnat {_ip(key)} to {chosen.number} map {{ {', '.join(places)} }}"


def _refusal(key: VirtualKey) -> str:
    """Return the rule that refuses a datagram."""
    return f"reject with {'icmpv6' if ':' in key.address else 'icmp'} type port-unreachable"


def _settings(server: VirtualServer) -> str:
    """Return the comment that holds the settings of a virtual server."""
    flags = "".join(f" {flag}" for flag in sorted(server.flags))
    return f"vipmesh 1 {server.scheduler} unit {weight_unit(server)} persistence {server.persistence}{flags}"


def _notes(server: VirtualServer, chosen: BalancerChoice | None) -> Iterator[str]:
    """Yield a comment for each real server whose settings the slots do not express."""
    implied = _implied(chosen.runs if chosen else (), weight_unit(server))
    for real, settings in sorted(server.real_servers.items(), key=lambda item: item[0]):
        limits = (settings.upper_threshold, settings.lower_threshold)
        if implied.get(real) != settings.weight or any(limits):
            noted = f" limits {limits[0]} {limits[1]}" if any(limits) else ""
            yield f"{real.address}:{real.port} weight {settings.weight}{noted}"


def _implied(runs: Sequence[tuple[RealKey, int]], each: int) -> dict[RealKey, int]:
    """Return the weights that the slots express; `each` is the weight of one slot."""
    weights: dict[RealKey, int] = {}
    for real, count in runs:
        weights[real] = weights.get(real, 0) + count * each
    return weights


def _client_rules(key: VirtualKey, name: str, real: RealKey) -> tuple[ChainRule, ...]:
    """Return the rules of a real server's chain: remember the client, then send it to the real server."""
    host = f"[{real.address}]" if ":" in real.address else real.address
    return (
        ChainRule(f"update @{name} {{ {_ip(key)} saddr }}"),
        ChainRule(f"meta l4proto {PROTOCOLS[key.transport]} dnat to {host}:{real.port}"),
    )


def _understood(key: VirtualKey, rules: Sequence[ChainRule]) -> VirtualServer | None:
    """Read a virtual server from its rules; None if they hold no settings.

    The result is not yet compared with what we would write.
    """
    settings = next((match for rule in rules if (match := _SETTINGS.fullmatch(rule.comment))), None)
    if settings is None or settings[1] not in list(Scheduler):
        return None
    flags = settings[4].split()
    if not set(flags) <= set(SchedulerFlag):
        return None
    runs = [run for rule in rules for run in _runs(key, rule.text)]
    reals = {real: RealServer(weight) for real, weight in _implied(runs, int(settings[2])).items()}
    for rule in rules:
        if match := _NOTE.fullmatch(rule.comment):
            weight, upper, lower = (int(number or 0) for number in match.groups()[2:])
            reals[RealKey(match[1], int(match[2]))] = RealServer(weight, upper_threshold=upper, lower_threshold=lower)
    return VirtualServer(
        Scheduler(settings[1]),
        int(settings[3]),
        reals,
        frozenset(SchedulerFlag(flag) for flag in flags),
    )


def _runs(key: VirtualKey, text: str) -> Iterator[tuple[RealKey, int]]:
    """Yield the slots of each real server in the text of a deciding rule."""
    for low, high, target in _SLOT.findall(text.partition("map {")[2]):
        real = _target(key, target.strip())
        if real is not None:
            yield real, int(high or low) - int(low) + 1


def _target(key: VirtualKey, text: str) -> RealKey | None:
    """Return the real server in a map element; None if it is not one."""
    prefix = f"goto {chain_name(key)}/"
    if text.startswith(prefix):
        address, _, port = text.removeprefix(prefix).replace("_", ":").rpartition("-")
    else:
        address, _, port = text.partition(" . ")
    return RealKey(address, int(port)) if port.isdigit() else None
