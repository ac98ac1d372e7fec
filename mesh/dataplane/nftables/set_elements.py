"""Requests, parses and changes the elements of a set with their counters, from linux/netfilter/nf_tables.h. Pure.

nft takes seconds to print tens of thousands of elements. The kernel's own messages have the same layout for each
element of a set, so that only the first one is parsed attribute by attribute. To add them takes nft just as long.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address

from mesh.dataplane.conntrack.messages import address_family, build_batch_mark, build_request
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.netlink import (
    PROTOCOLS,
    TRANSPORTS,
    MalformedNetlinkError,
    NetlinkAttributes,
    attribute_positions,
    nest_attributes,
    pack_attribute,
)
from mesh.dataplane.nftables.traffic_counters import COUNTER_SETS, COUNTER_TABLE, CounterChange, CounterStep
from mesh.model.table import RealKey, VirtualKey

_GET_ELEMENTS = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_NEW_ELEMENTS, _DELETE_ELEMENTS = 10 << 8 | 12, 10 << 8 | 14  # NFT_MSG_*SETELEM
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_F_ACK, _F_DUMP = 0x4, 0x300
_PER_MESSAGE = 500
"""Elements of one message: an attribute has at most 64 KiB, and an IPv6 element with a counter 100 bytes."""
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1  # NFTA_SET_ELEM_LIST_*, NFTA_LIST_ELEM
_KEY, _EXPRESSION, _VALUE, _NAME, _DATA = 1, 7, 1, 1, 2  # NFTA_SET_ELEM_*, NFTA_DATA_VALUE, NFTA_EXPR_*
_BYTE_COUNT, _PACKET_COUNT = 1, 2  # NFTA_COUNTER_*
_KEPT_KEYS = 1 << 17
"""Keys that are kept."""
_U64 = struct.Struct(">Q")
_KEYS = {version: struct.Struct(f">{size}sB3xH2x{size}sH2x") for version, size in ((4, 4), (6, 16))}
"""The key of an element: each part fills a multiple of four bytes."""


def elements_request(version: int, table: str, name: str, sequence: int) -> bytes:
    """Return the request for all elements of a set."""
    body = pack_attribute(_TABLE, f"{table}\0".encode()) + pack_attribute(_SET, f"{name}\0".encode())
    return build_request(_GET_ELEMENTS, address_family(version), sequence, body, _F_DUMP)


def parse_elements(
    version: int, bodies: Iterable[bytes], known: dict[bytes, BackendKey | None] | None = None
) -> dict[BackendKey, tuple[int, int]]:
    """Return packets and bytes of each real server behind each virtual server; other elements are left out.

    `bodies` are the kernel's replies. `known` keeps what the keys of earlier elements stand for: most are read again
    and again. Raises `MalformedNetlinkError`.
    """
    known = {} if known is None else known
    if len(known) > _KEPT_KEYS:
        known.clear()
    found: dict[BackendKey, tuple[int, int]] = {}
    for key, packets, size in _elements(bodies):
        if key not in known:
            known[key] = _backend(version, key)
        backend = known[key]
        if backend is not None:
            found[backend] = (packets, size)
    return found


def _backend(version: int, key: bytes) -> BackendKey | None:
    """Return what an element stands for; None for another protocol. Raises `MalformedNetlinkError`."""
    layout = _KEYS[version]
    if len(key) != layout.size:
        raise MalformedNetlinkError(f"an element's key has {len(key)} bytes")
    address, number, port, real_address, real_port = layout.unpack(key)
    transport = TRANSPORTS.get(number)
    if transport is None:
        return None
    return VirtualKey(_text(address), port, transport), RealKey(_text(real_address), real_port)


def batch_request(version: int, changes: Iterable[CounterChange], sequence: int) -> bytes:
    """Return one transaction that makes the changes of the elements of all sets.

    All its messages have the same sequence number. The last one is acknowledged; an error is reported before that.
    """
    family = address_family(version)
    messages = [
        (kind, pack_attribute(_TABLE, f"{COUNTER_TABLE}\0".encode()) + body)
        for change in changes
        for step in change.steps
        for kind, body in _step(version, step)
    ]
    last = len(messages) - 1
    requests = [
        build_request(kind, family, sequence, body, _F_ACK if index == last else 0)
        for index, (kind, body) in enumerate(messages)
    ]
    begin, end = (build_batch_mark(kind, _SUBSYSTEM, sequence) for kind in (_BATCH_BEGIN, _BATCH_END))
    return b"".join([begin, *requests, end])


def _step(version: int, step: CounterStep) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of each message of a step, without the table."""
    kind = _DELETE_ELEMENTS if step.deleted else _NEW_ELEMENTS
    keys = [nest_attributes(_KEY, pack_attribute(_VALUE, _key(version, backend))) for backend in step.backends]
    for name in COUNTER_SETS:
        counter = b"" if step.counts is None else _counter(*step.counts[name])
        for start in range(0, len(keys), _PER_MESSAGE):
            listed = b"".join(nest_attributes(_ELEMENT, key + counter) for key in keys[start : start + _PER_MESSAGE])
            yield kind, pack_attribute(_SET, f"{name}\0".encode()) + nest_attributes(_ELEMENTS, listed)


def _key(version: int, backend: BackendKey) -> bytes:
    key, real = backend
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    address, real_address = (socket.inet_pton(family, text) for text in (key.address, real.address))
    return _KEYS[version].pack(address, PROTOCOLS[key.transport], key.port, real_address, real.port)


def _counter(packets: int, size: int) -> bytes:
    """Return the expression of a counter."""
    numbers = pack_attribute(_BYTE_COUNT, _U64.pack(size)) + pack_attribute(_PACKET_COUNT, _U64.pack(packets))
    return nest_attributes(_EXPRESSION, pack_attribute(_NAME, b"counter\0") + nest_attributes(_DATA, numbers))


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
