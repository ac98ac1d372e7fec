"""The whole table of the nftables data plane: what nft(8) lists of it, and the scripts that change it.

A script is one transaction: all of it happens between two packets, or nothing does.

No I/O.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.dataplane.nftables.chain import Chain, chain_of, name_of, parse, rules, server_of
from mesh.model import Transport, VirtualKey, VirtualServer

TABLE = "vipmesh_lb"
_KEY = "{family} daddr . meta l4proto . th dport"
_HOOKS = {
    "prerouting": ("type nat hook prerouting priority -100; policy accept;", ["vmap @services"]),
    "output": ("type nat hook output priority -100; policy accept;", ["vmap @services"]),
    "input": ("type filter hook input priority 0; policy accept;", ["@empty reject with tcp reset", "@empty reject"]),
}
"""Chain -> its place, and its rules behind `_KEY`. What is balanced to nobody arrives here, as at a closed port."""


@dataclass(slots=True)
class Listed:
    """What the kernel has of our table."""

    whole: bool = False
    """Whether the parts that serve all virtual servers are in place."""
    services: dict[VirtualKey, str] = field(default_factory=dict)
    """Where traffic is led to a chain, by its name."""
    empty: set[VirtualKey] = field(default_factory=set)
    """Where it is refused."""
    chains: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def virtual_servers(self) -> dict[VirtualKey, VirtualServer]:
        """What is in force; without the common parts, nothing is."""
        return {key: self._server(key, name) for key, name in self.services.items()} if self.whole else {}

    def _server(self, key: VirtualKey, name: str) -> VirtualServer:
        chain = parse(self.chains.get(name, ())) or Chain("", "", (), ())
        refused = key in self.empty
        return server_of(chain if refused == (not chain.shares) and name == name_of(key) else _broken(chain), key)


def _broken(chain: Chain) -> Chain:
    return Chain("", chain.chooser, chain.shares, chain.notes)


def read(listing: str | None) -> Listed:
    """The answer of `nft -j list table`; None: there is no table. Raises `ValueError` if it is not understood."""
    listed = Listed()
    hooked: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _HOOKS}
    placed: set[str] = set()
    for entry in json.loads(listing)["nftables"] if listing is not None else ():
        if rule := entry.get("rule"):
            hooked.get(rule["chain"], listed.chains.setdefault(rule["chain"], [])).append(rule)
        elif chain := entry.get("chain"):
            listed.chains.setdefault(chain["name"], [])
            placed.update([chain["name"]] if chain.get("hook") == chain["name"] else [])
        elif (services := entry.get("map")) and services["name"] == "services":
            listed.services = {
                _key(at["concat"]): verdict["jump"]["target"] for at, verdict in services.get("elem", ())
            }
        elif (empty := entry.get("set")) and empty["name"] == "empty":
            listed.empty = {_key(at["concat"]) for at in empty.get("elem", ())}
    for name in _HOOKS:
        listed.chains.pop(name, None)
    listed.whole = placed == set(_HOOKS) and all(len(hooked[name]) == len(_HOOKS[name][1]) for name in _HOOKS)
    return listed


def base(family: str) -> Iterator[str]:
    """What serves all virtual servers, made or set right; nothing of any virtual server is touched."""
    address = "ipv6_addr" if family == "ip6" else "ipv4_addr"
    key = _KEY.format(family=family)
    yield f"add table {family} {TABLE}"
    yield f"add map {family} {TABLE} services {{ type {address} . inet_proto . inet_service : verdict; }}"
    yield f"add set {family} {TABLE} empty {{ type {address} . inet_proto . inet_service; }}"
    for name, (place, ends) in _HOOKS.items():
        yield f"add chain {family} {TABLE} {name} {{ {place} }}"
        yield f"flush chain {family} {TABLE} {name}"
        for end in ends:
            only = "meta l4proto tcp " if "tcp reset" in end else ""
            yield f"add rule {family} {TABLE} {name} {only}{key} {end}"


def replace(family: str, key: VirtualKey, server: VirtualServer | None, listed: Listed) -> Iterator[str]:
    """Bring one virtual server there, whatever is there of it; None: away with it."""
    name, at = name_of(key), f"{{ {key.address} . {key.transport} . {key.port} }}"
    led, refused = listed.services.get(key), key in listed.empty
    chain = chain_of(key, server) if server is not None else None
    if led is not None and (chain is None or led != name):
        yield f"delete element {family} {TABLE} services {at}"
    if refused and (chain is None or chain.shares):
        yield f"delete element {family} {TABLE} empty {at}"
    if chain is None:
        if name in listed.chains:
            yield f"flush chain {family} {TABLE} {name}"
            yield f"delete chain {family} {TABLE} {name}"
        return
    yield f"add chain {family} {TABLE} {name}"
    yield f"flush chain {family} {TABLE} {name}"
    for rule in rules(key, chain):
        yield f"add rule {family} {TABLE} {name} {rule}"
    if led != name:
        yield f"add element {family} {TABLE} services {{ {at[2:-2]} : jump {name} }}"
    if not chain.shares and not refused:
        yield f"add element {family} {TABLE} empty {at}"


def _key(parts: Sequence[Any]) -> VirtualKey:
    address, transport, port = parts
    return VirtualKey(str(address), int(port), Transport(transport))
