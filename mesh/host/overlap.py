"""Whether the VIP pool is free on this host: a VIP that also exists elsewhere would take that one's traffic.

`find_overlaps` decides over plain values; `read_overlaps` reads them from the kernel.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import Any, TypeAlias

from pyroute2 import IPRoute

Network: TypeAlias = IPv4Network | IPv6Network

_LOOPBACK = ip_network("127.0.0.0/8")
MAIN_TABLE = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
_AF_INET, _AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the main table."""

    network: Network
    interface: str
    """Empty for a route that leads nowhere (blackhole, unreachable)."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of an interface, with its prefix length."""

    address: IPv4Interface | IPv6Interface
    interface: str


def find_overlaps(
    pool: Network, own_interface: str, addresses: Iterable[HostAddress], routes: Iterable[HostRoute]
) -> list[str]:
    """What overlaps the pool, each as a readable line (`route 10.112.0.0/24 dev eth1`), addresses first.

    The default route is no overlap, nor is what is on our own interface, nor that of `lo` if the pool is loopback.
    """
    found = [
        f"address {entry.address} dev {entry.interface}"
        for entry in addresses
        if _collides(entry.address.network, entry.interface, pool, own_interface)
    ]
    found += [
        f"route {entry.network} dev {entry.interface}" if entry.interface else f"route {entry.network}"
        for entry in routes
        if entry.network.prefixlen > 0 and _collides(entry.network, entry.interface, pool, own_interface)
    ]
    return found


async def read_overlaps(pool: Network, own_interface: str = "mesh0") -> list[str]:
    """What of this host overlaps the pool; empty: it is free. Raises `OSError` if the kernel cannot be asked."""
    return await asyncio.to_thread(_overlaps, pool, own_interface)


def _collides(network: Network, interface: str, pool: Network, own_interface: str) -> bool:
    if interface == own_interface:
        return False
    if interface == "lo" and _within(network, _LOOPBACK) and _within(pool, _LOOPBACK):
        return False
    return network.version == pool.version and network.overlaps(pool)


def _within(network: Network, outer: Network) -> bool:
    return network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]  # same version


def _overlaps(pool: Network, own_interface: str) -> list[str]:
    family = _AF_INET6 if pool.version == 6 else _AF_INET
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        addresses = [
            HostAddress(_interface_address(found), names.get(found["index"], "?"))
            for found in route.get_addr(family=family)
        ]
        routes = [
            HostRoute(route_destination(found, pool.version), names.get(route_interface(found), ""))
            for found in route.get_routes(family=family, table=MAIN_TABLE)
        ]
    return find_overlaps(pool, own_interface, addresses, routes)


def _interface_address(found: Any) -> IPv4Interface | IPv6Interface:
    return ip_interface(f"{found.get_attr('IFA_LOCAL') or found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}")


def route_destination(found: Any, version: int) -> Network:
    """Where a route of the kernel's list leads; the default route leads everywhere."""
    anywhere = "::" if version == 6 else "0.0.0.0"
    return ip_network(f"{found.get_attr('RTA_DST') or anywhere}/{found['dst_len']}")


def route_interface(found: Any) -> int | None:
    """The interface's index; of a route with several next hops, the first one's."""
    index: int | None = found.get_attr("RTA_OIF")
    if index is not None:
        return index
    hops = found.get_attr("RTA_MULTIPATH")
    return hops[0]["oif"] if hops else None
