"""Lets new connections to some virtual servers wait instead of being refused, by a table of nftables.

The first packet of a connection is dropped before anything tracks or answers it, so that the client repeats it: TCP
after 1, 3 and 7 seconds (RFC 6298 section 2). Packets of connections that are established pass. Each element of the
sets ends by itself, so that nothing is held by a daemon that has ended.

`render_hold_table` is pure; `HeldConnections` runs nft(8).
"""

from collections.abc import Mapping
from ipaddress import ip_address

from mesh.host import HostError
from mesh.model.table import VirtualKey
from mesh.util import nft

TABLE = "vipmesh_hold"
"""The name of the table, of the family `inet`."""
_RAW = -300  # NF_IP_PRI_RAW, linux/netfilter_ipv4.h: a packet that is dropped here is not tracked


def render_hold_table(held: Mapping[VirtualKey, int]) -> str:
    """Return the nft(8) script that replaces the table in one transaction; `held`: seconds from now, at least 1."""
    sets = "".join(
        f"set v{version} {{\n type {kind} . inet_proto . inet_service; flags timeout;\n{_elements(held, version)}}}\n"
        for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr"))
    )
    rules = "".join(
        f" {new} {family} daddr . meta l4proto . th dport @v{version} drop\n"
        for new in ("tcp flags & (syn | ack) == syn", "meta l4proto udp")
        for version, family in ((4, "ip"), (6, "ip6"))
    )
    chains = "".join(
        f"chain {hook} {{\n type filter hook {hook} priority {_RAW}; policy accept;\n{rules}}}\n"
        for hook in ("prerouting", "output")
    )
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{sets}{chains}}}\n"


class HeldConnections:
    """Keeps the table."""

    async def keep(self, held: Mapping[VirtualKey, int]) -> None:
        """Hold new connections to these virtual servers for so many seconds, and to no others. Raises `HostError`."""
        try:
            if held:
                await nft.load_script(render_hold_table(held))
            else:
                await nft.delete_table("inet", TABLE)
        except nft.NftError as error:
            raise HostError(error.code, f"new connections cannot be held, clients are refused: {error}") from error

    async def remove(self) -> list[str]:
        """Delete the table; returns a line if it existed. Raises `HostError`."""
        try:
            existed = await nft.delete_table("inet", TABLE)
        except nft.NftError as error:
            raise HostError(error.code, f"the nftables table {TABLE} stays: {error}") from error
        return [f"delete nftables table inet {TABLE}"] if existed else []


def _elements(held: Mapping[VirtualKey, int], version: int) -> str:
    keys = sorted(key for key in held if ip_address(key.address).version == version)
    listed = ", ".join(f"{key.address} . {key.transport} . {key.port} timeout {held[key]}s" for key in keys)
    return f" elements = {{ {listed} }}\n" if listed else ""
