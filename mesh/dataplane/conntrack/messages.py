"""Messages about tracked connections as bytes.

They follow linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h and nf_tables.h. A connection to a virtual server is an
entry whose original direction leads to the virtual server; its replies come from the real server.
"""

import struct
from collections.abc import Container
from dataclasses import dataclass
from ipaddress import ip_address

from mesh.dataplane.netlink import (
    PORT,
    PROTOCOLS,
    TRANSPORTS,
    U32,
    MalformedNetlinkError,
    NetlinkAttributes,
    nest_attributes,
    pack_attribute,
)
from mesh.model.service import Transport
from mesh.model.table import RealKey, VirtualKey

GENERATION = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*

_F_REQUEST, _F_ACK, _F_DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_FAMILY_HEADER = struct.Struct("=BBH")  # nfgenmsg: family, version, resource
_INET, _INET6 = 2, 10
BIG = struct.Struct(">I")
"""A 32-bit number in network byte order, as netfilter uses for some attributes."""

_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_INFO, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 4, 12, 18, 25, 26  # CTA_*
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_SOURCE_4, _DESTINATION_4, _SOURCE_6, _DESTINATION_6 = 1, 2, 3, 4  # CTA_IP_*
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2  # CTA_FILTER_*
_BY_DESTINATION, _BY_PROTOCOL = 1 << 1, 1 << 3  # net/netfilter/nf_internals.h
_BY_PORT = _BY_PROTOCOL | 1 << 5
_ANSWERED, _TRANSLATED = 1 << 1, 1 << 5  # IPS_SEEN_REPLY, IPS_DST_NAT
_INFO_TCP, _INFO_SCTP, _STATE = 1, 3, 1  # CTA_PROTOINFO_*, and the state in both
_OPEN = {
    Transport.TCP: {2, 3, 4, 5},  # linux/nf_conntrack_tcp.h: from SYN_RECV until both sides have said FIN
    Transport.SCTP: {3, 4, 5, 6},  # nf_conntrack_sctp.h: from COOKIE_ECHOED until both have said SHUTDOWN
}
_INFO = {Transport.TCP: _INFO_TCP, Transport.SCTP: _INFO_SCTP}


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """A tracked connection to an address that may be a virtual server."""

    virtual: VirtualKey
    """The destination of the original direction."""
    real: RealKey
    """The source of replies: the real server, or the virtual server itself if nothing was translated."""
    translated: bool
    """Whether its destination was translated by netfilter. What IPVS has translated is not marked so."""
    answered: bool
    """Whether a reply was seen."""
    open: bool
    """Whether it is established and not closed by both sides; always False for UDP, which has no close."""
    handle: bytes
    """The attributes that identify the entry to the kernel."""

    @property
    def bypasses(self) -> bool:
        """Whether neither netfilter nor IPVS sends it to a real server: it began without its virtual server."""
        return self.real == (self.virtual.address, self.virtual.port)


def address_family(version: int) -> int:
    """Return the kernel's number of the address family of an IP version."""
    return _INET6 if version == 6 else _INET


def build_request(kind: int, family: int, sequence: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return a complete message."""
    length = _HEADER.size + _FAMILY_HEADER.size + len(body)
    return _HEADER.pack(length, kind, _F_REQUEST | flags, sequence, 0) + _FAMILY_HEADER.pack(family, 0, 0) + body


def build_batch_mark(kind: int, subsystem: int, sequence: int) -> bytes:
    """Return the message that begins or ends a transaction of a subsystem of netfilter (linux/nfnetlink.h)."""
    body = bytes(2) + subsystem.to_bytes(2, "big")  # nfgenmsg: no family, the subsystem as the resource
    return _HEADER.pack(_HEADER.size + len(body), kind, _F_REQUEST, sequence, 0) + body


def list_all_request(family: int, sequence: int) -> bytes:
    """Build the request to list all entries."""
    return build_request(_GET, family, sequence, flags=_F_DUMP)


def list_request(key: VirtualKey, sequence: int) -> bytes:
    """Build the request to list the entries of one virtual server.

    Kernels before 5.8 answer with all entries, and for IPv6 every kernel with those of all servers of the same port.
    """
    address = ip_address(key.address)
    original = nest_attributes(
        _PROTO,
        pack_attribute(_NUMBER, bytes([PROTOCOLS[key.transport]]))
        + pack_attribute(_DESTINATION_PORT, PORT.pack(key.port)),
    )
    filtered = _BY_PORT
    if address.version == 4:
        # Kernels have compared IPv6 addresses the wrong way round, and listed all but the one that was asked for.
        original += nest_attributes(_IP, pack_attribute(_DESTINATION_4, address.packed))
        filtered |= _BY_DESTINATION
    by = pack_attribute(_FILTER_ORIGINAL, U32.pack(filtered)) + pack_attribute(_FILTER_REPLY, U32.pack(0))
    return build_request(
        _GET,
        address_family(address.version),
        sequence,
        nest_attributes(_ORIGINAL, original) + nest_attributes(_FILTER, by),
        flags=_F_DUMP,
    )


def list_unanswered_request(family: int, sequence: int) -> bytes:
    """Build the request to list the entries without a reply; kernels before 5.18 answer with all entries."""
    body = pack_attribute(_STATUS, BIG.pack(0)) + pack_attribute(_STATUS_MASK, BIG.pack(_ANSWERED))
    return build_request(_GET, family, sequence, body, flags=_F_DUMP)


def list_transport_request(transport: Transport, family: int, sequence: int) -> bytes:
    """Build the request to list the entries of one transport; kernels before 5.8 answer with all entries."""
    original = nest_attributes(_PROTO, pack_attribute(_NUMBER, bytes([PROTOCOLS[transport]])))
    by = pack_attribute(_FILTER_ORIGINAL, U32.pack(_BY_PROTOCOL)) + pack_attribute(_FILTER_REPLY, U32.pack(0))
    body = nest_attributes(_ORIGINAL, original) + nest_attributes(_FILTER, by)
    return build_request(_GET, family, sequence, body, flags=_F_DUMP)


def delete_request(entry: ConntrackEntry, sequence: int) -> bytes:
    """Build the request to delete an entry; the next packet of the connection is then the first of a new one."""
    family = _INET6 if ":" in entry.virtual.address else _INET
    return build_request(_DELETE, family, sequence, entry.handle, flags=_F_ACK)


def parse_entry(body: bytes, only: Container[VirtualKey]) -> ConntrackEntry | None:
    """Parse a list entry; None if it does not belong to one of these virtual servers. Raises
    `MalformedNetlinkError`."""
    found = NetlinkAttributes(body)
    original = found.nested(_ORIGINAL)
    protocol = original.nested(_PROTO)
    transport = TRANSPORTS.get(protocol.raw(_NUMBER, 1)[0])
    if transport is None:
        return None
    address = _address(original, _DESTINATION_4, _DESTINATION_6)
    key = VirtualKey(address, protocol.number(PORT, _DESTINATION_PORT), transport)
    if key not in only:
        return None
    reply = found.nested(_REPLY)
    real = RealKey(_address(reply, _SOURCE_4, _SOURCE_6), reply.nested(_PROTO).number(PORT, _SOURCE_PORT))
    status = found.number(BIG, _STATUS)
    handle = nest_attributes(_ORIGINAL, found.raw(_ORIGINAL)) + pack_attribute(_ID, found.raw(_ID, 4))
    if found.number(PORT, _ZONE, 0):
        handle += pack_attribute(_ZONE, found.raw(_ZONE))
    translated, answered = bool(status & _TRANSLATED), bool(status & _ANSWERED)
    return ConntrackEntry(key, real, translated, answered, _open(found, transport), handle)


def _address(tuples: NetlinkAttributes, kind_4: int, kind_6: int) -> str:
    """Return an address of a tuple, of either family. Raises `MalformedNetlinkError`."""
    addresses = tuples.nested(_IP)
    try:
        return str(ip_address(addresses.raw(kind_4, 4)))
    except MalformedNetlinkError:
        return str(ip_address(addresses.raw(kind_6, 16)))


def _open(found: NetlinkAttributes, transport: Transport) -> bool:
    """Return whether a connection is established and not closed by both sides."""
    if transport not in _INFO:
        return False
    try:
        state = found.nested(_PROTOCOL_INFO).nested(_INFO[transport]).raw(_STATE, 1)[0]
    except MalformedNetlinkError:
        return False  # the kernel reports no state for a connection that is about to be deleted
    return state in _OPEN[transport]
