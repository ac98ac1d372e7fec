"""Connections of clients to virtual servers as the kernel tracks them: requests and answers as bytes, and text of IPVS.

It follows linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h, and the file
/proc/net/ip_vs_conn (net/netfilter/ipvs/ip_vs_conn.c). Pure.
"""

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from mesh.dataplane.netlink import PORT, U32, MalformedNetlinkError, NetlinkAttributes, nest_attributes, pack_attribute
from mesh.model.service import Address, Transport
from mesh.model.table import VirtualKey

_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_F_REQUEST, _F_DUMP = 0x1, 0x300
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_FAMILY_HEADER = struct.Struct("=BBH")  # nfgenmsg: family, version, resource
_BIG = struct.Struct(">I")
_INET, _INET6 = 2, 10
_TUPLE_ORIG, _STATUS, _PROTOINFO, _FILTER, _STATUS_MASK = 1, 3, 4, 25, 26  # CTA_*
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2  # CTA_FILTER_*
_BY_DESTINATION = 1 << 1  # the address alone: net/netfilter/nf_internals.h
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_SOURCE_4, _DESTINATION_4, _SOURCE_6, _DESTINATION_6 = 1, 2, 3, 4  # CTA_IP_*
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_TCP_STATE = 1  # CTA_PROTOINFO_TCP, and CTA_PROTOINFO_TCP_STATE in it
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2  # IPS_*
_TRANSPORTS = {6: Transport.TCP, 17: Transport.UDP}
_HALF_OPEN = frozenset({1, 2, 9})  # TCP_CONNTRACK_SYN_SENT, SYN_RECV, SYN_SENT2
_IPVS_HALF_OPEN = "SYN_RECV"
"""IPVS is in this state from the client's SYN until its ACK, whatever the endpoint has sent."""


class FlowKey(NamedTuple):
    """What identifies a connection of a client while the kernel tracks it."""

    virtual: VirtualKey
    client: Address
    port: int


@dataclass(frozen=True, slots=True)
class ClientFlow:
    """A connection of a client to a virtual server."""

    key: FlowKey
    is_answered: bool
    """Whether the client has got an answer: the handshake was completed or refused; over UDP, a datagram came back."""


def list_unassured_request(version: int, sequence: int) -> bytes:
    """Build the request to list entries of an IP version in which no connection was established yet.

    Kernels that know no filter by status (before 6.1) answer with all entries.
    """
    body = pack_attribute(_STATUS, _BIG.pack(0)) + pack_attribute(_STATUS_MASK, _BIG.pack(_ASSURED))
    return _request(version, sequence, body)


def list_address_request(vip: Address, sequence: int) -> bytes:
    """Build the request to list all entries to an address; kernels before 5.8 answer with all entries."""
    address = ip_address(vip)
    kind = _DESTINATION_6 if address.version == 6 else _DESTINATION_4
    original = nest_attributes(_IP, pack_attribute(kind, address.packed))
    by = pack_attribute(_FILTER_ORIGINAL, U32.pack(_BY_DESTINATION)) + pack_attribute(_FILTER_REPLY, U32.pack(0))
    body = nest_attributes(_TUPLE_ORIG, original) + nest_attributes(_FILTER, by)
    return _request(address.version, sequence, body)


def parse_flow(body: bytes, only: Collection[VirtualKey]) -> ClientFlow | None:
    """Parse a list entry; None if it does not lead to one of these virtual servers, or is neither TCP nor UDP.

    Raises `MalformedNetlinkError`.
    """
    found = NetlinkAttributes(body)
    original = found.nested(_TUPLE_ORIG)
    protocol, addresses = original.nested(_PROTO), original.nested(_IP)
    transport = _TRANSPORTS.get(protocol.raw(_NUMBER, 1)[0])
    if transport is None:
        return None
    destination = _address(addresses, _DESTINATION_4, _DESTINATION_6)
    virtual = VirtualKey(destination, protocol.number(PORT, _DESTINATION_PORT), transport)
    if virtual not in only:
        return None
    key = FlowKey(virtual, _address(addresses, _SOURCE_4, _SOURCE_6), protocol.number(PORT, _SOURCE_PORT))
    status = found.number(_BIG, _STATUS)
    if transport is Transport.UDP:
        return ClientFlow(key, bool(status & _SEEN_REPLY))
    return ClientFlow(key, bool(status & _ASSURED) or _tcp_state(found) not in _HALF_OPEN)


def parse_ipvs_connections(lines: Iterable[str], only: Collection[VirtualKey]) -> Iterator[ClientFlow]:
    """Yield the TCP connections to these virtual servers from lines of /proc/net/ip_vs_conn without its heading.

    Its states for UDP say nothing. A line that is not understood is left out.
    """
    for line in lines:
        fields = line.split()
        if len(fields) < 8 or fields[0] != "TCP":
            continue
        try:
            client, port, vip, listen = _ipvs_address(fields[1]), int(fields[2], 16), fields[3], int(fields[4], 16)
            virtual = VirtualKey(_ipvs_address(vip), listen, Transport.TCP)
        except ValueError:
            continue
        if virtual in only:
            yield ClientFlow(FlowKey(virtual, client, port), fields[7] != _IPVS_HALF_OPEN)


def _request(version: int, sequence: int, body: bytes) -> bytes:
    family = _INET6 if version == 6 else _INET
    length = _HEADER.size + _FAMILY_HEADER.size + len(body)
    header = _HEADER.pack(length, _GET, _F_REQUEST | _F_DUMP, sequence, 0)
    return header + _FAMILY_HEADER.pack(family, 0, 0) + body


def _tcp_state(found: NetlinkAttributes) -> int:
    """Return the state of a TCP connection; 0 if there is none, as while an entry is being deleted."""
    try:
        return found.nested(_PROTOINFO).nested(_TCP_STATE).raw(_TCP_STATE, 1)[0]
    except MalformedNetlinkError:
        return 0


def _address(addresses: NetlinkAttributes, kind_4: int, kind_6: int) -> Address:
    """Return an address of either family. Raises `MalformedNetlinkError`."""
    if addresses.has(kind_4):
        return str(ip_address(addresses.raw(kind_4, 4)))
    return str(ip_address(addresses.raw(kind_6, 16)))


def _ipvs_address(text: str) -> Address:
    """Return the address that IPVS prints as `0A700007`, or as IPv6 text. Raises `ValueError`."""
    return str(ip_address(text.strip("[]") if ":" in text else bytes.fromhex(text)))
