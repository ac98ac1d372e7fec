"""IPVS's generic netlink messages as bytes, from linux/ip_vs.h: virtual servers, real servers, timeouts.

A library that builds an object per attribute costs 0.3 ms for each real server. Here a message is a few `struct.pack`
calls, so that thousands of real servers take milliseconds and many messages share a datagram. Netlink numbers are in
the host's byte order; ports, addresses and the IPv4 netmask are in network byte order.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple, TypeAlias

from mesh.dataplane.netlink import (
    PORT,
    PROTOCOLS,
    TRANSPORTS,
    U16,
    U32,
    NetlinkAttributes,
    NetlinkRequest,
    nest_attributes,
    pack_attribute,
)
from mesh.model.service import Address
from mesh.model.table import RealKey, VirtualKey

FAMILY_NAME = "IPVS"
"""The name of IPVS's generic netlink family."""

MASQUERADE, TUNNEL, DIRECT = 0, 2, 3
"""IP_VS_CONN_F_MASQ rewrites the destination, _TUNNEL wraps the packet, _DROUTE sends it unchanged to another host."""
PERSISTENT = 0x0001
"""IP_VS_SVC_F_PERSISTENT: a client stays with its real server."""
FALLBACK, BY_PORT = 0x0008, 0x0010
"""IP_VS_SVC_F_SCHED1 and IP_VS_SVC_F_SCHED2, with the meaning that the schedulers `sh` and `mh` give them."""
_HASHED = 0x0002  # set by the kernel on every service it lists

FORWARDING_MASK = 0x7
"""The bits of a real server's flags that hold its forwarding method."""
_INFO_VERSION, _INFO_TABLE_SIZE = 1, 2  # IPVS_INFO_ATTR_*
_INET, _INET6 = 2, 10

_FLAGS = struct.Struct("=II")  # struct ip_vs_flags: the flags, and which of them are meant

# Attributes that always appear together are packed at once: length and kind of each, its value, its padding.
_KEY = struct.Struct("=HHH2x HHH2x HH16s HH2s2x")  # of a service: family, protocol, address, port
_DESTINATION_KEY = struct.Struct("=HHH2x HH16s HH2s2x")  # family, address, port
_SETTINGS = struct.Struct("=HHI HHI HHI HHI")  # of a destination: forwarding, weight, the thresholds


class IpvsCommand(IntEnum):
    """The IPVS_CMD_* that are used."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    SET_CONFIG = 12
    GET_CONFIG = 13
    SET_INFO = 14  # in answers to GET_INFO alone
    GET_INFO = 15


class _CommandAttribute(IntEnum):
    """Kinds of the outermost attributes: IPVS_CMD_ATTR_*."""

    SERVICE, DEST, _DAEMON, TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP = range(1, 7)


class ServiceAttribute(IntEnum):
    """Kinds of attributes of a virtual server: IPVS_SVC_ATTR_*."""

    AF, PROTOCOL, ADDR, PORT, FWMARK, SCHED_NAME, FLAGS, TIMEOUT, NETMASK, STATS = range(1, 11)


SERVICE = _CommandAttribute.SERVICE
"""The kind of the attribute that holds a virtual server."""
DESTINATION = _CommandAttribute.DEST
"""The kind of the attribute that holds a real server."""
_Svc: TypeAlias = ServiceAttribute
"""A short name for use in this module."""


class DestinationAttribute(IntEnum):
    """Kinds of attributes of a real server: IPVS_DEST_ATTR_*."""

    ADDR, PORT, FWD_METHOD, WEIGHT, U_THRESH, L_THRESH, ACTIVE_CONNS, INACT_CONNS, PERSIST_CONNS, _STATS, AF = range(
        1, 12
    )


_Dst: TypeAlias = DestinationAttribute
"""A short name for use in this module."""
COUNTS = (_Dst.U_THRESH, _Dst.L_THRESH, _Dst.ACTIVE_CONNS, _Dst.INACT_CONNS, _Dst.PERSIST_CONNS)
"""Attributes that an old kernel may leave out; they are then 0."""


@dataclass(frozen=True, slots=True)
class IpvsService:
    """A virtual server as IPVS stores it, without its real servers."""

    key: VirtualKey
    scheduler: str
    """The kernel's name of the scheduler, which may be one that vipmesh does not use (`lblc`, `none`)."""
    flags: int = 0
    """IP_VS_SVC_F_*, without the kernel's own HASHED."""
    timeout: int = 0
    """Seconds of persistence; without meaning if `flags` lack `PERSISTENT`."""
    prefix: int | None = None
    """How many bits of a client's address count for persistence; None for all."""


class IpvsDestination(NamedTuple):
    """A real server as IPVS stores it. The connection counts are only read, never written."""

    key: RealKey
    weight: int
    """The weight; 0 for no new connections."""
    forwarding: int = MASQUERADE
    """`MASQUERADE`, `TUNNEL` or `DIRECT`."""
    upper_threshold: int = 0
    """Connections at which it gets no more new ones; 0 for no limit."""
    lower_threshold: int = 0
    """Connections below which it gets new ones again; 0 for three quarters of the upper threshold."""
    active: int = 0
    """Established connections."""
    inactive: int = 0
    """Connections in any other state."""
    persistent: int = 0
    """Persistence entries, one for each client that stays with it."""


@dataclass(frozen=True, slots=True)
class IpvsTimeouts:
    """Seconds after which IPVS forgets an idle connection; when written, 0 leaves a timeout unchanged."""

    tcp: int = 0
    """Seconds for established TCP connections."""
    tcp_fin: int = 0
    """Seconds for TCP connections after a FIN."""
    udp: int = 0
    """Seconds for UDP."""


def new_service(service: IpvsService) -> NetlinkRequest:
    """Build the request to add a virtual server.

    The kernel refuses with EEXIST if the key is taken, and with ENOENT if it lacks the scheduler.
    """
    return NetlinkRequest(IpvsCommand.NEW_SERVICE, _service(service))


def set_service(service: IpvsService) -> NetlinkRequest:
    """Build the request to change a virtual server. The kernel refuses with ESRCH if it does not exist."""
    return NetlinkRequest(IpvsCommand.SET_SERVICE, _service(service))


def delete_service(key: VirtualKey) -> NetlinkRequest:
    """Build the request to delete a virtual server. The kernel refuses with ESRCH if it does not exist."""
    return NetlinkRequest(IpvsCommand.DEL_SERVICE, nest_attributes(_CommandAttribute.SERVICE, _service_key(key)))


def get_services() -> NetlinkRequest:
    """Build the request to list all virtual servers; each reply is for `parse_service`."""
    return NetlinkRequest(IpvsCommand.GET_SERVICE, dump=True)


def get_service(key: VirtualKey) -> NetlinkRequest:
    """Build the request for one virtual server; the reply is for `parse_service`.

    The kernel refuses with ESRCH if it does not exist.
    """
    return NetlinkRequest(IpvsCommand.GET_SERVICE, nest_attributes(_CommandAttribute.SERVICE, _service_key(key)))


def new_destination(virtual: VirtualKey, destination: IpvsDestination) -> NetlinkRequest:
    """Build the request to add a real server.

    The kernel refuses with EEXIST if it exists, ESRCH without its virtual server, and EINVAL if the address is not
    unicast.
    """
    return NetlinkRequest(IpvsCommand.NEW_DEST, _destination(virtual, destination))


def set_destination(virtual: VirtualKey, destination: IpvsDestination) -> NetlinkRequest:
    """Build the request to change a real server.

    The kernel refuses with ENOENT if it does not exist, and with ESRCH without its virtual server.
    """
    return NetlinkRequest(IpvsCommand.SET_DEST, _destination(virtual, destination))


def delete_destination(virtual: VirtualKey, real: RealKey) -> NetlinkRequest:
    """Build the request to delete a real server.

    The kernel refuses with ENOENT if it does not exist, and with ESRCH without its virtual server.
    """
    body = nest_attributes(_CommandAttribute.SERVICE, _service_key(virtual)) + nest_attributes(
        _CommandAttribute.DEST, _destination_key(real)
    )
    return NetlinkRequest(IpvsCommand.DEL_DEST, body)


def get_destinations(virtual: VirtualKey) -> NetlinkRequest:
    """Build the request to list the real servers of a virtual server; each reply is for `parse_destination`.

    The list is empty if the virtual server is gone.
    """
    return NetlinkRequest(
        IpvsCommand.GET_DEST, nest_attributes(_CommandAttribute.SERVICE, _service_key(virtual)), dump=True
    )


def get_config() -> NetlinkRequest:
    """Build the request for the timeouts; the reply is for `parse_timeouts`."""
    return NetlinkRequest(IpvsCommand.GET_CONFIG)


def set_config(timeouts: IpvsTimeouts) -> NetlinkRequest:
    """Build the request to set the timeouts; the kernel leaves those unchanged that are 0."""
    pairs = (
        (_CommandAttribute.TIMEOUT_TCP, timeouts.tcp),
        (_CommandAttribute.TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        (_CommandAttribute.TIMEOUT_UDP, timeouts.udp),
    )
    return NetlinkRequest(
        IpvsCommand.SET_CONFIG, b"".join(pack_attribute(kind, U32.pack(value)) for kind, value in pairs if value)
    )


def get_info() -> NetlinkRequest:
    """Build the request for the version of IPVS; the reply is for `parse_info`."""
    return NetlinkRequest(IpvsCommand.GET_INFO)


def parse_service(body: bytes) -> IpvsService | None:
    """Parse a virtual server. Raises `MalformedNetlinkError`.

    The result is None if no `VirtualKey` can name it: it is for a firewall mark or another protocol.
    """
    of = NetlinkAttributes(body).nested(_CommandAttribute.SERVICE)
    transport = TRANSPORTS.get(of.number(U16, _Svc.PROTOCOL, default=0))
    if transport is None:
        return None
    family = of.number(U16, _Svc.AF)
    if family == _INET:
        bits, prefix = 32, int.from_bytes(of.raw(_Svc.NETMASK, 4), "big").bit_count()
    else:
        bits, prefix = 128, of.number(U32, _Svc.NETMASK)
    return IpvsService(
        key=VirtualKey(parse_address(of.raw(_Svc.ADDR, 16), family), of.number(PORT, _Svc.PORT), transport),
        scheduler=of.text(_Svc.SCHED_NAME),
        flags=of.number(U32, _Svc.FLAGS) & ~_HASHED,
        timeout=of.number(U32, _Svc.TIMEOUT),
        prefix=None if prefix == bits else prefix,
    )


def parse_destination(body: bytes) -> IpvsDestination:
    """Parse a real server with its connection counts. Raises `MalformedNetlinkError`."""
    of = NetlinkAttributes(body).nested(_CommandAttribute.DEST)
    return IpvsDestination(
        RealKey(parse_address(of.raw(_Dst.ADDR, 16), of.number(U16, _Dst.AF)), of.number(PORT, _Dst.PORT)),
        of.number(U32, _Dst.WEIGHT),
        of.number(U32, _Dst.FWD_METHOD) & FORWARDING_MASK,
        *(of.number(U32, kind, default=0) for kind in COUNTS),
    )


def parse_timeouts(body: bytes) -> IpvsTimeouts:
    """Parse the reply to `get_config`; a timeout that it lacks (a kernel without UDP in IPVS) is 0."""
    of = NetlinkAttributes(body)
    kinds = (_CommandAttribute.TIMEOUT_TCP, _CommandAttribute.TIMEOUT_TCP_FIN, _CommandAttribute.TIMEOUT_UDP)
    return IpvsTimeouts(*(of.number(U32, kind, default=0) for kind in kinds))


def parse_info(body: bytes) -> tuple[str, int]:
    """Return the version of IPVS (`1.2.1`) and the size of its connection table."""
    of = NetlinkAttributes(body)
    version = of.number(U32, _INFO_VERSION)
    return f"{version >> 16 & 0xFF}.{version >> 8 & 0xFF}.{version & 0xFF}", of.number(U32, _INFO_TABLE_SIZE)


def _service(service: IpvsService) -> bytes:
    """Encode a virtual server with its settings."""
    bits = 128 if ":" in service.key.address else 32
    prefix = bits if service.prefix is None else service.prefix
    # For IPv4 the attribute is a mask, for IPv6 a prefix length.
    netmask = U32.pack(prefix) if bits == 128 else (0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF).to_bytes(4, "big")
    return nest_attributes(
        _CommandAttribute.SERVICE,
        _service_key(service.key)
        + pack_attribute(_Svc.SCHED_NAME, service.scheduler.encode() + b"\0")
        + pack_attribute(_Svc.FLAGS, _FLAGS.pack(service.flags, 0xFFFFFFFF))
        + pack_attribute(_Svc.TIMEOUT, U32.pack(service.timeout))
        + pack_attribute(_Svc.NETMASK, netmask),
    )


@lru_cache(4096)  # each request about a real server names its virtual server again
def _service_key(key: VirtualKey) -> bytes:
    """Encode the key of a virtual server."""
    family, packed = _address(key.address)
    protocol, port = PROTOCOLS[key.transport], PORT.pack(key.port)
    return _KEY.pack(6, _Svc.AF, family, 6, _Svc.PROTOCOL, protocol, 20, _Svc.ADDR, packed, 6, _Svc.PORT, port)


def _destination(virtual: VirtualKey, destination: IpvsDestination) -> bytes:
    """Encode a virtual server's key and a real server with its settings."""
    settings = _SETTINGS.pack(
        8, _Dst.FWD_METHOD, destination.forwarding, 8, _Dst.WEIGHT, destination.weight,
        8, _Dst.U_THRESH, destination.upper_threshold, 8, _Dst.L_THRESH, destination.lower_threshold,
    )  # fmt: skip  # the kernel requires the thresholds
    return nest_attributes(_CommandAttribute.SERVICE, _service_key(virtual)) + nest_attributes(
        _CommandAttribute.DEST, _destination_key(destination.key) + settings
    )


def _destination_key(key: RealKey) -> bytes:
    """Encode the key of a real server."""
    family, packed = _address(key.address)
    return _DESTINATION_KEY.pack(6, _Dst.AF, family, 20, _Dst.ADDR, packed, 6, _Dst.PORT, PORT.pack(key.port))


def _address(text: Address) -> tuple[int, bytes]:
    """Return the address family and the address in the 16 bytes that IPVS uses for either family."""
    if ":" in text:
        return _INET6, IPv6Address(text).packed
    return _INET, bytes(map(int, text.split("."))).ljust(16, b"\0")


def parse_address(packed: bytes, family: int) -> Address:
    """Return the text of an address that IPVS packs into 16 bytes for either family (AF_INET, AF_INET6)."""
    return str(IPv6Address(packed[:16])) if family == _INET6 else ".".join(map(str, packed[:4]))
