"""Checks whether the VIP pool is free on this host. A VIP that also exists elsewhere would take that address's traffic.

`find_overlaps` decides over plain values; `read_overlaps` reads them from the kernel.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import Any, TypeAlias

from pyroute2 import IPRoute

Network: TypeAlias = IPv4Network | IPv6Network
"""An IPv4 or IPv6 network."""

_LOOPBACK = ip_network("127.0.0.0/8")
MAIN_TABLE = 254  # RT_TABLE_MAIN, linux/rtnetlink.h
_AF_INET, _AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of the main table."""

    network: Network
    interface: str
    """The interface's name; empty for a route that leads nowhere (blackhole, unreachable)."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of an interface, with its prefix length."""

    address: IPv4Interface | IPv6Interface
    interface: str


def find_overlaps(
    pool: Network, own_interface: str, addresses: Iterable[HostAddress], routes: Iterable[HostRoute]
) -> list[str]:
    """Describe what overlaps the pool, one line each (`route 10.112.0.0/24 dev eth1`), addresses first.

    The result is empty if it is free.

    The default route does not count as an overlap, and neither do addresses and routes of our own interface, nor those
    of `lo` if the pool is inside loopback.
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
    """Describe what overlaps the pool on this host, one line each; empty if it is free.

    Raises `OSError` if the kernel cannot be asked.
    """
    return await asyncio.to_thread(_overlaps, pool, own_interface)


def _collides(network: Network, interface: str, pool: Network, own_interface: str) -> bool:
    """Return whether a network overlaps the pool and is not ours."""
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
    """Return the destination of a route that the kernel lists; the default route covers all addresses."""
    anywhere = "::" if version == 6 else "0.0.0.0"
    return ip_network(f"{found.get_attr('RTA_DST') or anywhere}/{found['dst_len']}")


def route_interface(found: Any) -> int | None:
    """Return the index of a route's interface, the first next hop's if there are several; None if there is none."""
    index: int | None = found.get_attr("RTA_OIF")
    if index is not None:
        return index
    hops = found.get_attr("RTA_MULTIPATH")
    return hops[0]["oif"] if hops else None
