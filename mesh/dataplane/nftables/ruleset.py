"""What all virtual servers share: the map that leads to their chains, and the hooks that ask it.

The hooks come ten before the usual priority, so that we decide before whatever else translates destinations on this
host: who decides first decides alone. `output` is for connections of the host itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

from mesh.dataplane.nftables.service_chain import PROTOCOLS, ChainRule
from mesh.model.table import VirtualKey

Network: TypeAlias = IPv4Network | IPv6Network

TABLE = "vipmesh_lb"
SERVICES = "services"
HOOKS = ("prerouting", "output")
_PRIORITY = -110  # NF_IP_PRI_NAT_DST is -100: linux/netfilter_ipv4.h


@dataclass(frozen=True, slots=True)
class ChainHook:
    """Where in the way of packets a chain is called: `prerouting`, and the priority."""

    name: str
    priority: int

    def __str__(self) -> str:
        return f"type nat hook {self.name} priority {self.priority}; policy accept;"


@dataclass(frozen=True, slots=True)
class BaseChains:
    """The fixed part of the table for one address family."""

    family: str
    """`ip` or `ip6`, the family of the table and of all that is in it."""
    key: str
    """The data type of the keys in the map of services, as nft lists it."""
    hooks: Mapping[str, ChainHook]
    """By the name of the chain."""
    rules: tuple[ChainRule, ...]
    """What is in each of the hooks."""

    @property
    def table(self) -> str:
        """As it stands in commands: `ip vipmesh_lb`."""
        return f"{self.family} {TABLE}"


def base_chains(version: int) -> BaseChains:
    """The fixed part for a version of IP."""
    ip = "ip6" if version == 6 else "ip"
    return BaseChains(
        ip,
        f"{'ipv6_addr' if version == 6 else 'ipv4_addr'} . inet_proto . inet_service",
        {name: ChainHook(name, _PRIORITY) for name in HOOKS},
        (ChainRule(f"{ip} daddr . meta l4proto . th dport vmap @{SERVICES}"),),
    )


def map_element(key: VirtualKey) -> str:
    """The key of a virtual server in the map of services."""
    return f"{key.address} . {PROTOCOLS[key.transport]} . {key.port}"


def base_script(wanted: BaseChains, present: Iterable[str]) -> list[str]:
    """The commands that set up the fixed part; `present` are those of its chains that are there in whatever state.

    Elements of the map and the chains of virtual servers stay as they are.
    """
    table = wanted.table
    lines = [f"add table {table}", f"add map {table} {SERVICES} {{ type {wanted.key} : verdict; }}"]
    for name in present:
        lines += [f"flush chain {table} {name}", f"delete chain {table} {name}"]
    for name, hook in wanted.hooks.items():
        lines.append(f"add chain {table} {name} {{ {hook} }}")
        lines += [f"add rule {table} {name} {rule}" for rule in wanted.rules]
    return lines
