"""Counts the requests of clients to VIPs before and after the packet filters of this host, by a table of nftables.

Connection tracking forgets a connection whose first packet is dropped, so under the nftables data plane it knows
nothing of requests that a filter drops. Two chains count them, by VIP and client: one before the destination is
translated, one after the filters. They are chains of the type nat, which see only the first packet of a connection, and
the sets forget a client after a minute. Nothing is dropped, changed or accepted.

`render_watch_table` and `parse_counts` are pure; `RequestCounter` runs nft(8).
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

import msgspec

from mesh.host import HostError
from mesh.host.overlap import Network
from mesh.model.codes import Code
from mesh.model.service import Address, Transport
from mesh.model.table import VirtualKey
from mesh.util import nft

TABLE = "vipmesh_watch"
"""The name of the table."""
_CLIENTS = 4096
"""Elements of each set; with more clients the rest is not counted."""
_RULES = 9
"""Rules in the table."""
_TRANSPORTS = (Transport.TCP, Transport.UDP)
_BEFORE = -120  # before the data plane's chains, which translate at -110
_AFTER = 99  # before source NAT at 100: NF_IP_PRI_NAT_SRC, linux/netfilter_ipv4.h


class ClientOfVip(NamedTuple):
    """A client and the VIP that it sent requests to."""

    vip: Address
    client: Address


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests since their client was seen first, or since it was forgotten after a minute of silence."""

    received: Mapping[tuple[ClientOfVip, int], int]
    """By client and port: requests that have come in, repeated ones included."""
    forwarded: Mapping[ClientOfVip, int]
    """By client: requests that have passed the filters."""


def render_watch_table(pool: Network, published: Collection[VirtualKey] = ()) -> str:
    """Return the nft(8) script that replaces the table in one transaction.

    `published` is the virtual servers on the worker's own addresses.
    """
    family, kind = ("ip6", "ipv6_addr") if pool.version == 6 else ("ip", "ipv4_addr")
    dynamic = f"size {_CLIENTS}; flags dynamic,timeout; timeout 1m; counter;"
    sets = [
        _set("addresses", f"type {kind};", sorted({key.address for key in published})),
        *(
            _set(f"published_{transport}", "type inet_service;", _ports(published, transport))
            for transport in _TRANSPORTS
        ),
        _set("received", f"type {kind} . {kind} . inet_service; {dynamic}"),
        _set("forwarded", f"type {kind} . {kind}; {dynamic}"),
    ]
    receive = f"update @received {{ {family} daddr . {family} saddr . th dport }}"
    forward = f"update @forwarded {{ ct original {family} daddr . ct original {family} saddr }}"
    received = [f"{family} daddr {pool} meta l4proto {{ tcp, udp }} {receive}"]
    received += [
        f"{family} daddr @addresses {transport} dport @published_{transport} {receive}" for transport in _TRANSPORTS
    ]
    forwarded = [f"ct original {family} daddr {pool} {forward}"]
    forwarded += [
        f"ct original {family} daddr @addresses meta l4proto {transport} ct original proto-dst @published_{transport} "
        f"{forward}"
        for transport in _TRANSPORTS
    ]
    chains = [
        _chain("prerouting", _BEFORE, received),
        _chain("postrouting", _AFTER, forwarded),
        # Requests to an endpoint on the host's own network end here.
        _chain("input", _AFTER, forwarded),
    ]
    body = "".join((*sets, *chains))
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{body}}}\n"


def parse_counts(listing: str) -> RequestCounts | None:
    """Return the counts from a listing of the table as JSON (libnftables-json(5)); None if a rule is missing.

    Raises `ValueError` if the listing has another form.
    """
    try:
        objects = msgspec.json.decode(listing)["nftables"]
        if sum("rule" in entry for entry in objects) != _RULES:
            return None
        sets = {entry["set"]["name"]: entry["set"].get("elem", []) for entry in objects if "set" in entry}
        received = {
            (ClientOfVip(*_addresses(element)), int(element["val"]["concat"][2])): element["counter"]["packets"]
            for element in _elements(sets.get("received", []))
        }
        forwarded = {
            ClientOfVip(*_addresses(element)): element["counter"]["packets"]
            for element in _elements(sets.get("forwarded", []))
        }
    except (LookupError, TypeError, AttributeError, msgspec.DecodeError) as error:
        raise ValueError(f"the listing of the table {TABLE} is not understood") from error
    return RequestCounts(received, forwarded)


class RequestCounter:
    """Keeps the table and reads it."""

    def __init__(self, pool: Network) -> None:
        self._pool = pool
        self._family = "ip6" if pool.version == 6 else "ip"
        self._script = ""
        """The script that was loaded last; empty if none was."""

    async def read(self, keys: Collection[VirtualKey]) -> RequestCounts:
        """Return the counts of these virtual servers now.

        They begin again if the table is missing or was changed, or if other ports are published. Raises `HostError`.
        """
        published = [key for key in keys if ip_address(key.address) not in self._pool]
        script = render_watch_table(self._pool, published)
        try:
            listing = await nft.list_table_json(self._family, TABLE) if script == self._script else None
            counts = None if listing is None else await asyncio.to_thread(parse_counts, listing)
            if counts is not None:
                return counts
            await nft.load_script(script)
            self._script = script
        except nft.NftError as error:
            raise HostError(error.code, f"requests cannot be counted: {error}") from error
        except ValueError as error:
            raise HostError(Code.NFT_FAILED, f"{error}: report it") from error
        return RequestCounts({}, {})

    async def remove(self) -> list[str]:
        """Delete the table in both address families; returns a line for each that existed. Raises `HostError`."""
        try:
            removed = [family for family in ("ip", "ip6") if await nft.delete_table(family, TABLE)]
        except nft.NftError as error:
            raise HostError(error.code, f"the nftables table {TABLE} stays: {error}") from error
        return [f"delete nftables table {family} {TABLE}" for family in removed]


def _ports(keys: Collection[VirtualKey], transport: Transport) -> list[str]:
    return [str(port) for port in sorted({key.port for key in keys if key.transport is transport})]


def _set(name: str, settings: str, elements: Sequence[str] = ()) -> str:
    listed = f" elements = {{ {', '.join(elements)} }}" if elements else ""
    return f"set {name} {{\n {settings}{listed}\n}}\n"


def _chain(hook: str, priority: int, rules: Sequence[str]) -> str:
    lines = "".join(f" {rule}\n" for rule in rules)
    return f"chain {hook} {{\n type nat hook {hook} priority {priority}; policy accept;\n{lines}}}\n"


def _elements(listed: Any) -> list[dict[str, Any]]:
    return [entry["elem"] for entry in listed]


def _addresses(element: dict[str, Any]) -> tuple[Address, Address]:
    vip, client = element["val"]["concat"][:2]
    return str(ip_address(vip)), str(ip_address(client))
