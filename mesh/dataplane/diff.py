"""Table x Table -> the ordered operations that lead from one to the other.

The kernel has no transactions for IPVS, so the order is the safety. Between any two operations:

* a virtual server is complete before its VIP is bound, and its VIP is unbound before it goes
  (traffic is attracted only by what is ready, and no longer by what is about to leave);
* a virtual server that stays keeps a real server throughout if it has one before and after, and one of positive
  weight if it has one of positive weight before and after: additions and raised weights first, then
  lowered weights, then deletions;
* what stays is edited, never deleted and made anew: that would reset its connections and its counters.

`apply` is the meaning of the operations; the fake data plane and the properties in the tests stand on it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from mesh.model import Address, RealKey, RealServer, Scheduler, SchedulerFlag, Table, VirtualKey, VirtualServer
from meshdns.persistent_map import differing


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


def diff(observed: Table, desired: Table) -> tuple[Operation, ...]:
    """The operations that turn `observed` into `desired`, in the order to run them; none if they are equal."""
    return tuple(_operations(observed, desired))


def _operations(observed: Table, desired: Table) -> Iterator[Operation]:
    before, after = observed.virtual_servers, desired.virtual_servers
    for address in sorted(observed.vips - desired.vips):
        yield UnbindVip(address)
    for key in sorted(after.keys() - before.keys()):
        server = after[key]
        yield AddVirtualServer(key, server.scheduler, server.persistence, server.flags)
        for real in sorted(server.real_servers):
            yield AddRealServer(key, real, server.real_servers[real])
    for key in sorted(key for key, server in after.items() if before.get(key, server) is not server):
        if before[key] != after[key]:
            yield from _edit(key, before[key], after[key])
    for address in sorted(desired.vips - observed.vips):
        yield BindVip(address)
    for key in sorted(before.keys() - after.keys()):
        yield DeleteVirtualServer(key)


def _edit(key: VirtualKey, before: VirtualServer, after: VirtualServer) -> Iterator[Operation]:
    if replace(before, real_servers=after.real_servers) != after:
        yield EditVirtualServer(key, after.scheduler, after.persistence, after.flags)
    old, new = before.real_servers, after.real_servers
    changed = sorted(real for real in old.keys() & new.keys() if old[real] != new[real])
    for real in sorted(new.keys() - old.keys()):
        yield AddRealServer(key, real, new[real])
    for real in changed:
        if new[real].weight > old[real].weight:
            yield EditRealServer(key, real, new[real])
    for real in changed:
        if new[real].weight <= old[real].weight:
            yield EditRealServer(key, real, new[real])
    for real in sorted(old.keys() - new.keys()):
        yield DeleteRealServer(key, real)


def changed(before: Table, after: Table) -> frozenset[VirtualKey]:
    """The virtual servers that are not the same in both."""
    old, new = before.virtual_servers, after.virtual_servers
    return frozenset(key for key in differing(old, new) if old.get(key) != new.get(key))


def recognised(observed: Table, desired: Table) -> Table:
    """The observed table with the virtual servers of the desired one where they are equal. What is compared with it
    afterwards is compared by identity: among thousands most are as they should be.
    """
    wanted = desired.virtual_servers
    servers = dict(observed.virtual_servers)
    for key, there in servers.items():
        known = wanted.get(key)
        if known is not None and known == there:
            servers[key] = known
    return Table(servers, observed.vips)


class RefusedError(Exception):
    """The operation does not fit the table: what it adds is there, or what it changes is not."""


def apply(table: Table, operations: Iterable[Operation]) -> Table:
    """The table after the operations.

    Raises `RefusedError` where a kernel would refuse: to add what exists, to change or delete what does not.
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


def settle(table: Table, operation: Operation) -> Table:
    """The table after one operation, where it counts as done that somebody else was quicker.

    What is to be added and is there is edited, what is to be deleted and is not there is left. Raises `RefusedError`
    for what remains: to change what is not there.
    """
    try:
        return apply(table, [operation])
    except RefusedError:
        match operation:
            case DeleteRealServer() | DeleteVirtualServer() | BindVip() | UnbindVip():
                return table
            case AddVirtualServer(key, scheduler, persistence, flags):
                return apply(table, [EditVirtualServer(key, scheduler, persistence, flags)])
            case AddRealServer(virtual, real, settings):
                return apply(table, [EditRealServer(virtual, real, settings)])
            case _:
                raise


def _with(server: VirtualServer, real: RealKey, settings: RealServer) -> VirtualServer:
    return replace(server, real_servers={**server.real_servers, real: settings})


def _expect(fits: bool, operation: Operation) -> None:
    if not fits:
        raise RefusedError(operation)
