"""The nftables table that marks the packets of translated connections, before any other chain filters them. Pure.

A packet is marked if its connection has an original destination of ours, a VIP or a published port of this worker, and
replies of another host: conntrack knows both of every connection that was translated, by IPVS as by nftables. A
connection to the same address that nobody has translated has neither. The mark is that of the packet, not of the
connection, so that a change applies to connections that exist.

The isolation that an operator asked for stays. Only packets between open interfaces are marked; for all others, such as
bridges of `--internal` networks, the host's own rules decide. What we have translated is dropped if it enters or leaves
an `--internal` network, or stays within a network with `enable_icc=false`. The engine's own rules are not enough for
that: under IPVS only replies are forwarded, and some engines accept what is established before they look at the
network.

Each packet of the host passes these rules, and each expression counts: the first rule alone decides for most packets,
and the rules for isolated networks are there only if there are such networks. Interfaces are compared by index, which
takes least, and which a network that is made again under the same name does not share.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from mesh.config.values import Network
from mesh.host.firewall.facts import AcceptMark
from mesh.model.service import Address, Transport

TABLE = "vipmesh_forward"
"""The name of the table."""
DEFAULT_MARK = AcceptMark(0x1000, 0x1000)
"""The mark, unless the engine is configured to accept another one. Other programs for container networks leave this bit
alone."""


@dataclass(frozen=True, slots=True)
class MarkingRules:
    """The values that the table is made from."""

    pool: Network
    """The VIP pool; its IP version is that of the table."""
    mark: AcceptMark = DEFAULT_MARK
    addresses: tuple[Address, ...] = ()
    """The worker's own addresses, of any IP version."""
    published: tuple[tuple[Transport, int], ...] = ()
    """The published ports that lead to services on this worker."""
    open_interfaces: tuple[int, ...] = ()
    """The indexes of the interfaces whose networks may talk to one another."""
    internal_bridges: tuple[int, ...] = ()
    """The indexes of the bridges of `--internal` networks."""
    silent_bridges: tuple[int, ...] = ()
    """The indexes of the bridges of networks with `enable_icc=false`."""


def family_of(pool: Network) -> str:
    """Return the nftables family of a network."""
    return "ip6" if pool.version == 6 else "ip"


def render_marking(rules: MarkingRules) -> str:
    """Return the nft(8) script that replaces the table in one transaction."""
    family = family_of(rules.pool)
    lines = "\n".join(f"\t{line}" for line in _table(rules, family))
    # `add` before `delete`: deleting a table that does not exist would fail the transaction.
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{lines}\n}}\n"


def _table(rules: MarkingRules, family: str) -> Iterator[str]:
    addresses = [a for a in rules.addresses if ip_address(a).version == rules.pool.version]
    ports = {t: [str(p) for transport, p in rules.published if transport is t] for t in Transport}
    yield from _set("addresses", "ipv6_addr" if family == "ip6" else "ipv4_addr", addresses)
    for transport, numbers in ports.items():
        yield from _set(f"published_{transport}", "inet_service", numbers)
    yield from _set("open_interfaces", "iface_index", map(str, rules.open_interfaces))
    yield from _set("internal_bridges", "iface_index", map(str, rules.internal_bridges))
    yield from _set("within_internal", "iface_index . iface_index", _pairs(rules.internal_bridges))
    yield from _set("within_silent", "iface_index . iface_index", _pairs(rules.silent_bridges))
    vips = f"ct original {family} daddr {rules.pool} ct reply {family} saddr != {rules.pool}"
    own = f"ct original {family} daddr @addresses ct reply {family} saddr != @addresses"
    published = [
        f"{own} meta l4proto {transport} ct original proto-dst @published_{transport}"
        for transport, numbers in ports.items()
        if numbers
    ]
    mask, value = ~rules.mark.mask & 0xFFFFFFFF, rules.mark.value
    marking = f"iif @open_interfaces oif @open_interfaces meta mark set meta mark & {mask:#x} | {value:#x} accept"
    if rules.internal_bridges or rules.silent_bridges:
        yield "chain isolated {"
        yield '\tiif . oif @within_silent drop comment "enable_icc=false"'
        yield "\tiif . oif @within_internal accept"
        yield '\tiif @internal_bridges drop comment "internal network"'
        yield '\toif @internal_bridges drop comment "internal network"'
        yield "}"
        actions: tuple[str, ...] = ("jump isolated", marking)
    else:
        actions = (marking,)
    yield "chain forward {"
    yield "\ttype filter hook forward priority mangle; policy accept;"
    yield from (f"\t{of_ours} {action}" for of_ours in (vips, *published) for action in actions)
    yield "}"


def _pairs(indexes: Iterable[int]) -> Iterator[str]:
    return (f"{index} . {index}" for index in indexes)


def _set(name: str, kind: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"set {name} {{"
    yield f"\ttype {kind};"
    joined = ", ".join(elements)
    if joined:
        yield f"\telements = {{ {joined} }}"
    yield "}"
