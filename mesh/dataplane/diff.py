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

from collections.abc import Iterator
from dataclasses import replace

from mesh.dataplane.operations import (
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
from mesh.model.persistent_map import changed_keys
from mesh.model.table import Table, VirtualKey, VirtualServer


def diff_tables(observed: Table, desired: Table) -> tuple[Operation, ...]:
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


def changed_virtual_servers(before: Table, after: Table) -> frozenset[VirtualKey]:
    """The virtual servers that are not the same in both."""
    old, new = before.virtual_servers, after.virtual_servers
    return frozenset(key for key in changed_keys(old, new) if old.get(key) != new.get(key))


def reuse_equal_servers(observed: Table, desired: Table) -> Table:
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
