"""Connection draining: removes real servers without cutting their connections. Pure.

Draining stands between the plan and the diff. A real server that the plan no longer contains stays for a while with
weight 0: it gets no new connections, and established ones can finish. It is removed when it has no connections left or
its time is up. A VIP whose virtual server is draining stays bound, since packets of its connections still arrive there;
its name has left the DNS zone before.

Connections are counted before the change that this leads to, and a new one may begin in between. So a real server that
still answers is removed only if it had weight 0 when they were counted: whoever waits for the drain ends it then.

An endpoint that failed its probes is not drained: its connections hang, and the sooner they are reset the better.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from mesh.model.table import RealKey, Table, VirtualKey

DEFAULT_DRAIN_TIMEOUT = 30.0
"""Seconds that connections have to finish."""

BackendKey: TypeAlias = tuple[VirtualKey, RealKey]
"""A real server behind one virtual server."""


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The table to program now, and the real servers in it that are draining."""

    table: Table
    """The table to program, in which draining real servers have weight 0."""
    since: Mapping[BackendKey, float]
    """When each draining real server began to drain, in seconds; the input of the next call."""


def drain_removed(
    observed: Table,
    desired: Table,
    *,
    failed: Collection[RealKey],
    answering: Collection[RealKey] = (),
    connections: Mapping[BackendKey, int],
    since: Mapping[BackendKey, float],
    now: float,
    timeout: float = DEFAULT_DRAIN_TIMEOUT,
) -> DrainResult:
    """Return the desired table plus the real servers that still have to finish.

    `failed` is the real servers that do not answer, `answering` those of endpoints that are there and drain. Any other
    one is gone. `connections` is the number of established connections of each
    place where it is known; a place without a known number drains until its time is up. `since` is from the last
    result. `now` and `timeout` are in seconds; `now` is of any monotonic clock.
    """

    def is_idle(place: BackendKey) -> bool:
        virtual, real = place
        takes_new = observed.virtual_servers[virtual].real_servers[real].weight > 0
        return connections.get(place) == 0 and not (takes_new and real in answering)

    draining = {
        place: since.get(place, now)
        for place in removed_backends(observed, desired)
        if place[1] not in failed and not is_idle(place) and now < since.get(place, now) + timeout
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
    """Return the real servers that are in the observed table and not in the desired one, sorted."""
    gone: list[BackendKey] = []
    for key, server in observed.virtual_servers.items():
        wanted = desired.virtual_servers.get(key)
        # `recognised` has made equal virtual servers identical, so this skips nearly all of them.
        if wanted is not server:
            left = server.real_servers.keys() - (wanted.real_servers.keys() if wanted is not None else ())
            gone += [(key, real) for real in left]
    return sorted(gone)
