"""Computes the ordered operations that turn one table into another.

The kernel has no transactions for IPVS, so safety depends on the order. Between any two operations:

* A virtual server is complete before its VIP is bound, and its VIP is unbound before it is deleted: only a virtual
  server that is ready attracts traffic, and one that is about to go no longer does.
* A virtual server that stays keeps a real server throughout if it has one before and after, and one of positive weight
  if it has one of positive weight before and after. So additions and raised weights come first, then lowered weights,
  then deletions.
* What stays is edited, never deleted and added again: that would reset its connections and its counters.

`operations.apply_operations` defines what the operations mean; the fake data plane and the properties in the tests
depend on it.
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
    """Return the operations that turn `observed` into `desired`, in the order to run them.

    The result is empty if the tables are equal.
    """
    return tuple(_operations(observed, desired))


def _operations(observed: Table, desired: Table) -> Iterator[Operation]:
    before, after = observed.virtual_servers, desired.virtual_servers
    # First stop attracting traffic to VIPs that go; their virtual servers are deleted last.
    for address in sorted(observed.vips - desired.vips):
        yield UnbindVip(address)
    for key in sorted(after.keys() - before.keys()):
        server = after[key]
        yield AddVirtualServer(key, server.scheduler, server.persistence, server.flags)
        for real in sorted(server.real_servers):
            yield AddRealServer(key, real, server.real_servers[real])
    # Identity first, since `reuse_equal_servers` has made equal servers identical: comparing thousands by value would
    # take longer.
    for key in sorted(key for key, server in after.items() if before.get(key, server) is not server):
        if before[key] != after[key]:
            yield from _edit(key, before[key], after[key])
    # Every virtual server of a VIP exists now: bind it.
    for address in sorted(desired.vips - observed.vips):
        yield BindVip(address)
    for key in sorted(before.keys() - after.keys()):
        yield DeleteVirtualServer(key)


def _edit(key: VirtualKey, before: VirtualServer, after: VirtualServer) -> Iterator[Operation]:
    """Yield the operations for a virtual server that stays."""
    if replace(before, real_servers=after.real_servers) != after:
        yield EditVirtualServer(key, after.scheduler, after.persistence, after.flags)
    old, new = before.real_servers, after.real_servers
    changed = sorted(real for real in old.keys() & new.keys() if old[real] != new[real])
    # Capacity is added before any is taken away, so that the virtual server is never without a real server in between.
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
    """Return the keys of the virtual servers that differ between two tables."""
    old, new = before.virtual_servers, after.virtual_servers
    return frozenset(key for key in changed_keys(old, new) if old.get(key) != new.get(key))


def reuse_equal_servers(observed: Table, desired: Table) -> Table:
    """Return the observed table with the desired table's objects wherever the virtual servers are equal.

    Later comparisons then go by identity, which is cheap: among thousands of virtual servers most are as they should
    be.
    """
    wanted = desired.virtual_servers
    servers = dict(observed.virtual_servers)
    for key, there in servers.items():
        known = wanted.get(key)
        if known is not None and known == there:
            servers[key] = known
    return Table(servers, observed.vips)
