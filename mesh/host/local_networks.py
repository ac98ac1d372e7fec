"""The networks whose hosts answer through this worker: those of its containers.

An endpoint there has this worker as its default route, so that its replies come back without help. On a network that
the worker shares with other machines (the underlay) hosts have a default route of their own, and replies would go past
it. A mistake is not symmetric: a container network taken for foreign costs the client's address, a foreign one taken
for the containers' loses the replies. So a network counts only if nothing speaks against it:

* it is on a bridge, all of whose ports are virtual links to something on this host: a network card, a VLAN or a tunnel
  as a port reaches other machines. Or it is a single address behind a veth pair: one container with a route of its own.
  A whole network behind a veth pair is what a worker sees that is itself a container;
* no route of this host, of any table or address family, has a gateway on that link: where its own router is, or another
  worker, is a way out.

`local_networks` decides over plain values; `read_local_networks` reads them from the kernel.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

from mesh.host.overlap import MAIN_TABLE, Network, route_destination

_ON_THIS_HOST = frozenset({"veth", "tun", "dummy"})
"""Kinds of ports (IFLA_INFO_KIND) that end on this host; the tap of a virtual machine is a `tun`."""
_LOCAL_TABLE = 255  # RT_TABLE_LOCAL, linux/rtnetlink.h


@dataclass(frozen=True, slots=True)
class NetworkLink:
    """An interface of this host."""

    kind: str
    """`bridge`, `veth`, ...; empty for hardware."""
    bridge: int | None = None
    """The index of the bridge that it is a port of."""


@dataclass(frozen=True, slots=True)
class LinkRoute:
    """A route, or one of its next hops."""

    network: Network
    link: int
    """The index of the link that it leads to."""
    gateway: bool = False
    """Whether it leads to a router on that link."""


def local_networks(links: Mapping[int, NetworkLink], routes: Iterable[LinkRoute], pool: Network) -> tuple[Network, ...]:
    """The directly attached networks of links for containers, in order, without those that lie in the VIP pool.

    `links` are by index. Only networks of the pool's address family are returned; gateways of both families count.
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
    single = network.prefixlen == network.max_prefixlen
    return link is not None and (link.kind == "bridge" or (link.kind == "veth" and single))


async def read_local_networks(pool: Network) -> tuple[Network, ...]:
    """Those of this host now, of the pool's address family. Raises `OSError` if the kernel cannot be asked."""
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
            if hop.gateway or found.get_attr("RTA_TABLE") == MAIN_TABLE
        ]
    return local_networks(links, routes, pool)


def _hops(found: Any, version: int) -> Iterator[LinkRoute]:
    network, link = route_destination(found, version), found.get_attr("RTA_OIF")
    if link is not None:
        yield LinkRoute(network, link, _has_gateway(found))
    for hop in found.get_attr("RTA_MULTIPATH") or ():
        yield LinkRoute(network, hop["oif"], _has_gateway(hop))


def _has_gateway(found: Any) -> bool:
    """RTA_VIA: the gateway is of the other address family (RFC 5549)."""
    return found.get_attr("RTA_GATEWAY") is not None or found.get_attr("RTA_VIA") is not None


def _kind(link: Any) -> str:
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")
