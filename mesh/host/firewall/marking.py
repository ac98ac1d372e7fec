"""The nftables table that marks the packets of translated connections, before any other chain filters them. Pure.

A packet is marked if its connection has an original destination of ours, a VIP or a published port of this worker, and
replies of another host: conntrack knows both of every connection that was translated, by IPVS as by nftables. A
connection to the same address that nobody has translated has neither. The mark is that of the packet, not of the
connection, so that a change applies to connections that exist.

The isolation that an operator asked for stays. What we have translated is dropped if it enters or leaves the bridge of
an `--internal` network, or stays within a bridge with `enable_icc=false`. The engine's own rules are not enough for
that: under IPVS only replies are forwarded, and some engines accept what is established before they look at the
network. A packet within any other bridge, or on a bridge that is not known to be open, is not marked: there the host's
own rules decide.
"""

import re
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
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Interface names that need no quoting in nft; a bridge with another name stays closed."""


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
    open_bridges: tuple[str, ...] = ()
    """The bridges of networks that other networks may talk to."""
    internal_bridges: tuple[str, ...] = ()
    """The bridges of `--internal` networks."""
    silent_bridges: tuple[str, ...] = ()
    """The bridges of networks with `enable_icc=false`."""


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
    opened, internal, silent = map(_quoted, (rules.open_bridges, rules.internal_bridges, rules.silent_bridges))
    addresses = [a for a in rules.addresses if ip_address(a).version == rules.pool.version]
    ports = {t: [str(p) for transport, p in rules.published if transport is t] for t in Transport}
    yield from _set("addresses", "ipv6_addr" if family == "ip6" else "ipv4_addr", addresses)
    for transport, numbers in ports.items():
        yield from _set(f"published_{transport}", "inet_service", numbers)
    yield from _set("open_bridges", "ifname", opened)
    yield from _set("internal_bridges", "ifname", internal)
    yield from _set("within_silent_bridge", "ifname . ifname", _pairs(silent))
    yield from _set("within_one_bridge", "ifname . ifname", _pairs(dict.fromkeys((*opened, *internal))))
    yield "chain forward {"
    yield "\ttype filter hook forward priority mangle; policy accept;"
    yield f"\tct original {family} daddr {rules.pool} ct reply {family} saddr != {rules.pool} goto translated"
    ours = f"ct original {family} daddr @addresses ct reply {family} saddr != @addresses"
    for transport, numbers in ports.items():
        if numbers:
            yield f"\t{ours} meta l4proto {transport} ct original proto-dst @published_{transport} goto translated"
    yield "}"
    yield "chain translated {"
    yield '\tiifname . oifname @within_silent_bridge drop comment "enable_icc=false"'
    yield "\tiifname . oifname @within_one_bridge return"
    yield '\tiifname @internal_bridges drop comment "internal network"'
    yield '\toifname @internal_bridges drop comment "internal network"'
    yield '\tmeta iifkind "bridge" iifname != @open_bridges return'
    yield '\tmeta oifkind "bridge" oifname != @open_bridges return'
    yield f"\tmeta mark set meta mark & {~rules.mark.mask & 0xFFFFFFFF:#x} | {rules.mark.value:#x}"
    yield "}"


def _quoted(bridges: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in bridges if _PLAIN_NAME.fullmatch(name)]


def _pairs(names: Iterable[str]) -> Iterator[str]:
    return (f"{name} . {name}" for name in names)


def _set(name: str, kind: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"set {name} {{"
    yield f"\ttype {kind};"
    joined = ", ".join(elements)
    if joined:
        yield f"\telements = {{ {joined} }}"
    yield "}"
