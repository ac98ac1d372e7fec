"""Turns operations into nft commands, and decides which operations nftables cannot do.

Everything about one virtual server is one part of a script and is written completely, from its first rule to its last:
a chain is small, and what was there before does not matter then. The parts form one transaction; if nft refuses it,
each part gets its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.dataplane.nftables.balancer import CONNECTION_SCHEDULERS
from mesh.dataplane.nftables.parse import RulesetState
from mesh.dataplane.nftables.ruleset import SERVICES, BaseChains, map_element
from mesh.dataplane.nftables.service_chain import ServiceChains, chain_name, client_set_declaration, service_chains
from mesh.dataplane.operations import (
    AddRealServer,
    AddVirtualServer,
    BindVip,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
    Operation,
    OperationRefusedError,
    UnbindVip,
    settle_operation,
)
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Forwarding
from mesh.model.table import Table, VirtualKey, VirtualServer


@dataclass(slots=True)
class NftChanges:
    """The result of a run of operations."""

    after: dict[VirtualKey, VirtualServer | None] = field(default_factory=dict)
    """The virtual servers that the operations concern, as they must be afterwards; None for a deleted one."""
    refused: dict[int, CodedText] = field(default_factory=dict)
    """Why an operation cannot be done, by its index."""


def plan_changes(
    servers: Mapping[VirtualKey, VirtualServer], operations: Sequence[Operation], version: int
) -> NftChanges:
    """Apply operations, none of them about VIPs, to virtual servers. `version` is the IP version of the pool.

    Adding what exists edits it, and deleting what does not exist counts as success.
    """
    result = NftChanges()
    for index, operation in enumerate(operations):
        key = operation_key(operation)
        before = result.after[key] if key in result.after else servers.get(key)
        if reason := _unable(key, operation, version):
            result.refused[index] = CodedText(reason, Code.OPERATION_REFUSED)
            continue
        try:
            settled = settle_operation(Table({key: before} if before is not None else {}), operation)
        except OperationRefusedError:
            reason = f"what {operation} is about is not there: it is added when the table is read again"
            result.refused[index] = CodedText(reason, Code.OPERATION_REFUSED)
        else:
            result.after[key] = settled.virtual_servers.get(key)
    return result


def operation_key(operation: Operation) -> VirtualKey:
    """Return the key of the virtual server that an operation concerns. Raises TypeError for an operation on a VIP."""
    match operation:
        case AddVirtualServer() | EditVirtualServer() | DeleteVirtualServer():
            return operation.key
        case AddRealServer() | EditRealServer() | DeleteRealServer():
            return operation.virtual
        case BindVip() | UnbindVip():
            raise TypeError(operation)


def unsupported_features(operation: Operation) -> Iterator[str]:
    """Yield a line for each thing that an operation asks for and that nftables does differently."""
    match operation:
        case AddVirtualServer(_, scheduler) | EditVirtualServer(_, scheduler) if scheduler in CONNECTION_SCHEDULERS:
            yield f"scheduler {scheduler} looks at the load, which nftables cannot: endpoints take turns"
        case AddRealServer(_, _, settings) | EditRealServer(_, _, settings) if settings.upper_threshold:
            yield "routing.max_connections is not enforced by nftables"


def _unable(key: VirtualKey, operation: Operation, version: int) -> str | None:
    """Return why nftables cannot do an operation, ending with the remedy; None if it can."""
    if (":" in key.address) != (version == 6):
        return f"{key} is of another IP version than the VIP pool: choose an address of the pool's"
    match operation:
        case AddRealServer(_, real, settings) | EditRealServer(_, real, settings):
            if settings.forwarding is not Forwarding.MASQUERADE:
                otherwise = "run on a kernel with IPVS, or write routing.forwarding: masquerade"
                return f"the nftables data plane cannot do forwarding {settings.forwarding}: {otherwise}"
            if (":" in key.address) != (":" in real.address):
                return f"{real} is of another IP version than {key}: give it an address of the VIP's"
    return None


# ------------------------------------------------------------------------------------------------------- commands


def server_commands(base: BaseChains, state: RulesetState, key: VirtualKey, after: VirtualServer | None) -> list[str]:
    """Return the commands that make one virtual server as it must be; empty if it is so already."""
    if after is not None and state.servers.get(key) == after:
        return []
    wanted = service_chains(key, after) if after is not None else ServiceChains({}, {})
    there = state.found.get(key, ServiceChains({}, {}))
    return list(_commands(base.table, key, there, wanted, state.mapped.get(key)))


def _commands(
    table: str, key: VirtualKey, there: ServiceChains, wanted: ServiceChains, mapped: str | None
) -> Iterator[str]:
    """Yield the commands in an order that never refers to something missing, or deletes something in use."""
    name = chain_name(key)
    # The element goes first and comes last: a chain that an element refers to cannot be deleted.
    if mapped is not None and (mapped != name or not wanted.chains):
        yield f"delete element {table} {SERVICES} {{ {map_element(key)} }}"
        mapped = None
    # Flush every chain before deleting any: rules of one chain refer to others and to sets.
    for chain in there.chains:
        yield f"flush chain {table} {chain}"
    for chain in sorted(there.chains.keys() - wanted.chains.keys()):
        yield f"delete chain {table} {chain}"
    for clients, _ in sorted(there.clients.items() - wanted.clients.items()):
        yield f"delete set {table} {clients}"
    for clients, seconds in sorted(wanted.clients.items() - there.clients.items()):
        yield f"add set {table} {clients} {client_set_declaration(key, seconds)}"
    for chain in wanted.chains.keys() - there.chains.keys():
        yield f"add chain {table} {chain}"
    for chain, rules in wanted.chains.items():
        yield from (f"add rule {table} {chain} {rule}" for rule in rules)
    if wanted.chains and mapped is None:
        yield f"add element {table} {SERVICES} {{ {map_element(key)} : goto {name} }}"
