"""Requests and parses the elements of a set with their counters, from linux/netfilter/nf_tables.h. Pure.

nft takes seconds to print tens of thousands of elements. The kernel's own messages have the same layout for each
element of a set, so that only the first one is parsed attribute by attribute.
"""

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address

from mesh.dataplane.conntrack.messages import address_family, build_request
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.netlink import (
    TRANSPORTS,
    MalformedNetlinkError,
    NetlinkAttributes,
    attribute_positions,
    pack_attribute,
)
from mesh.model.table import RealKey, VirtualKey

_GET_ELEMENTS = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_F_DUMP = 0x300
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_KEY, _EXPRESSION, _VALUE, _NAME, _DATA = 1, 7, 1, 1, 2  # NFTA_SET_ELEM_*, NFTA_DATA_VALUE, NFTA_EXPR_*
_BYTE_COUNT, _PACKET_COUNT = 1, 2  # NFTA_COUNTER_*
_U64 = struct.Struct(">Q")
_KEYS = {version: struct.Struct(f">{size}sB3xH2x{size}sH2x") for version, size in ((4, 4), (6, 16))}
"""The key of an element: each part fills a multiple of four bytes."""


def elements_request(version: int, table: str, name: str, sequence: int) -> bytes:
    """Return the request for all elements of a set."""
    body = pack_attribute(_TABLE, f"{table}\0".encode()) + pack_attribute(_SET, f"{name}\0".encode())
    return build_request(_GET_ELEMENTS, address_family(version), sequence, body, _F_DUMP)


def parse_elements(version: int, bodies: Iterable[bytes]) -> dict[BackendKey, tuple[int, int]]:
    """Return packets and bytes of each real server behind each virtual server; other elements are left out.

    `bodies` are the kernel's replies. Raises `MalformedNetlinkError`.
    """
    layout = _KEYS[version]
    found: dict[BackendKey, tuple[int, int]] = {}
    for key, packets, size in _elements(bodies):
        if len(key) != layout.size:
            raise MalformedNetlinkError(f"an element's key has {len(key)} bytes")
        address, number, port, real_address, real_port = layout.unpack(key)
        transport = TRANSPORTS.get(number)
        if transport is not None:
            virtual = VirtualKey(_text(address), port, transport)
            found[virtual, RealKey(_text(real_address), real_port)] = (packets, size)
    return found


def _elements(bodies: Iterable[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield key, packets and bytes of each element."""
    learned: tuple[struct.Struct, tuple[bytes, ...]] | None = None
    for body in bodies:
        attributes = NetlinkAttributes(body)
        if not attributes.has(_ELEMENTS):
            continue
        listed = attributes.raw(_ELEMENTS)
        for _, start, size in attribute_positions(listed):
            element = listed[start : start + size]
            if learned is not None and learned[0].size == size:
                before, key, between, octets, gap, packets, after = learned[0].unpack(element)
                if (before, between, gap, after) == learned[1]:
                    yield key, packets, octets
                    continue
            yield _element(element)
            learned = _learn(element) or learned


def _element(element: bytes) -> tuple[bytes, int, int]:
    """Parse one element attribute by attribute; one without a counter has counted nothing."""
    of = NetlinkAttributes(element)
    key = of.nested(_KEY).raw(_VALUE)
    if not of.has(_EXPRESSION) or of.nested(_EXPRESSION).text(_NAME) != "counter":
        return key, 0, 0
    counter = of.nested(_EXPRESSION).nested(_DATA)
    return key, counter.number(_U64, _PACKET_COUNT), counter.number(_U64, _BYTE_COUNT)


def _learn(element: bytes) -> tuple[struct.Struct, tuple[bytes, ...]] | None:
    """Return the layout of an element, and the bytes around its key and its numbers; None for an unexpected one."""
    key = _find(element, _KEY, _VALUE)
    octets, packets = (_find(element, _EXPRESSION, _DATA, number) for number in (_BYTE_COUNT, _PACKET_COUNT))
    if key is None or octets is None or packets is None or octets[1:] != (8,) or packets[1:] != (8,):
        return None
    gaps = (key[0], octets[0] - sum(key), packets[0] - octets[0] - 8, len(element) - packets[0] - 8)
    if min(gaps) < 0:
        return None
    layout = struct.Struct(f">{gaps[0]}s{key[1]}s{gaps[1]}sQ{gaps[2]}sQ{gaps[3]}s")
    before, _, between, _, gap, _, after = layout.unpack(element)
    return layout, (before, between, gap, after)


def _find(data: bytes, *kinds: int) -> tuple[int, int] | None:
    """Return where the payload of a nested attribute starts, and its size; None if there is none."""
    start, size = 0, len(data)
    for kind in kinds:
        found = {k: (at, length) for k, at, length in attribute_positions(data[: start + size], start)}
        if kind not in found:
            return None
        start, size = found[kind]
    return start, size


def _text(packed: bytes) -> str:
    return ".".join(map(str, packed)) if len(packed) == 4 else str(IPv6Address(packed))
