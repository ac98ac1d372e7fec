"""The operations on a data plane's table, and the effect of each. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from typing_extensions import override

from mesh.model.service import Address, Scheduler, SchedulerFlag
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer


@dataclass(frozen=True, slots=True)
class AddVirtualServer:
    """Add a virtual server without real servers. It must not exist."""

    key: VirtualKey
    scheduler: Scheduler
    persistence: int
    """Seconds for which a client stays with its real server; 0 for no persistence."""
    flags: frozenset[SchedulerFlag] = frozenset()

    @override
    def __str__(self) -> str:
        return f"add virtual server {self.key}, scheduler {self.scheduler}"


@dataclass(frozen=True, slots=True)
class EditVirtualServer:
    """Change the settings of a virtual server, which must exist; its real servers and connections stay."""

    key: VirtualKey
    scheduler: Scheduler
    persistence: int
    """Seconds for which a client stays with its real server; 0 for no persistence."""
    flags: frozenset[SchedulerFlag] = frozenset()

    @override
    def __str__(self) -> str:
        flags = "".join(f", {flag}" for flag in sorted(self.flags))
        return f"set scheduler {self.scheduler}{flags}, persistence {self.persistence} s of {self.key}"


@dataclass(frozen=True, slots=True)
class DeleteVirtualServer:
    """Delete a virtual server, which must exist, together with its real servers."""

    key: VirtualKey

    @override
    def __str__(self) -> str:
        return f"delete virtual server {self.key}"


@dataclass(frozen=True, slots=True)
class AddRealServer:
    """Add a real server to a virtual server, which must exist and must not have it."""

    virtual: VirtualKey
    real: RealKey
    settings: RealServer

    @override
    def __str__(self) -> str:
        return f"add real server {self.real} to {self.virtual}, {self.settings}"


@dataclass(frozen=True, slots=True)
class EditRealServer:
    """Change the settings of a real server, which must exist; its connections stay."""

    virtual: VirtualKey
    real: RealKey
    settings: RealServer

    @override
    def __str__(self) -> str:
        return f"set {self.settings} of real server {self.real} of {self.virtual}"


@dataclass(frozen=True, slots=True)
class DeleteRealServer:
    """Delete a real server, which must exist."""

    virtual: VirtualKey
    real: RealKey

    @override
    def __str__(self) -> str:
        return f"delete real server {self.real} of {self.virtual}"


@dataclass(frozen=True, slots=True)
class BindVip:
    """Make the worker answer at an address."""

    address: Address

    @override
    def __str__(self) -> str:
        return f"bind VIP {self.address}"


@dataclass(frozen=True, slots=True)
class UnbindVip:
    """Make the worker no longer answer at an address."""

    address: Address

    @override
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
"""Any operation on a table."""


class OperationRefusedError(Exception):
    """The operation does not fit the table: what it adds exists already, or what it changes does not exist."""


def apply_operations(table: Table, operations: Iterable[Operation]) -> Table:
    """Return the table after the operations.

    Raises `OperationRefusedError` where a kernel would refuse: adding what exists, or changing or deleting what does
    not exist.
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
    """Return the table after one operation, where a change from outside that came first counts as success.

    Adding what exists edits it, and deleting what does not exist changes nothing. Raises `OperationRefusedError` for
    the remaining case: changing what does not exist.
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
"""The name of each kind of operation in metrics."""


def operation_kind(operation: Operation) -> str:
    """Return the name of an operation's kind in metrics."""
    return OPERATION_NAMES[type(operation)]
