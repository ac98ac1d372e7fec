"""Taking real servers away without cutting connections.

A pure function between the plan and the diff. What the plan no longer wants stays for a while at weight 0: it takes no
new connection, and established ones finish. It goes when it has none left, or when its time is up. A VIP whose virtual
server is draining stays bound, since packets of its connections still arrive there; its name has left the zone before.

An endpoint that failed its probes is not drained: its connections hang, and the sooner they are reset the better.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from mesh.model.table import RealKey, Table, VirtualKey

DEFAULT_DRAIN_TIMEOUT = 30.0
"""Seconds that connections get to finish."""

BackendKey: TypeAlias = tuple[VirtualKey, RealKey]
"""A real server behind one virtual server."""


@dataclass(frozen=True, slots=True)
class DrainResult:
    """What to program now, and what of it is on its way out."""

    table: Table
    since: Mapping[BackendKey, float]
    """Draining place -> when it began; to be given to the next call."""


def drain_removed(
    observed: Table,
    desired: Table,
    *,
    failed: Collection[RealKey],
    connections: Mapping[BackendKey, int],
    since: Mapping[BackendKey, float],
    now: float,
    timeout: float = DEFAULT_DRAIN_TIMEOUT,
) -> DrainResult:
    """The desired table with what still has to finish.

    `failed` are real servers that do not answer; `connections` the established ones of each place, where they are
    known; `since` the result of the last call. `now` is in seconds of any clock that never goes back.
    """
    draining = {
        place: since.get(place, now)
        for place in removed_backends(observed, desired)
        if place[1] not in failed and connections.get(place) != 0 and now < since.get(place, now) + timeout
    }
    servers = dict(desired.virtual_servers)
    for virtual, real in draining:
        there = observed.virtual_servers[virtual]
        server = servers.get(virtual) or replace(there, real_servers={})
        quiet = replace(there.real_servers[real], weight=0)
        servers[virtual] = replace(server, real_servers={**server.real_servers, real: quiet})
    bound = desired.vips | (observed.vips & {virtual.address for virtual, _ in draining})
    return DrainResult(Table(servers, bound), draining)


def removed_backends(observed: Table, desired: Table) -> list[BackendKey]:
    """The real servers that are there and no longer wanted."""
    gone: list[BackendKey] = []
    for key, server in observed.virtual_servers.items():
        wanted = desired.virtual_servers.get(key)
        if wanted is not server:
            left = server.real_servers.keys() - (wanted.real_servers.keys() if wanted is not None else ())
            gone += [(key, real) for real in left]
    return sorted(gone)
