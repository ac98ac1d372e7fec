"""Finds the networks whose hosts reply through this worker: those of its containers.

An endpoint on such a network has this worker as its default route, so that its replies come back through it. On a
network that the worker shares with other machines (the underlay), hosts have a default route of their own, and replies
would bypass the worker. The two possible mistakes are not equally bad: taking a container network for a foreign one
loses the client's address, and taking a foreign one for a container network loses the replies. So a network counts only
if nothing speaks against it:

* It is on a bridge all of whose ports are virtual links to this host: a network card, a VLAN or a tunnel as a port
  reaches other machines. Or it is a single address behind a veth pair, that is one container with a route of its own. A
  whole network behind a veth pair is what a worker sees that is itself a container.
* No route of this host, in any table or address family, has a gateway on that link: where there is a router or another
  worker, there is a way out.

`local_networks` decides over plain values; `read_local_networks` reads them from the kernel.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

from mesh.host.overlap import MAIN_TABLE, Network, route_destination

_ON_THIS_HOST = frozenset({"veth", "tun", "dummy"})
"""Kinds of bridge ports (IFLA_INFO_KIND) that end on this host; the tap of a virtual machine is of kind `tun`."""
_LOCAL_TABLE = 255  # RT_TABLE_LOCAL, linux/rtnetlink.h


@dataclass(frozen=True, slots=True)
class NetworkLink:
    """A network interface of this host."""

    kind: str
    """The kind that the kernel reports, such as `bridge` or `veth`; empty for hardware."""
    bridge: int | None = None
    """The index of the bridge that it is a port of; None if it is not a port."""


@dataclass(frozen=True, slots=True)
class LinkRoute:
    """A route, or one next hop of a route with several."""

    network: Network
    link: int
    """The index of the link that it uses."""
    gateway: bool = False
    """Whether it goes to a router on that link."""


def local_networks(links: Mapping[int, NetworkLink], routes: Iterable[LinkRoute], pool: Network) -> tuple[Network, ...]:
    """Return the directly attached networks of links for containers, sorted.

    Link-local networks and networks that overlap the VIP pool are left out. `links` is by interface index. Only
    networks of the pool's address family are returned, but gateways of both families count.
    """
    every = tuple(routes)
    ways_out = {route.link for route in every if route.gateway}
    stretched = {link.bridge for link in links.values() if link.kind not in _ON_THIS_HOST}
    found = {
        route.network
        for route in every
        if route.link not in ways_out | stretched and _for_containers(links.get(route.link), route.network)
    }
    return tuple(
        network
        for network in sorted(
            (network for network in found if network.version == pool.version),
            key=lambda network: (int(network.network_address), network.prefixlen),
        )
        if not network.overlaps(pool) and not network.is_link_local
    )


def _for_containers(link: NetworkLink | None, network: Network) -> bool:
    """Return whether a link with this network looks like one for containers."""
    single = network.prefixlen == network.max_prefixlen
    return link is not None and (link.kind == "bridge" or (link.kind == "veth" and single))


async def read_local_networks(pool: Network) -> tuple[Network, ...]:
    """Return the networks of this host's containers now, of the pool's address family.

    Raises `OSError` if the kernel cannot be asked.
    """
    return await asyncio.to_thread(_read, pool)


def _read(pool: Network) -> tuple[Network, ...]:
    with IPRoute() as route:
        links = {link["index"]: NetworkLink(_kind(link), link.get_attr("IFLA_MASTER")) for link in route.get_links()}
        routes = [
            hop
            for version, family in ((4, 2), (6, 10))  # AF_INET, AF_INET6
            for found in route.get_routes(family=family)
            if found.get_attr("RTA_TABLE") != _LOCAL_TABLE
            for hop in _hops(found, version)
            # A gateway in any table proves a way out; networks of containers are in the main table.
            if hop.gateway or found.get_attr("RTA_TABLE") == MAIN_TABLE
        ]
    return local_networks(links, routes, pool)


def _hops(found: Any, version: int) -> Iterator[LinkRoute]:
    """Yield the route, or each of its next hops."""
    network, link = route_destination(found, version), found.get_attr("RTA_OIF")
    if link is not None:
        yield LinkRoute(network, link, _has_gateway(found))
    for hop in found.get_attr("RTA_MULTIPATH") or ():
        yield LinkRoute(network, hop["oif"], _has_gateway(hop))


def _has_gateway(found: Any) -> bool:
    """Return whether a route has a gateway. With RTA_VIA, that is of the other address family (RFC 5549)."""
    return found.get_attr("RTA_GATEWAY") is not None or found.get_attr("RTA_VIA") is not None


def _kind(link: Any) -> str:
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")
