"""Converts operations and tables to IPVS messages and back, and explains refusals.

The kernel may hold state that no plan can contain, because it was set from outside: a real server on this host, or a
scheduler that vipmesh does not use. It is read as an impossible value, `FOREIGN_VALUE`, so that the next diff finds it
different and corrects it.
"""

import errno
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from mesh.dataplane.ipvs import messages as codec
from mesh.dataplane.netlink import NetlinkAck, NetlinkRequest
from mesh.dataplane.operations import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
)
from mesh.model.service import Forwarding, Scheduler, SchedulerFlag
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer

IpvsChange: TypeAlias = (
    AddVirtualServer | EditVirtualServer | DeleteVirtualServer | AddRealServer | EditRealServer | DeleteRealServer
)
"""An operation on IPVS itself, that is any except those on VIPs."""

FOREIGN_VALUE = -1
"""A weight or a persistence that no plan contains."""

_SCHEDULERS: frozenset[str] = frozenset(Scheduler)
_HASHING = frozenset({Scheduler.SH, Scheduler.MH})
_FLAGS = {SchedulerFlag.FALLBACK: codec.FALLBACK, SchedulerFlag.PORT: codec.BY_PORT}
_ALL_FLAGS = sum(_FLAGS.values())
_METHODS = {
    Forwarding.MASQUERADE: codec.MASQUERADE,
    Forwarding.TUNNEL: codec.TUNNEL,
    Forwarding.DIRECT: codec.DIRECT,
}
_FORWARDINGS = {method: forwarding for forwarding, method in _METHODS.items()}


def _gone_already(change: IpvsChange, ack: NetlinkAck) -> bool:
    """Return whether a deletion failed only because its object does not exist."""
    match change:
        case DeleteVirtualServer():
            return ack.error == errno.ESRCH
        case DeleteRealServer():
            return ack.error in {errno.ESRCH, errno.ENOENT}
    return False


def operation_key(change: IpvsChange) -> VirtualKey:
    """Return the key of the virtual server that a change concerns."""
    match change:
        case AddVirtualServer() | EditVirtualServer() | DeleteVirtualServer():
            return change.key
        case _:
            return change.virtual


def as_edit(change: IpvsChange) -> IpvsChange:
    """Return an addition as an edit, and any other change as it is."""
    match change:
        case AddVirtualServer(key, scheduler, persistence, flags):
            return EditVirtualServer(key, scheduler, persistence, flags)
        case AddRealServer(virtual, real, settings):
            return EditRealServer(virtual, real, settings)
    return change


def encode_change(change: IpvsChange) -> NetlinkRequest:
    """Return the request that makes a change."""
    match change:
        case AddVirtualServer():
            return codec.new_service(_service(change))
        case EditVirtualServer():
            return codec.set_service(_service(change))
        case DeleteVirtualServer(key):
            return codec.delete_service(key)
        case AddRealServer(virtual, real, settings):
            return codec.new_destination(virtual, _destination(real, settings))
        case EditRealServer(virtual, real, settings):
            return codec.set_destination(virtual, _destination(real, settings))
        case DeleteRealServer(virtual, real):
            return codec.delete_destination(virtual, real)


def _service(change: AddVirtualServer | EditVirtualServer) -> codec.IpvsService:
    """Convert a virtual server of the model to one of IPVS."""
    flags = sum(_FLAGS[flag] for flag in change.flags) + (codec.PERSISTENT if change.persistence else 0)
    return codec.IpvsService(change.key, change.scheduler, flags, change.persistence)


def _destination(key: RealKey, settings: RealServer) -> codec.IpvsDestination:
    """Convert a real server of the model to one of IPVS."""
    return codec.IpvsDestination(
        key,
        settings.weight,
        _METHODS[settings.forwarding],
        settings.upper_threshold,
        settings.lower_threshold,
    )


@lru_cache(256)  # most real servers share a few combinations of settings
def _real_server(weight: int, method: int, upper: int, lower: int) -> RealServer:
    """Convert the settings of a real server from IPVS, with weight `FOREIGN_VALUE` for an unknown forwarding method."""
    forwarding = _FORWARDINGS.get(method)
    return RealServer(weight if forwarding else FOREIGN_VALUE, forwarding or Forwarding.MASQUERADE, upper, lower)


def to_virtual_server(service: codec.IpvsService, destinations: Iterable[codec.IpvsDestination]) -> VirtualServer:
    """Convert a virtual server from IPVS, with persistence `FOREIGN_VALUE` if its settings cannot come from a plan."""
    known = service.scheduler in _SCHEDULERS
    scheduler = Scheduler(service.scheduler) if known else Scheduler.WRR
    chosen = service.flags & _ALL_FLAGS
    rest = service.flags & ~_ALL_FLAGS
    # Persistence by whole client address is the only kind that a plan contains.
    persistent = rest == codec.PERSISTENT and service.prefix is None and service.timeout > 0
    ours = known and (not rest or persistent) and (not chosen or scheduler in _HASHING)
    persistence = service.timeout if persistent else 0
    return VirtualServer(
        scheduler,
        persistence if ours else FOREIGN_VALUE,
        {
            found.key: _real_server(found.weight, found.forwarding, found.upper_threshold, found.lower_threshold)
            for found in destinations
        },
        frozenset(flag for flag, bit in _FLAGS.items() if chosen & bit),
    )


def failure_reason(change: IpvsChange, ack: NetlinkAck) -> str | None:
    """Return why a change failed, ending with the remedy; None if the requested state is in force."""
    if not ack.error or _gone_already(change, ack):
        return None
    match change, ack.error:
        case ((AddVirtualServer() | EditVirtualServer()), errno.ENOENT):
            module = f"ip_vs_{change.scheduler}"
            return f"this kernel lacks the IPVS scheduler {change.scheduler}: `modprobe {module}`, or choose another"
        case (AddVirtualServer(), errno.EPROTONOSUPPORT | errno.EAFNOSUPPORT):
            return f"this kernel's IPVS cannot balance {change.key}: it was built without that protocol"
        case _, errno.ESRCH:
            return (
                f"there is no virtual server {operation_key(change)} in IPVS: it is added when the table is read again"
            )
        case EditRealServer(), errno.ENOENT:
            return f"{change.real} is not behind {change.virtual} in IPVS: it is added when the table is read again"
        case ((AddRealServer() | EditRealServer()), errno.EINVAL):
            return f"IPVS cannot send to {change.real}: give a unicast address of the same IP version as the VIP"
        case _, errno.ENOMEM:
            return f"the kernel has no memory left to {change}: free some on this host; it is tried again at the audit"
    detail = f" ({ack.text})" if ack.text else ""
    return f"IPVS refuses {change}: {os.strerror(ack.error)}{detail}; look into `dmesg`"
