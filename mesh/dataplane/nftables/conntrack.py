"""The kernel's table of connections: how many lead through a virtual server, and an end to those that lead nowhere.

Destination NAT chooses once for each connection; conntrack repeats the choice for every later packet, also when the
real server has gone. Such an entry is deleted: the next packet of its client is then led to another real server, which
refuses the middle of a connection by a reset; the sender of a datagram is simply served by another one.

pyroute2's synchronous class runs an event loop of its own, so it is called in a thread.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from mesh.dataplane import DataPlaneError
from mesh.drain import Place
from mesh.model import RealKey, Transport, VirtualKey

_PROTOCOLS = {Transport.TCP: 6, Transport.UDP: 17, Transport.SCTP: 132}
_ESTABLISHED = 3  # TCP_CONNTRACK_ESTABLISHED, linux/netfilter/nf_conntrack_tcp.h


async def established(virtuals: Collection[VirtualKey]) -> Mapping[Place, int]:
    """TCP connections of each real server behind these. Raises `DataPlaneError`."""
    return await asyncio.to_thread(_established, virtuals)


async def forget(staying: Mapping[VirtualKey, Collection[RealKey]]) -> int:
    """Delete what leads through these virtual servers to others than the real servers given; how many that were.

    Raises `DataPlaneError`.
    """
    return await asyncio.to_thread(_forget, staying)


def _established(virtuals: Collection[VirtualKey]) -> Mapping[Place, int]:
    counts: Counter[Place] = Counter()
    for virtual in virtuals:
        if virtual.transport is Transport.TCP:
            for _, real, state in _entries(virtual):
                counts[virtual, real] += state == _ESTABLISHED
    return counts


def _forget(staying: Mapping[VirtualKey, Collection[RealKey]]) -> int:
    forgotten = 0
    for virtual, reals in staying.items():
        stale = [original for original, real, _ in _entries(virtual) if real not in reals]
        with NFCTSocket(nfgen_family=_family(virtual)) as conntrack:
            for original in stale:
                try:
                    conntrack.entry("del", tuple_orig=original)
                    forgotten += 1
                except NetlinkError:
                    continue  # it has ended by itself
    return forgotten


def _entries(virtual: VirtualKey) -> Iterator[tuple[NFCTAttrTuple, RealKey, int]]:
    """The original direction, the real server, and (of TCP) the state of each connection through a virtual server."""
    family = _family(virtual)
    asked = NFCTAttrTuple(family=family, daddr=virtual.address, proto=_PROTOCOLS[virtual.transport], dport=virtual.port)
    try:
        with NFCTSocket(nfgen_family=family) as conntrack:
            for entry in conntrack.dump(tuple_orig=asked):
                original = NFCTAttrTuple.from_netlink(family, entry.get_attr("CTA_TUPLE_ORIG"))
                reply = NFCTAttrTuple.from_netlink(family, entry.get_attr("CTA_TUPLE_REPLY"))
                if (original.daddr, original.proto, original.dport) == (asked.daddr, asked.proto, asked.dport):
                    yield original, RealKey(str(reply.saddr), int(reply.sport)), _state(entry)
    except (NetlinkError, OSError) as error:
        remedy = "`modprobe nf_conntrack_netlink`"
        raise DataPlaneError(f"the table of connections cannot be read ({error}): {remedy}") from error


def _state(entry: Any) -> int:
    tcp = entry.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_TCP")
    return int(tcp.get_attr("CTA_PROTOINFO_TCP_STATE")) if tcp is not None else 0


def _family(virtual: VirtualKey) -> int:
    return socket.AF_INET6 if ":" in virtual.address else socket.AF_INET
