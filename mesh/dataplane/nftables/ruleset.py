"""The fixed part of the table: the map from services to their chains, and the base chains that look it up.

The base chains have a priority ten below the usual one, so that they run before whatever else translates destinations
on this host: the first translation of a connection is the only one. `output` serves connections of the host itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from typing_extensions import override

from mesh.dataplane.netlink import PROTOCOLS
from mesh.dataplane.nftables.service_chain import ChainRule
from mesh.model.table import VirtualKey

Network: TypeAlias = IPv4Network | IPv6Network
"""An IPv4 or IPv6 network."""

TABLE = "vipmesh_lb"
"""The name of the table."""
SERVICES = "services"
"""The name of the map from services to chains."""
HOOKS = ("prerouting", "output")
"""The netfilter hooks that the base chains are attached to."""
_PRIORITY = -110  # NF_IP_PRI_NAT_DST is -100: linux/netfilter_ipv4.h


@dataclass(frozen=True, slots=True)
class ChainHook:
    """A netfilter hook and the priority of a base chain there."""

    name: str
    """The hook: `prerouting` or `output`."""
    priority: int
    """The priority; lower ones run first."""

    @override
    def __str__(self) -> str:
        return f"type nat hook {self.name} priority {self.priority}; policy accept;"


@dataclass(frozen=True, slots=True)
class BaseChains:
    """The fixed part of the table for one address family."""

    family: str
    """The family of the table and of everything in it: `ip` or `ip6`."""
    key: str
    """The data type of the map's keys, as nft lists it."""
    hooks: Mapping[str, ChainHook]
    """The hook of each base chain, by name of the chain."""
    rules: tuple[ChainRule, ...]
    """The rules of every base chain."""

    @property
    def table(self) -> str:
        """The table's name in commands: `ip vipmesh_lb`."""
        return f"{self.family} {TABLE}"


def base_chains(version: int) -> BaseChains:
    """Return the fixed part for an IP version."""
    ip = "ip6" if version == 6 else "ip"
    return BaseChains(
        ip,
        f"{'ipv6_addr' if version == 6 else 'ipv4_addr'} . inet_proto . inet_service",
        {name: ChainHook(name, _PRIORITY) for name in HOOKS},
        (ChainRule(f"{ip} daddr . meta l4proto . th dport vmap @{SERVICES}"),),
    )


def map_element(key: VirtualKey) -> str:
    """Return the key of a virtual server in the map of services."""
    return f"{key.address} . {PROTOCOLS[key.transport]} . {key.port}"


def base_script(wanted: BaseChains, present: Iterable[str]) -> list[str]:
    """Return the commands that set up the fixed part.

    `present` is those of its base chains that exist, in whatever state. The map's elements and the chains of virtual
    servers stay as they are.
    """
    table = wanted.table
    lines = [f"add table {table}", f"add map {table} {SERVICES} {{ type {wanted.key} : verdict; }}"]
    # A hook cannot be changed in place: delete the chain and add it again, in the same transaction.
    for name in present:
        lines += [f"flush chain {table} {name}", f"delete chain {table} {name}"]
    for name, hook in wanted.hooks.items():
        lines.append(f"add chain {table} {name} {{ {hook} }}")
        lines += [f"add rule {table} {name} {rule}" for rule in wanted.rules]
    return lines
