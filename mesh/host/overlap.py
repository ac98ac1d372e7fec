"""Checks whether the VIP pool is free on this host. A VIP that also exists elsewhere would take that address's traffic.

`find_overlaps` decides over plain values; `read_networks` reads them from the kernel.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import Any, TypeAlias

from pyroute2 import IPRoute
from typing_extensions import override

Network: TypeAlias = IPv4Network | IPv6Network
"""An IPv4 or IPv6 network."""

_LOOPBACK = ip_network("127.0.0.0/8")
MAIN_TABLE, _LOCAL_TABLE = 254, 255  # RT_TABLE_*, linux/rtnetlink.h
_AF_INET, _AF_INET6 = 2, 10


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route of this host."""

    network: Network
    interface: str
    """The interface's name; empty for a route that leads nowhere (blackhole, unreachable)."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of an interface, with its prefix length."""

    address: IPv4Interface | IPv6Interface
    interface: str


@dataclass(frozen=True, slots=True)
class PoolOverlap:
    """An address or a route that overlaps the VIP pool. `str()` returns `route 10.112.0.0/24 dev eth1`."""

    network: Network
    interface: str
    """The interface's name; empty for a route that leads nowhere."""
    address: IPv4Interface | IPv6Interface | None = None
    """The address; None for a route."""

    @override
    def __str__(self) -> str:
        what = f"route {self.network}" if self.address is None else f"address {self.address}"
        return f"{what} dev {self.interface}" if self.interface else what


def find_overlaps(
    pool: Network, own_interface: str, addresses: Iterable[HostAddress], routes: Iterable[HostRoute]
) -> list[PoolOverlap]:
    """Return what overlaps the pool, addresses first, each once; empty if it is free.

    The default route does not count as an overlap, and neither do addresses and routes of our own interface, nor those
    of `lo` if the pool is inside loopback.
    """
    found = [
        PoolOverlap(entry.address.network, entry.interface, entry.address)
        for entry in addresses
        if _collides(entry.address.network, entry.interface, pool, own_interface)
    ]
    found += [
        PoolOverlap(entry.network, entry.interface)
        for entry in routes
        if entry.network.prefixlen > 0 and _collides(entry.network, entry.interface, pool, own_interface)
    ]
    return list(dict.fromkeys(found))


async def read_overlaps(pool: Network, own_interface: str = "mesh0") -> list[PoolOverlap]:
    """Return what overlaps the pool on this host; empty if it is free.

    Raises `OSError` if the kernel cannot be asked.
    """
    routes, addresses = await asyncio.to_thread(read_networks, pool.version)
    return find_overlaps(pool, own_interface, addresses, routes)


def _collides(network: Network, interface: str, pool: Network, own_interface: str) -> bool:
    """Return whether a network overlaps the pool and is not ours."""
    if interface == own_interface:
        return False
    if interface == "lo" and _within(network, _LOOPBACK) and _within(pool, _LOOPBACK):
        return False
    return network.version == pool.version and network.overlaps(pool)


def _within(network: Network, outer: Network) -> bool:
    return network.version == outer.version and network.subnet_of(outer)  # type: ignore[arg-type]  # same version


def read_networks(version: int) -> tuple[tuple[HostRoute, ...], tuple[HostAddress, ...]]:
    """Return the routes and the addresses of an IP version. Blocks; raises `OSError` if the kernel cannot be asked.

    Routes of every table count but those of `local`, which repeats the addresses, and of VRFs, which lead elsewhere: a
    VIP is found before any of them.
    """
    family = _AF_INET6 if version == 6 else _AF_INET
    with IPRoute() as route:
        links = list(route.get_links())
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        apart = tables_apart(links)
        addresses = tuple(
            HostAddress(_interface_address(found), names.get(found["index"], "?"))
            for found in route.get_addr(family=family)
        )
        routes = tuple(
            HostRoute(route_destination(found, version), names.get(route_interface(found), ""))
            for found in route.get_routes(family=family)
            if found.get_attr("RTA_TABLE") not in apart
        )
    return routes, addresses


def tables_apart(links: Iterable[Any]) -> set[int]:
    """Return the tables whose routes do not count: `local`, and those of the VRFs among these link messages."""
    vrfs = (link for link in links if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "vrf")
    return {_LOCAL_TABLE, *(vrf.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VRF_TABLE") for vrf in vrfs)}


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
