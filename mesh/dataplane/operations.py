"""The operations on a data plane's table, and what each of them does to it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from mesh.model.service import Address, Scheduler, SchedulerFlag
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer


@dataclass(frozen=True, slots=True)
class AddVirtualServer:
    """Make a virtual server without real servers. It must not exist."""

    key: VirtualKey
    scheduler: Scheduler
    persistence: int
    flags: frozenset[SchedulerFlag] = frozenset()

    def __str__(self) -> str:
        return f"add virtual server {self.key}, scheduler {self.scheduler}"


@dataclass(frozen=True, slots=True)
class EditVirtualServer:
    """Change the settings in place; real servers and connections stay. It must exist."""

    key: VirtualKey
    scheduler: Scheduler
    persistence: int
    flags: frozenset[SchedulerFlag] = frozenset()

    def __str__(self) -> str:
        flags = "".join(f", {flag}" for flag in sorted(self.flags))
        return f"set scheduler {self.scheduler}{flags}, persistence {self.persistence} s of {self.key}"


@dataclass(frozen=True, slots=True)
class DeleteVirtualServer:
    """Delete a virtual server together with its real servers. It must exist."""

    key: VirtualKey

    def __str__(self) -> str:
        return f"delete virtual server {self.key}"


@dataclass(frozen=True, slots=True)
class AddRealServer:
    """Put a real server behind a virtual server, which must exist and not have it."""

    virtual: VirtualKey
    real: RealKey
    settings: RealServer

    def __str__(self) -> str:
        return f"add real server {self.real} to {self.virtual}, {self.settings}"


@dataclass(frozen=True, slots=True)
class EditRealServer:
    """Change the settings of a real server, which must exist; its connections stay."""

    virtual: VirtualKey
    real: RealKey
    settings: RealServer

    def __str__(self) -> str:
        return f"set {self.settings} of real server {self.real} of {self.virtual}"


@dataclass(frozen=True, slots=True)
class DeleteRealServer:
    """Take a real server away, which must exist."""

    virtual: VirtualKey
    real: RealKey

    def __str__(self) -> str:
        return f"delete real server {self.real} of {self.virtual}"


@dataclass(frozen=True, slots=True)
class BindVip:
    """Let the worker answer to an address."""

    address: Address

    def __str__(self) -> str:
        return f"bind VIP {self.address}"


@dataclass(frozen=True, slots=True)
class UnbindVip:
    """Let the worker no longer answer to an address."""

    address: Address

    def __str__(self) -> str:
        return f"unbind VIP {self.address}"


Operation: TypeAlias = (
    AddVirtualServer
    | EditVirtualServer
    | DeleteVirtualServer
    | AddRealServer
    | EditRealServer
    | DeleteRealServer
    | BindVip
    | UnbindVip
)


class OperationRefusedError(Exception):
    """The operation does not fit the table: what it adds is there, or what it changes is not."""


def apply_operations(table: Table, operations: Iterable[Operation]) -> Table:
    """The table after the operations.

    Raises `OperationRefusedError` where a kernel would refuse: to add what exists, to change or delete what does not.
    """
    servers = dict(table.virtual_servers)
    vips = set(table.vips)
    for operation in operations:
        match operation:
            case BindVip(address):
                _expect(address not in vips, operation)
                vips.add(address)
            case UnbindVip(address):
                _expect(address in vips, operation)
                vips.remove(address)
            case AddVirtualServer(key, scheduler, persistence, flags):
                _expect(key not in servers, operation)
                servers[key] = VirtualServer(scheduler, persistence, flags=flags)
            case EditVirtualServer(key, scheduler, persistence, flags):
                _expect(key in servers, operation)
                servers[key] = VirtualServer(scheduler, persistence, servers[key].real_servers, flags)
            case DeleteVirtualServer(key):
                _expect(key in servers, operation)
                del servers[key]
            case AddRealServer(key, real, settings):
                _expect(key in servers and real not in servers[key].real_servers, operation)
                servers[key] = _with(servers[key], real, settings)
            case EditRealServer(key, real, settings):
                _expect(key in servers and real in servers[key].real_servers, operation)
                servers[key] = _with(servers[key], real, settings)
            case DeleteRealServer(key, real):
                _expect(key in servers and real in servers[key].real_servers, operation)
                left = {k: s for k, s in servers[key].real_servers.items() if k != real}
                servers[key] = replace(servers[key], real_servers=left)
    return Table(servers, frozenset(vips))


def settle_operation(table: Table, operation: Operation) -> Table:
    """The table after one operation, where it counts as done that somebody else was quicker.

    What is to be added and is there is edited, what is to be deleted and is not there is left. Raises
    `OperationRefusedError` for what remains: to change what is not there.
    """
    try:
        return apply_operations(table, [operation])
    except OperationRefusedError:
        match operation:
            case DeleteRealServer() | DeleteVirtualServer() | BindVip() | UnbindVip():
                return table
            case AddVirtualServer(key, scheduler, persistence, flags):
                return apply_operations(table, [EditVirtualServer(key, scheduler, persistence, flags)])
            case AddRealServer(virtual, real, settings):
                return apply_operations(table, [EditRealServer(virtual, real, settings)])
            case _:
                raise


def _with(server: VirtualServer, real: RealKey, settings: RealServer) -> VirtualServer:
    return replace(server, real_servers={**server.real_servers, real: settings})


def _expect(fits: bool, operation: Operation) -> None:
    if not fits:
        raise OperationRefusedError(operation)


OPERATION_NAMES: Mapping[type[Operation], str] = MappingProxyType(
    {
        AddVirtualServer: "add_virtual_server",
        EditVirtualServer: "edit_virtual_server",
        DeleteVirtualServer: "delete_virtual_server",
        AddRealServer: "add_real_server",
        EditRealServer: "edit_real_server",
        DeleteRealServer: "delete_real_server",
        BindVip: "bind_vip",
        UnbindVip: "unbind_vip",
    }
)
"""What the metrics call each kind of operation."""


def operation_kind(operation: Operation) -> str:
    """What the metrics call it."""
    return OPERATION_NAMES[type(operation)]
