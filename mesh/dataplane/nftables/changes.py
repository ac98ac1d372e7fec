"""Operations on what is programmed -> nft commands, and what they mean for connections that are open.

Everything about one virtual server is one part of the script, written anew from its first rule to its last: a chain is
small, and what is there before does not matter then. The parts make one transaction, and where nft refuses that, one
each.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesh.dataplane.nftables.base import SERVICES, Base, element, published_elements
from mesh.dataplane.nftables.listing import State
from mesh.dataplane.nftables.service import Chains, chain_name, chains, declaration
from mesh.diff import (
    AddRealServer,
    AddVirtualServer,
    BindVip,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
    Operation,
    UnbindVip,
)
from mesh.model import Forwarding, RealKey, RealServer, VirtualKey, VirtualServer

_NO_FORWARDING = "run on a kernel with IPVS, or write routing.forwarding: masquerade"
_NO_LIMITS = 'remove routing.max_connections, run on a kernel with IPVS, or set [dataplane] driver = "userspace"'


@dataclass(slots=True)
class Changes:
    """What a run of operations comes to."""

    after: dict[VirtualKey, VirtualServer | None] = field(default_factory=dict)
    """The virtual servers that are touched, and what they shall be; None: gone."""
    refused: dict[int, str] = field(default_factory=dict)
    """Index of an operation -> why it cannot be done."""


def changes(
    servers: Mapping[VirtualKey, VirtualServer],
    operations: Sequence[Operation],
    foreign: Callable[[VirtualKey], str | None] = lambda key: None,
) -> Changes:
    """What the operations, none of them about VIPs, make of the virtual servers.

    To add what is there edits it, and what is to be deleted and is not there is gone already. `foreign` gives the
    reason why a virtual server is not ours to change.
    """
    result = Changes()
    for index, operation in enumerate(operations):
        key = virtual_key(operation)
        before = result.after[key] if key in result.after else servers.get(key)
        after = foreign(key) or _changed(before, operation)
        if isinstance(after, str):
            result.refused[index] = after
        else:
            result.after[key] = after
    return result


def virtual_key(operation: Operation) -> VirtualKey:
    """The virtual server that an operation is about."""
    match operation:
        case AddVirtualServer() | EditVirtualServer() | DeleteVirtualServer():
            return operation.key
        case AddRealServer() | EditRealServer() | DeleteRealServer():
            return operation.virtual
        case BindVip() | UnbindVip():
            raise ValueError(f"{operation} is not about a virtual server")


def _changed(before: VirtualServer | None, operation: Operation) -> VirtualServer | str | None:
    """The virtual server after the operation, or why it is refused."""
    match operation:
        case DeleteVirtualServer():
            return None
        case AddVirtualServer(_, scheduler, persistence, flags) if before is None:
            return VirtualServer(scheduler, persistence, {}, flags)
        case DeleteRealServer(_, real):
            return before and replace(before, real_servers=_without(before.real_servers, real))
    if before is None:
        return f"there is no virtual server {virtual_key(operation)} here: it is added when the table is read again"
    match operation:
        case AddVirtualServer(_, scheduler, persistence, flags) | EditVirtualServer(_, scheduler, persistence, flags):
            return VirtualServer(scheduler, persistence, before.real_servers, flags)
        case EditRealServer(key, real, _) if real not in before.real_servers:
            return f"{real} is not behind {key} here: it is added when the table is read again"
        case AddRealServer(key, real, settings) | EditRealServer(key, real, settings):
            refusal = _unable(key, real, settings)
            return refusal or replace(before, real_servers={**before.real_servers, real: settings})
    return before


def _unable(key: VirtualKey, real: RealKey, settings: RealServer) -> str | None:
    if settings.forwarding is not Forwarding.MASQUERADE:
        return f"the nftables data plane cannot do forwarding {settings.forwarding}: {_NO_FORWARDING}"
    if settings.upper_threshold or settings.lower_threshold:
        return f"the nftables data plane cannot limit the connections of a real server: {_NO_LIMITS}"
    if (":" in key.address) != (":" in real.address):
        return f"nftables cannot send from {key} to {real}: give an address of the same IP version as the VIP"
    return None


def _without(reals: Mapping[RealKey, RealServer], gone: RealKey) -> dict[RealKey, RealServer]:
    return {real: settings for real, settings in reals.items() if real != gone}


# ------------------------------------------------------------------------------------------------------- commands


def part(base: Base, state: State, key: VirtualKey, after: VirtualServer | None) -> list[str]:
    """The commands that make one virtual server so; none if it is."""
    if after is not None and state.servers.get(key) == after:
        return []
    wanted = chains(key, after) if after is not None else Chains({}, {})
    there = state.found.get(key, Chains({}, {}))
    return list(_commands(base.table, key, there, wanted, state.mapped.get(key)))


def _commands(table: str, key: VirtualKey, there: Chains, wanted: Chains, mapped: str | None) -> Iterator[str]:
    name = chain_name(key)
    if mapped is not None and (mapped != name or not wanted.chains):
        yield f"delete element {table} {SERVICES} {{ {element(key)} }}"
        mapped = None
    for chain in there.chains:
        yield f"flush chain {table} {chain}"
    for chain in sorted(there.chains.keys() - wanted.chains.keys()):
        yield f"delete chain {table} {chain}"
    for clients, seconds in there.clients.items():
        if wanted.clients.get(clients) != seconds:
            yield f"delete set {table} {clients}"
    for clients, seconds in wanted.clients.items():
        if there.clients.get(clients) != seconds:
            yield f"add set {table} {clients} {declaration(key, seconds)}"
    for chain in wanted.chains.keys() - there.chains.keys():
        yield f"add chain {table} {chain}"
    for chain, rules in wanted.chains.items():
        yield from (f"add rule {table} {chain} {rule}" for rule in rules)
    if wanted.chains and mapped is None:
        yield f"add element {table} {SERVICES} {{ {element(key)} : goto {name} }}"


def published_part(base: Base, state: State, keys: Iterable[VirtualKey]) -> list[str]:
    """The commands that make the sets of published addresses and ports fit these virtual servers; none if they do."""
    lines = []
    for name, elements in published_elements(keys).items():
        if state.published.get(name, frozenset()) == elements:
            continue
        lines.append(f"flush set {base.table} {name}")
        if elements:
            lines.append(f"add element {base.table} {name} {{ {', '.join(sorted(map(str, elements)))} }}")
    return lines
