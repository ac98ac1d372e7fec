"""Decides which tracked connections have to begin again. Pure.

A connection keeps what was decided for its first packet: where it goes, and whether its source is rewritten. So an
entry is deleted from the kernel's table if its connection began before its virtual server existed, or if its real
server has left. The next packet is then the first one of a new connection.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address

from mesh.config.values import Network
from mesh.dataplane.conntrack.messages import ConntrackEntry
from mesh.model.service import Transport
from mesh.model.table import RealKey, VirtualKey


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """A container of the keys that only our virtual servers can have."""

    pool: Network
    """The VIP pool."""
    published: Callable[[VirtualKey], bool]
    """Whether a key outside the pool is a published port of ours."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, VirtualKey) and (ip_address(key.address) in self.pool or self.published(key))


def is_bypassing(entry: ConntrackEntry) -> bool:
    """Return whether a connection goes past its virtual server and can be led to it.

    An answered TCP connection ends at this host itself and stays. A UDP flow has no end that could be waited for.
    """
    return entry.bypasses and (entry.virtual.transport is Transport.UDP or not entry.answered)


def is_stray(entry: ConntrackEntry, real_servers: Collection[RealKey]) -> bool:
    """Return whether a connection goes elsewhere than its virtual server would send it now.

    `real_servers` is those of its virtual server, empty if that does not exist. A TCP connection that IPVS has
    translated is left to IPVS, which drains or resets it.
    """
    if entry.real in real_servers:
        return False
    return is_bypassing(entry) or entry.translated or entry.virtual.transport is Transport.UDP
