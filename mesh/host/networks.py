"""Which networks hold containers of this worker: those whose hosts answer through it, whoever asked them.

Only for an endpoint in such a network may the client's address be kept; everywhere else a reply would take another way
back. A mistake is not symmetric: taking a container network for foreign costs the client's address, taking a foreign
one for ours loses the replies. So a network counts only if all of this says that its hosts can have no other router:

* it is on a bridge, and the worker has an address in it, which is what its containers have for a gateway;
* every port of that bridge is a virtual link to something on this host (veth, tap): a bridge with a network card, a
  VLAN or a tunnel as a port reaches other machines, and those have a router of their own;
* no route of the worker has a gateway on that bridge: where the worker's own router is, or another worker, is underlay.

`container_networks` decides over plain values; `read` asks the kernel.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

from mesh.host.routes import HostAddress, Network, interface_address

_ON_THIS_HOST = frozenset(["veth", "tun", "dummy"])
"""Kinds of links whose other end is on this host; a tap of a virtual machine is a `tun`."""
_LOCAL_TABLE = 255  # RT_TABLE_LOCAL, linux/rtnetlink.h


@dataclass(frozen=True, slots=True)
class Link:
    """An interface of this host."""

    name: str
    kind: str | None
    """As `ip -d link` shows it: bridge, veth, vxlan; None: a network card."""
    bridge: str | None = None
    """The name of the bridge that it is a port of."""


def container_networks(
    links: Iterable[Link], addresses: Iterable[HostAddress], uplinks: frozenset[str], own_interface: str
) -> frozenset[Network]:
    """The networks whose hosts can have no other router than this worker. `uplinks` are interfaces with a gateway."""
    known = tuple(links)
    stretched = {link.bridge for link in known if link.kind not in _ON_THIS_HOST}
    bridges = {link.name for link in known if link.kind == "bridge"} - stretched - uplinks - {own_interface}
    networks = (entry.address.network for entry in addresses if entry.interface in bridges)
    return frozenset(
        network for network in networks if network.prefixlen < network.max_prefixlen and not network.is_link_local
    )


async def read(own_interface: str = "mesh0") -> frozenset[Network]:
    """The container networks of this host, now. Raises `OSError` if the kernel cannot be asked."""
    return await asyncio.to_thread(_read, own_interface)


def _read(own_interface: str) -> frozenset[Network]:
    with IPRoute() as route:
        found = route.get_links()
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in found}
        links = [Link(names[link["index"]], _kind(link), names.get(link.get_attr("IFLA_MASTER"))) for link in found]
        addresses = [
            HostAddress(interface_address(entry), names.get(entry["index"], "?")) for entry in route.get_addr()
        ]
        uplinks = frozenset(names[index] for entry in route.get_routes() for index in _uplinks(entry) if index in names)
    return container_networks(links, addresses, uplinks, own_interface)


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info is not None else None


def _uplinks(route: Any) -> list[int]:
    """The interfaces by which this route leads to a gateway."""
    if route.get_attr("RTA_TABLE") == _LOCAL_TABLE:
        return []
    hops = route.get_attr("RTA_MULTIPATH") or []
    found = [hop["oif"] for hop in hops if _has_gateway(hop)]
    output = route.get_attr("RTA_OIF")
    return [*found, output] if output is not None and _has_gateway(route) else found


def _has_gateway(entry: Any) -> bool:
    return entry.get_attr("RTA_GATEWAY") is not None or entry.get_attr("RTA_VIA") is not None
