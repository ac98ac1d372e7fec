"""The networks whose hosts answer through this worker: those of its containers.

An endpoint there has this worker as its default route, so that its replies come back without help. On a network that
the worker shares with others (the underlay, a bridge that has the host's own uplink as a port) hosts have a default
route of their own, and replies would go past it.

`local_networks` decides over plain values; `read_local_networks` reads them from the kernel.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from pyroute2 import IPRoute

from mesh.host.routes import MAIN_TABLE, Network, destination, output

_CONTAINER_LINKS = frozenset({"bridge", "veth"})
"""Kinds of links that containers are attached to (IFLA_INFO_KIND): by a bridge, or each by a pair of its own."""


@dataclass(frozen=True, slots=True)
class LinkRoute:
    """A route, and the kind of link that it leads to."""

    network: Network
    link: int
    """Its index."""
    kind: str
    """`bridge`, `veth`, ...; empty for hardware."""
    gateway: bool
    """Whether it leads to a router on that link."""


def local_networks(routes: Iterable[LinkRoute], pool: Network) -> tuple[Network, ...]:
    """The directly attached networks of links for containers, in order, without those that lie in the VIP pool.

    A link on which this host itself uses a router is no such link: it is the way out.
    """
    every = tuple(routes)
    ways_out = {route.link for route in every if route.gateway}
    found = {
        route.network
        for route in every
        if not route.gateway and route.kind in _CONTAINER_LINKS and route.link not in ways_out
    }
    return tuple(
        network
        for network in sorted(found, key=lambda network: (int(network.network_address), network.prefixlen))
        if network.version == pool.version and not network.overlaps(pool) and not network.is_link_local
    )


async def read_local_networks(pool: Network) -> tuple[Network, ...]:
    """Those of this host now, of the pool's address family. Raises `OSError` if the kernel cannot be asked."""
    return await asyncio.to_thread(_read, pool)


def _read(pool: Network) -> tuple[Network, ...]:
    family = 10 if pool.version == 6 else 2  # AF_INET6, AF_INET
    with IPRoute() as route:
        kinds = {link["index"]: _kind(link) for link in route.get_links()}
        return local_networks(
            (
                LinkRoute(
                    destination(found, pool.version),
                    link,
                    kinds.get(link, ""),
                    found.get_attr("RTA_GATEWAY") is not None or found.get_attr("RTA_MULTIPATH") is not None,
                )
                for found in route.get_routes(family=family, table=MAIN_TABLE)
                if (link := output(found)) is not None
            ),
            pool,
        )


def _kind(link: object) -> str:
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")  # type: ignore[attr-defined]
