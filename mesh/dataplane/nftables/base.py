"""What all virtual servers share: the map that leads to their chains, the hooks, and the rules for source addresses.

Hooks come ten before the usual priorities, so that we decide before whatever else translates addresses on this host;
who decides first decides alone. `output` is for connections of the host itself.

**Source addresses.** Replies must come back through this worker, or nobody undoes the translation. They do from an
endpoint behind a bridge or a veth pair of this worker, as containers are: it keeps seeing the client's address. The
worker's own address takes its place in three cases, and in no other:

* the client is the host itself: its source address may be a VIP, which every worker has;
* the endpoint is elsewhere: the way out is no bridge and no veth;
* the way out is the way in (a container that reaches itself or its neighbour, a client in the endpoint's network): the
  reply would go there directly. nft cannot compare two interfaces, but it can look for the pair (in, out) in a set into
  which the rule before puts (in, in).

nft 1.0.6 cannot concatenate the original port, so published ports are recognised by their addresses and their ports.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from mesh.dataplane.nftables.service import PROTOCOLS, Rule
from mesh.model import Address, Transport, VirtualKey

Network: TypeAlias = IPv4Network | IPv6Network

TABLE = "vipmesh_lb"
SERVICES, LINKS, ADDRESSES = "services", "links", "addresses"
_BEFORE = 10
_DESTINATION_NAT, _SOURCE_NAT = -100, 100  # linux/netfilter_ipv4.h


@dataclass(frozen=True, slots=True)
class Hook:
    """Where in the way of packets a chain is called: `prerouting`, and the priority."""

    name: str
    priority: int

    def __str__(self) -> str:
        return f"type nat hook {self.name} priority {self.priority}; policy accept;"


@dataclass(frozen=True, slots=True)
class Base:
    """The fixed part of the table for one pool."""

    family: str
    """`ip` or `ip6`, the family of the table and of all that is in it."""
    objects: Mapping[str, str]
    """Maps and sets: name -> the data type that nft lists, ` . ` between its parts."""
    hooks: Mapping[str, Hook]
    chains: Mapping[str, tuple[Rule, ...]]

    @property
    def table(self) -> str:
        """As it stands in commands: `ip vipmesh_lb`."""
        return f"{self.family} {TABLE}"


def base(pool: Network) -> Base:
    """The fixed part for a pool."""
    ip = "ip6" if pool.version == 6 else "ip"
    address = "ipv6_addr" if pool.version == 6 else "ipv4_addr"
    to_services = (Rule(f"{ip} daddr . meta l4proto . th dport vmap @{SERVICES}"),)
    published = (
        Rule(
            f"meta l4proto {PROTOCOLS[transport]} ct status dnat ct original {ip} daddr @{ADDRESSES} "
            f"ct original proto-dst @{ports(transport)} goto source-nat"
        )
        for transport in Transport
    )
    return Base(
        ip,
        {
            SERVICES: f"{address} . inet_proto . inet_service",
            LINKS: "iface_index . iface_index",
            ADDRESSES: address,
            **{ports(transport): "inet_service" for transport in Transport},
        },
        {
            "prerouting": Hook("prerouting", _DESTINATION_NAT - _BEFORE),
            "output": Hook("output", _DESTINATION_NAT - _BEFORE),
            "postrouting": Hook("postrouting", _SOURCE_NAT - _BEFORE),
        },
        {
            "prerouting": to_services,
            "output": to_services,
            "source-nat": (
                Rule("fib saddr type local masquerade"),
                Rule('meta oifkind != { "bridge", "veth" } masquerade'),
                Rule(f"add @{LINKS} {{ iif . iif }}"),
                Rule(f"iif . oif @{LINKS} masquerade"),
            ),
            "postrouting": (Rule(f"ct status dnat ct original {ip} daddr {pool} goto source-nat"), *published),
        },
    )


def ports(transport: Transport) -> str:
    """The set of published ports of a transport."""
    return f"ports-{transport}"


def published_elements(keys: Iterable[VirtualKey]) -> dict[str, frozenset[Address | int]]:
    """What the sets of published addresses and ports hold, for these virtual servers outside of the pool."""
    elements: dict[str, set[Address | int]] = {ADDRESSES: set(), **{ports(transport): set() for transport in Transport}}
    for key in keys:
        elements[ADDRESSES].add(key.address)
        elements[ports(key.transport)].add(key.port)
    return {name: frozenset(found) for name, found in elements.items()}


def element(key: VirtualKey) -> str:
    """The key of a virtual server in the map of services."""
    return f"{key.address} . {PROTOCOLS[key.transport]} . {key.port}"


def script(wanted: Base, present: Iterable[str]) -> list[str]:
    """The commands that set up the fixed part; `present` are those of its chains that are there in whatever state.

    Elements of the map and the chains of virtual servers stay as they are.
    """
    table = wanted.table
    lines = [f"add table {table}"]
    for name, kind in wanted.objects.items():
        noun, data = ("map", " : verdict") if name == SERVICES else ("set", "")
        volatile = " flags dynamic,timeout; timeout 60s; size 1024;" if name == LINKS else ""
        lines.append(f"add {noun} {table} {name} {{ type {kind}{data};{volatile} }}")
    there = set(present)
    order = ("source-nat", *wanted.hooks)  # the other chains lead to the first
    lines += [f"flush chain {table} {name}" for name in order if name in there]
    lines += [f"delete chain {table} {name}" for name in reversed(order) if name in there]
    for name in order:
        hook = wanted.hooks.get(name)
        lines.append(f"add chain {table} {name}" + (f" {{ {hook} }}" if hook else ""))
        lines += [f"add rule {table} {name} {rule}" for rule in wanted.chains[name]]
    return lines
