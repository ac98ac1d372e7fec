"""Lets a container reach its own service: sets the hairpin flag of its bridge port where nothing else helps.

With `net.bridge.bridge-nf-call-iptables=1`, the default on a host with Docker, connection tracking already translates
packets on the bridge. A packet whose new destination is behind the port that it came from is then bridged, and a bridge
sends no packet back through that port (net/bridge/br_netfilter_hooks.c, `bridged_dnat`). Under nftables that is the
request of a container to itself. Under IPVS it is the reply: translating back the worker's address, which source NAT
has put in, is also done on the bridge. The flag of the port (`hairpin on`, ip-link(8)) allows both. Source NAT alone
suffices where bridged packets are not filtered.

Each flag that is set here is recorded in the alias of the port, with the endpoints that need it. So it is known as
ours by the next process and by `teardown`, and disappears with the port. A flag that was set already is left alone.

`plan_hairpin` decides over plain values; `HairpinPorts` reads them from the kernel and applies the changes.
"""

import asyncio
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mesh.host import HostError
from mesh.host.overlap import Network
from mesh.host.sysctl import PROC_SYS
from mesh.model.codes import Code
from mesh.model.service import Address

_AF_INET, _AF_INET6, _AF_BRIDGE = 2, 10, 7  # linux/socket.h
_NTF_USE = 0x01  # linux/neighbour.h: resolve the address as if a packet were to be sent
_NUD_NONE = 0x00
_LONGEST_ALIAS = 255  # IFALIASZ without its zero byte, linux/if.h
_MARK = re.compile(r"(?P<alias>.*?) ?vipmesh-hairpin=(?P<endpoints>\S*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A port of a bridge on which packets are filtered, or a port with a flag of ours."""

    index: int
    name: str
    hairpin: bool
    """Whether the flag is set."""
    alias: str = ""
    """The alias of the link, with our mark if there is one; empty for none."""

    @property
    def endpoints(self) -> frozenset[Address] | None:
        """The endpoints for which the flag was set; None if it is not ours."""
        mark = _MARK.fullmatch(self.alias)
        return None if mark is None else frozenset(filter(None, mark["endpoints"].split(",")))

    def marked_alias(self, endpoints: Iterable[Address]) -> str:
        """Return the alias with a mark for these endpoints, or without one if there are none."""
        mark = _MARK.fullmatch(self.alias)
        alias = self.alias if mark is None else mark["alias"]
        listed = ",".join(sorted(endpoints))
        return f"{alias} vipmesh-hairpin={listed}".lstrip() if listed else alias


@dataclass(frozen=True, slots=True)
class BridgeFacts:
    """The bridges of this host, as far as they matter here."""

    ports: tuple[BridgePort, ...]
    """Ports of bridges on which packets are filtered, and other ports that have our mark."""
    networks: Mapping[Network, int] = field(default_factory=dict)
    """The index of each bridge on which packets are filtered, by network."""
    located: Mapping[Address, int] = field(default_factory=dict)
    """The index of the port behind which an address is, where neighbour and forwarding tables know it."""
    own: frozenset[Address] = frozenset()
    """The host's own addresses, which are behind no port."""


@dataclass(frozen=True, slots=True)
class HairpinChange:
    """A port that is to be changed."""

    port: BridgePort
    hairpin: bool
    """The flag to set."""
    alias: str
    """The alias to set."""
    is_repair: bool = False
    """Whether the change reverts one that was made outside vipmesh."""

    @property
    def line(self) -> str:
        """The change in words."""
        return f"hairpin {'on' if self.hairpin else 'off'} at bridge port {self.port.name}"


@dataclass(frozen=True, slots=True)
class HairpinPlan:
    """What is to be done."""

    changes: tuple[HairpinChange, ...]
    unlocated: Mapping[Address, int]
    """Endpoints whose port is not known yet, with the index of their bridge."""


@dataclass(frozen=True, slots=True)
class HairpinResult:
    """What was done, one line each."""

    set_up: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    is_complete: bool = True
    """Whether the port of each endpoint is known."""


def plan_hairpin(facts: BridgeFacts, endpoints: Iterable[Address]) -> HairpinPlan:
    """Decide which ports get the flag and which lose it.

    `endpoints` are the addresses of this worker's endpoints. An endpoint that no table locates keeps its former port.
    """
    bridges = {
        address: bridge
        for address in endpoints
        if address not in facts.own and (bridge := _bridge_of(address, facts.networks)) is not None
    }
    former = {address: port.index for port in facts.ports for address in port.endpoints or ()}
    wanted: dict[int, set[Address]] = {}
    for address in bridges:
        place = facts.located.get(address, former.get(address))
        if place is not None:
            wanted.setdefault(place, set()).add(address)
    changes = tuple(filter(None, (_port_change(port, wanted.get(port.index, set())) for port in facts.ports)))
    placed = {address for addresses in wanted.values() for address in addresses}
    return HairpinPlan(changes, {address: bridge for address, bridge in bridges.items() if address not in placed})


def _bridge_of(address: Address, networks: Mapping[Network, int]) -> int | None:
    parsed = ip_address(address)
    return next((bridge for network, bridge in networks.items() if parsed in network), None)


def _port_change(port: BridgePort, endpoints: set[Address]) -> HairpinChange | None:
    """Return what is to be changed at a port behind which these endpoints are; None if nothing is."""
    ours = port.endpoints
    if ours is None and (port.hairpin or not endpoints):
        return None  # the flag was set outside vipmesh, or is not needed
    alias = port.marked_alias(endpoints)
    if port.hairpin == bool(endpoints) and port.alias == alias:
        return None
    # The mark is written first, so a mark without the flag can also be what an interrupted process left.
    return HairpinChange(port, bool(endpoints), alias, is_repair=ours == frozenset(endpoints) and not port.hairpin)


class HairpinPorts:
    """Keeps the flags as they must be, and removes them. Ports that never had our mark are not changed back."""

    def __init__(self, version: int, root: Path = PROC_SYS) -> None:
        """`version` is the IP version of the endpoints, `root` the directory of the kernel's settings."""
        self._version = version
        self._root = root

    async def repair(self, endpoints: frozenset[Address]) -> HairpinResult:
        """Set the flag at the ports of these endpoints, and clear it where it is ours and not needed any more.

        The kernel is asked to resolve endpoints whose port is not known yet. Raises `HostError` after all other ports
        are done.
        """
        return await asyncio.to_thread(self._repair, endpoints)

    async def remove(self) -> list[str]:
        """Clear the flags that are ours; returns a line for each port. Raises `HostError`."""
        return list((await asyncio.to_thread(self._repair, frozenset())).set_up)

    def _repair(self, endpoints: frozenset[Address]) -> HairpinResult:
        wanted = frozenset(address for address in endpoints if ip_address(address).version == self._version)
        try:
            with IPRoute() as route:
                plan = plan_hairpin(self._read(route, wanted), wanted)
                refused = [reason for change in plan.changes if (reason := _apply(route, change))]
                for address, bridge in plan.unlocated.items():
                    _resolve(route, address, bridge)
        except (NetlinkError, OSError) as error:
            number = error.code if isinstance(error, NetlinkError) else error.errno or 0
            reason = f"the ports of bridges cannot be read ({os.strerror(number)})"
            raise HostError(Code.HAIRPIN, f"{reason}: see `bridge -d link`") from error
        if refused:
            raise HostError(Code.HAIRPIN, "; ".join(refused))
        return HairpinResult(
            tuple(change.line for change in plan.changes if not change.is_repair and _is_visible(change)),
            tuple(change.line for change in plan.changes if change.is_repair),
            not plan.unlocated,
        )

    def _read(self, route: Any, wanted: frozenset[Address]) -> BridgeFacts:
        """Read what matters; the tables of neighbours only if there are endpoints on filtered bridges."""
        links = {int(link["index"]): link for link in route.get_links()}
        everywhere = self._is_filtered_everywhere()
        filtered = {
            index
            for index, link in links.items()
            if _kind(link) == "bridge" and (everywhere or self._is_filtered(link))
        }
        ports = tuple(
            port
            for index, link in links.items()
            if (port := _port(index, link)) is not None
            and (link.get_attr("IFLA_MASTER") in filtered or port.endpoints is not None)
        )
        if not filtered or not wanted:
            return BridgeFacts(ports)
        interfaces = [(_interface_address(found), int(found["index"])) for found in route.get_addr(family=self._family)]
        networks = {interface.network: index for interface, index in interfaces if index in filtered}
        own = frozenset(str(interface.ip) for interface, _ in interfaces)
        needed = {address for address in wanted - own if _bridge_of(address, networks) is not None}
        located = dict(_locations(route, self._family, links, needed)) if needed else {}
        return BridgeFacts(ports, networks, located, own)

    @property
    def _family(self) -> int:
        return _AF_INET6 if self._version == 6 else _AF_INET

    @property
    def _prefix(self) -> str:
        return "ip6" if self._version == 6 else "ip"

    def _is_filtered_everywhere(self) -> bool:
        """Whether packets on all bridges are filtered. The setting is missing while br_netfilter is not loaded."""
        setting = self._root / f"net/bridge/bridge-nf-call-{self._prefix}tables"
        return setting.exists() and setting.read_text().strip() != "0"

    def _is_filtered(self, bridge: Any) -> bool:
        """Whether packets on this bridge are filtered by its own setting."""
        setting = f"IFLA_BR_NF_CALL_{self._prefix.upper()}TABLES"
        return bool(bridge.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", setting))


def _is_visible(change: HairpinChange) -> bool:
    """Whether the flag itself changes, rather than only the mark."""
    return change.hairpin != change.port.hairpin


def _kind(link: Any) -> str:
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")


def _port(index: int, link: Any) -> BridgePort | None:
    """Return the link as a port; None if it is not a port of a bridge."""
    if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_KIND") != "bridge":
        return None
    mode = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_MODE")
    return BridgePort(index, str(link.get_attr("IFLA_IFNAME")), bool(mode), str(link.get_attr("IFLA_IFALIAS") or ""))


def _interface_address(found: Any) -> IPv4Interface | IPv6Interface:
    return ip_interface(f"{found.get_attr('IFA_LOCAL') or found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}")


def _locations(
    route: Any, family: int, links: Mapping[int, Any], wanted: Iterable[Address]
) -> Iterator[tuple[Address, int]]:
    """Yield the port of each wanted address that neighbour and forwarding tables know."""
    sought = frozenset(wanted)
    hardware = {
        (int(found["ifindex"]), found.get_attr("NDA_LLADDR")): address
        for found in route.get_neighbours(family=family)
        if (address := str(ip_address(found.get_attr("NDA_DST")))) in sought and found.get_attr("NDA_LLADDR")
    }
    for found in route.get_neighbours(family=_AF_BRIDGE):
        port = int(found["ifindex"])
        bridge = links[port].get_attr("IFLA_MASTER") if port in links else None
        place = (bridge, found.get_attr("NDA_LLADDR"))
        if bridge is not None and place in hardware:
            yield hardware[place], port


def _apply(route: Any, change: HairpinChange) -> str | None:
    """Change a port; returns why it is refused, or None. A port that has disappeared meanwhile is done."""
    if len(change.alias.encode()) > _LONGEST_ALIAS:
        return f"bridge port {change.port.name} has too long an alias to record its hairpin flag: shorten the alias"
    mark, flag = {"IFLA_IFALIAS": change.alias}, {"kind": "bridge_slave", "mode": int(change.hairpin)}
    try:
        # A flag that is ours always has its mark: the mark comes before it and goes after it.
        for attributes in (mark, flag) if change.hairpin else (flag, mark):
            route.link("set", index=change.port.index, **attributes)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        if error.code in {errno.EPERM, errno.EACCES}:
            remedy = "run as root or with CAP_NET_ADMIN (compose: `cap_add: [NET_ADMIN]`)"
            return f"{change.line} is not permitted: {remedy}"
        remedy = f"`ip link set dev {change.port.name} type bridge_slave hairpin {'on' if change.hairpin else 'off'}`"
        return f"{change.line} is refused ({os.strerror(error.code)}): {remedy}"
    return None


def _resolve(route: Any, address: Address, bridge: int) -> None:
    """Ask the kernel to resolve an address, so that its port is known shortly afterwards."""
    route.neigh("replace", dst=address, ifindex=bridge, flags=_NTF_USE, state=_NUD_NONE)
