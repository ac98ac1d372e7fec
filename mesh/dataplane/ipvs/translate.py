"""The words of `diff` and `model` to those of IPVS, and its answers back.

What the kernel holds that no plan can ask for, because somebody else set it (a real server that is not masqueraded, a
scheduler that we do not know), is shown with an impossible value, `ALIEN`: then the next diff finds it different and
sets it right.
"""

import errno
import os
from collections.abc import Iterable
from typing import TypeAlias

from mesh.dataplane.ipvs import codec
from mesh.dataplane.ipvs.wire import Ack, Request
from mesh.diff import (
    AddRealServer,
    AddVirtualServer,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
)
from mesh.model import Scheduler, VirtualKey, VirtualServer

Change: TypeAlias = (
    AddVirtualServer | EditVirtualServer | DeleteVirtualServer | AddRealServer | EditRealServer | DeleteRealServer
)
"""What is done to IPVS itself."""

ALIEN = -1
"""A weight or a persistence that no plan asks for."""

_SCHEDULERS: frozenset[str] = frozenset(Scheduler)


def _gone_already(change: Change, ack: Ack) -> bool:
    match change:
        case DeleteVirtualServer():
            return ack.error == errno.ESRCH
        case DeleteRealServer():
            return ack.error in {errno.ESRCH, errno.ENOENT}
    return False


def virtual_key(change: Change) -> VirtualKey:
    """The virtual server that a change is about."""
    match change:
        case AddVirtualServer() | EditVirtualServer() | DeleteVirtualServer():
            return change.key
        case _:
            return change.virtual


def as_edit(change: Change) -> Change:
    """An addition as the change of what is there; any other change as it is."""
    match change:
        case AddVirtualServer(key, scheduler, persistence):
            return EditVirtualServer(key, scheduler, persistence)
        case AddRealServer(virtual, real, weight):
            return EditRealServer(virtual, real, weight)
    return change


def encode(change: Change) -> Request:
    """The message that makes the change."""
    match change:
        case AddVirtualServer(key, scheduler, persistence):
            return codec.new_service(_service(key, scheduler, persistence))
        case EditVirtualServer(key, scheduler, persistence):
            return codec.set_service(_service(key, scheduler, persistence))
        case DeleteVirtualServer(key):
            return codec.delete_service(key)
        case AddRealServer(virtual, real, weight):
            return codec.new_destination(virtual, codec.Destination(real, weight))
        case EditRealServer(virtual, real, weight):
            return codec.set_destination(virtual, codec.Destination(real, weight))
        case DeleteRealServer(virtual, real):
            return codec.delete_destination(virtual, real)


def _service(key: VirtualKey, scheduler: Scheduler, persistence: int) -> codec.Service:
    return codec.Service(key, scheduler, codec.PERSISTENT if persistence else 0, persistence)


def virtual_server(service: codec.Service, destinations: Iterable[codec.Destination]) -> VirtualServer:
    """What IPVS lists, with `ALIEN` for what is not of our making."""
    known = service.scheduler in _SCHEDULERS
    persistent = service.flags == codec.PERSISTENT and service.prefix is None and service.timeout > 0
    plain = service.flags == 0
    return VirtualServer(
        scheduler=Scheduler(service.scheduler) if known else Scheduler.WRR,
        persistence=ALIEN if not known or not (plain or persistent) else service.timeout if persistent else 0,
        real_servers={
            found.key: found.weight if found.forwarding == codec.MASQUERADE else ALIEN for found in destinations
        },
    )


def reason(change: Change, ack: Ack) -> str | None:
    """Why the change failed, ending with the remedy; None if all is now as it asked."""
    if not ack.error or _gone_already(change, ack):
        return None
    match change, ack.error:
        case ((AddVirtualServer() | EditVirtualServer()), errno.ENOENT):
            module = f"ip_vs_{change.scheduler}"
            return f"this kernel lacks the IPVS scheduler {change.scheduler}: `modprobe {module}`, or choose another"
        case _, errno.ESRCH:
            return f"there is no virtual server {virtual_key(change)} in IPVS: it is added when the table is read again"
        case EditRealServer(), errno.ENOENT:
            return f"{change.real} is not behind {change.virtual} in IPVS: it is added when the table is read again"
        case ((AddRealServer() | EditRealServer()), errno.EINVAL):
            return f"IPVS cannot send to {change.real}: give a unicast address of the same IP version as the VIP"
    detail = f" ({ack.text})" if ack.text else ""
    return f"IPVS refuses {change}: {os.strerror(ack.error)}{detail}; look into `dmesg`"
