"""IPVS's generic netlink messages as bytes, from linux/ip_vs.h: virtual servers, real servers, timeouts.

A library that builds an object per attribute costs 0.3 ms for every real server; here a message is a few
`struct.pack` calls, so that thousands of real servers are a matter of milliseconds and many messages share a
datagram. Netlink numbers are in the host's byte order; ports, addresses and the IPv4 netmask in the network's.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple, TypeAlias

from mesh.dataplane.netlink import PORT, U16, U32, NetlinkAttributes, NetlinkRequest, nest_attributes, pack_attribute
from mesh.model.service import Address, Transport
from mesh.model.table import RealKey, VirtualKey

FAMILY_NAME = "IPVS"

MASQUERADE, TUNNEL, DIRECT = 0, 2, 3
"""IP_VS_CONN_F_MASQ rewrites the destination, _TUNNEL wraps the packet, _DROUTE sends it as it is to another host."""
PERSISTENT = 0x0001
"""IP_VS_SVC_F_PERSISTENT: a client stays with its real server."""
FALLBACK, BY_PORT = 0x0008, 0x0010
"""IP_VS_SVC_F_SCHED1 and SCHED2, as the schedulers `sh` and `mh` understand them."""
_HASHED = 0x0002  # set by the kernel on every service it lists

FORWARDING_MASK = 0x7
_INFO_VERSION, _INFO_TABLE_SIZE = 1, 2  # IPVS_INFO_ATTR_*
_PROTOCOLS = {Transport.TCP: 6, Transport.UDP: 17, Transport.SCTP: 132}
_TRANSPORTS = {number: transport for transport, number in _PROTOCOLS.items()}
_INET, _INET6 = 2, 10

_FLAGS = struct.Struct("=II")  # struct ip_vs_flags: the flags, and which of them are meant

# Attributes that always come together, packed at once: length and kind of each, its value, its padding.
_KEY = struct.Struct("=HHH2x HHH2x HH16s HH2s2x")  # of a service: family, protocol, address, port
_DESTINATION_KEY = struct.Struct("=HHH2x HH16s HH2s2x")  # family, address, port
_SETTINGS = struct.Struct("=HHI HHI HHI HHI")  # of a destination: forwarding, weight, the thresholds


class IpvsCommand(IntEnum):
    """IPVS_CMD_*, those that are used."""

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


class _CommandAttribute(IntEnum):  # IPVS_CMD_ATTR_*
    SERVICE, DEST, _DAEMON, TIMEOUT_TCP, TIMEOUT_TCP_FIN, TIMEOUT_UDP = range(1, 7)


class ServiceAttribute(IntEnum):
    """IPVS_SVC_ATTR_*."""

    AF, PROTOCOL, ADDR, PORT, FWMARK, SCHED_NAME, FLAGS, TIMEOUT, NETMASK, STATS = range(1, 11)


SERVICE = _CommandAttribute.SERVICE
"""Kind of the attribute that holds a service."""
_Svc: TypeAlias = ServiceAttribute
"""Short, for its use here."""


class DestinationAttribute(IntEnum):
    """IPVS_DEST_ATTR_*."""

    ADDR, PORT, FWD_METHOD, WEIGHT, U_THRESH, L_THRESH, ACTIVE_CONNS, INACT_CONNS, PERSIST_CONNS, _STATS, AF = range(
        1, 12
    )


_Dst: TypeAlias = DestinationAttribute
"""Short, for its use here."""
COUNTS = (_Dst.U_THRESH, _Dst.L_THRESH, _Dst.ACTIVE_CONNS, _Dst.INACT_CONNS, _Dst.PERSIST_CONNS)
"""What an old kernel may not tell; then it is 0."""


@dataclass(frozen=True, slots=True)
class IpvsService:
    """A virtual server as IPVS keeps it, without its real servers."""

    key: VirtualKey
    scheduler: str
    """The kernel's name; others than ours exist (`lblc`, `none`)."""
    flags: int = 0
    """IP_VS_SVC_F_*, without the kernel's own HASHED."""
    timeout: int = 0
    """Of persistence, seconds; without meaning if `flags` lack `PERSISTENT`."""
    prefix: int | None = None
    """How many bits of a client's address count for persistence; None: all."""


class IpvsDestination(NamedTuple):
    """A real server as IPVS keeps it; the connection counts are only read."""

    key: RealKey
    weight: int
    forwarding: int = MASQUERADE
    upper_threshold: int = 0
    lower_threshold: int = 0
    active: int = 0
    inactive: int = 0
    persistent: int = 0


@dataclass(frozen=True, slots=True)
class IpvsTimeouts:
    """How long IPVS remembers an idle connection, seconds; 0 when written: leave as it is."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


def new_service(service: IpvsService) -> NetlinkRequest:
    """Refused with EEXIST if the key is taken, ENOENT if the kernel lacks the scheduler."""
    return NetlinkRequest(IpvsCommand.NEW_SERVICE, _service(service))


def set_service(service: IpvsService) -> NetlinkRequest:
    """Refused with ESRCH if there is none."""
    return NetlinkRequest(IpvsCommand.SET_SERVICE, _service(service))


def delete_service(key: VirtualKey) -> NetlinkRequest:
    """Refused with ESRCH if there is none."""
    return NetlinkRequest(IpvsCommand.DEL_SERVICE, nest_attributes(_CommandAttribute.SERVICE, _service_key(key)))


def get_services() -> NetlinkRequest:
    """All of them; each reply is for `parse_service`."""
    return NetlinkRequest(IpvsCommand.GET_SERVICE, dump=True)


def get_service(key: VirtualKey) -> NetlinkRequest:
    """That one; the reply is for `parse_service`. Refused with ESRCH if there is none."""
    return NetlinkRequest(IpvsCommand.GET_SERVICE, nest_attributes(_CommandAttribute.SERVICE, _service_key(key)))


def new_destination(virtual: VirtualKey, destination: IpvsDestination) -> NetlinkRequest:
    """Refused with EEXIST if it is there, ESRCH without the service, EINVAL if the address is no unicast one."""
    return NetlinkRequest(IpvsCommand.NEW_DEST, _destination(virtual, destination))


def set_destination(virtual: VirtualKey, destination: IpvsDestination) -> NetlinkRequest:
    """Refused with ENOENT if it is not there, ESRCH without the service."""
    return NetlinkRequest(IpvsCommand.SET_DEST, _destination(virtual, destination))


def delete_destination(virtual: VirtualKey, real: RealKey) -> NetlinkRequest:
    """Refused with ENOENT if it is not there, ESRCH without the service."""
    body = nest_attributes(_CommandAttribute.SERVICE, _service_key(virtual)) + nest_attributes(
        _CommandAttribute.DEST, _destination_key(real)
    )
    return NetlinkRequest(IpvsCommand.DEL_DEST, body)


def get_destinations(virtual: VirtualKey) -> NetlinkRequest:
    """Those of one service, none if it is gone; each reply is for `parse_destination`."""
    return NetlinkRequest(
        IpvsCommand.GET_DEST, nest_attributes(_CommandAttribute.SERVICE, _service_key(virtual)), dump=True
    )


def get_config() -> NetlinkRequest:
    """The reply is for `parse_timeouts`."""
    return NetlinkRequest(IpvsCommand.GET_CONFIG)


def set_config(timeouts: IpvsTimeouts) -> NetlinkRequest:
    """The kernel leaves alone what is 0 here."""
    pairs = (
        (_CommandAttribute.TIMEOUT_TCP, timeouts.tcp),
        (_CommandAttribute.TIMEOUT_TCP_FIN, timeouts.tcp_fin),
        (_CommandAttribute.TIMEOUT_UDP, timeouts.udp),
    )
    return NetlinkRequest(
        IpvsCommand.SET_CONFIG, b"".join(pack_attribute(kind, U32.pack(value)) for kind, value in pairs if value)
    )


def get_info() -> NetlinkRequest:
    """The reply is for `parse_info`."""
    return NetlinkRequest(IpvsCommand.GET_INFO)


def parse_service(body: bytes) -> IpvsService | None:
    """None for what no `VirtualKey` can name: services of a firewall mark or of another protocol."""
    of = NetlinkAttributes(body).nested(_CommandAttribute.SERVICE)
    transport = _TRANSPORTS.get(of.number(U16, _Svc.PROTOCOL, default=0))
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
    """One real server, with its connection counts."""
    of = NetlinkAttributes(body).nested(_CommandAttribute.DEST)
    return IpvsDestination(
        RealKey(parse_address(of.raw(_Dst.ADDR, 16), of.number(U16, _Dst.AF)), of.number(PORT, _Dst.PORT)),
        of.number(U32, _Dst.WEIGHT),
        of.number(U32, _Dst.FWD_METHOD) & FORWARDING_MASK,
        *(of.number(U32, kind, default=0) for kind in COUNTS),
    )


def parse_timeouts(body: bytes) -> IpvsTimeouts:
    """The answer to `get_config`; what it does not name (a kernel without UDP in IPVS) is 0."""
    of = NetlinkAttributes(body)
    kinds = (_CommandAttribute.TIMEOUT_TCP, _CommandAttribute.TIMEOUT_TCP_FIN, _CommandAttribute.TIMEOUT_UDP)
    return IpvsTimeouts(*(of.number(U32, kind, default=0) for kind in kinds))


def parse_info(body: bytes) -> tuple[str, int]:
    """Version of IPVS (`1.2.1`) and size of its connection table."""
    of = NetlinkAttributes(body)
    version = of.number(U32, _INFO_VERSION)
    return f"{version >> 16 & 0xFF}.{version >> 8 & 0xFF}.{version & 0xFF}", of.number(U32, _INFO_TABLE_SIZE)


def _service(service: IpvsService) -> bytes:
    bits = 128 if ":" in service.key.address else 32
    prefix = bits if service.prefix is None else service.prefix
    # IPv4: a mask; IPv6: a prefix length in the same attribute
    netmask = U32.pack(prefix) if bits == 128 else (0xFFFFFFFF << 32 - prefix & 0xFFFFFFFF).to_bytes(4, "big")
    return nest_attributes(
        _CommandAttribute.SERVICE,
        _service_key(service.key)
        + pack_attribute(_Svc.SCHED_NAME, service.scheduler.encode() + b"\0")
        + pack_attribute(_Svc.FLAGS, _FLAGS.pack(service.flags, 0xFFFFFFFF))
        + pack_attribute(_Svc.TIMEOUT, U32.pack(service.timeout))
        + pack_attribute(_Svc.NETMASK, netmask),
    )


@lru_cache(4096)  # a service is named again with each of its destinations
def _service_key(key: VirtualKey) -> bytes:
    family, packed = _address(key.address)
    protocol, port = _PROTOCOLS[key.transport], PORT.pack(key.port)
    return _KEY.pack(6, _Svc.AF, family, 6, _Svc.PROTOCOL, protocol, 20, _Svc.ADDR, packed, 6, _Svc.PORT, port)


def _destination(virtual: VirtualKey, destination: IpvsDestination) -> bytes:
    settings = _SETTINGS.pack(
        8, _Dst.FWD_METHOD, destination.forwarding, 8, _Dst.WEIGHT, destination.weight,
        8, _Dst.U_THRESH, destination.upper_threshold, 8, _Dst.L_THRESH, destination.lower_threshold,
    )  # fmt: skip  # the kernel insists on the thresholds
    return nest_attributes(_CommandAttribute.SERVICE, _service_key(virtual)) + nest_attributes(
        _CommandAttribute.DEST, _destination_key(destination.key) + settings
    )


def _destination_key(key: RealKey) -> bytes:
    family, packed = _address(key.address)
    return _DESTINATION_KEY.pack(6, _Dst.AF, family, 20, _Dst.ADDR, packed, 6, _Dst.PORT, PORT.pack(key.port))


def _address(text: Address) -> tuple[int, bytes]:
    if ":" in text:
        return _INET6, IPv6Address(text).packed
    return _INET, bytes(map(int, text.split("."))).ljust(16, b"\0")


def parse_address(packed: bytes, family: int) -> Address:
    """The text of an address as IPVS packs it, in 16 octets for either family (AF_INET, AF_INET6)."""
    return str(IPv6Address(packed[:16])) if family == _INET6 else ".".join(map(str, packed[:4]))
