"""Lists of real servers: the parser with a remembered layout gives the same result as the step-by-step parser."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.ipvs.fast_parse import DestinationParser, ServiceParser
from mesh.dataplane.ipvs.messages import parse_destination, parse_service
from mesh.dataplane.netlink import (
    MalformedNetlinkError,
    NetlinkReply,
    NetlinkRequest,
    attribute_positions,
    list_entries,
    nest_attributes,
    pack_attribute,
    pack_message,
    unpack_messages,
)

U32 = struct.Struct("=I")
KINDS = {**dict.fromkeys(range(3, 10), U32), 2: struct.Struct(">H"), 11: struct.Struct("=H")}
"""Of linux/ip_vs.h, IPVS_DEST_ATTR_*: number and layout of all but the address."""
KERNEL = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 10, 12)
"""The order in which ip_vs_genl_fill_dest of net/netfilter/ipvs/ip_vs_ctl.c writes them; statistics last."""
STATISTICS = (10, 12)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A real server in one of a few layouts, some of which lack counts or have attributes that we do not know."""
    order = draw(
        st.sampled_from([KERNEL, KERNEL, (1, *KINDS), (11, 1, *range(2, 10)), (1, 2, 3, 4, 11), (1, *KINDS, 12)])
    )
    family = draw(st.sampled_from([2, 10]))
    body = b""
    for kind in order:
        if kind == 1:
            address = draw(st.binary(min_size=16, max_size=16))
            body += pack_attribute(kind, address if family == 10 else address[:4] + bytes(12))
        elif kind == 11:
            body += pack_attribute(kind, KINDS[kind].pack(family))
        elif kind in STATISTICS:
            body += pack_attribute(kind, draw(st.binary(min_size=8, max_size=8)))
        else:
            body += pack_attribute(kind, KINDS[kind].pack(draw(st.integers(0, 0xFFFF))))
    return nest_attributes(2, body)


@given(st.lists(messages(), max_size=9))
def test_the_fast_parser_equals_the_step_by_step_parser(bodies: list[bytes]) -> None:
    parse = DestinationParser()
    assert [parse(body) for body in bodies] == [parse_destination(body) for body in bodies]


@given(messages(), st.data())
def test_damaged_entries_are_refused_like_by_the_step_by_step_parser(body: bytes, data: st.DataObject) -> None:
    parse = DestinationParser()
    parse(body)
    looked_at = (
        min((start for kind, start, _ in attribute_positions(body, 4) if kind in STATISTICS), default=len(body) + 4) - 4
    )
    at = data.draw(st.integers(0, looked_at - 1))
    damaged = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
    try:
        expected = parse_destination(damaged)
    except (MalformedNetlinkError, ValueError):
        with pytest.raises((MalformedNetlinkError, ValueError)):
            parse(damaged)
    else:
        assert parse(damaged) == expected


def destination(address: bytes, weight: int = 1, active: int = 0, statistics: bytes = bytes(8)) -> bytes:
    """As a kernel writes it."""
    values = {kind: layout.pack(0) for kind, layout in KINDS.items()}
    values |= {1: address + bytes(12), 4: U32.pack(weight), 7: U32.pack(active), 11: KINDS[11].pack(2)}
    values |= dict.fromkeys(STATISTICS, statistics)
    return nest_attributes(2, b"".join(pack_attribute(kind, values[kind]) for kind in KERNEL))


def test_known_entries_are_reused_and_changes_are_noticed() -> None:
    parse = DestinationParser()
    first, second = destination(b"\x0a\2\0\1"), destination(b"\x0a\2\0\2")
    assert parse(first) == parse_destination(first)
    known = parse(second)
    assert parse(second) is known, "not made again"
    assert parse(destination(b"\x0a\2\0\2", statistics=b"12345678")) is known
    assert parse(destination(b"\x0a\2\0\2", active=7)) == known._replace(active=7)
    assert parse(destination(b"\x0a\2\0\2", active=7)).key is known.key
    assert parse(destination(b"\x0a\2\0\2", weight=0)) == known._replace(weight=0)
    assert parse(second) is known


def service_entry(port: int, scheduler: bytes = b"wrr\0", statistics: bytes = bytes(8)) -> bytes:
    """As ip_vs_genl_fill_service writes it."""
    number = struct.Struct("=I")
    fields = (
        (1, struct.pack("=H", 2)),
        (2, struct.pack("=H", 6)),
        (3, b"\x0a\x70\0\1" + bytes(12)),
        (4, struct.pack(">H", port)),
        (6, scheduler),
        (7, struct.pack("=II", 2, 0xFFFFFFFF)),
        (8, number.pack(0)),
        (9, b"\xff" * 4),
        (10, statistics),
    )
    return nest_attributes(1, b"".join(pack_attribute(kind, value) for kind, value in fields))


def test_services_are_parsed_alike() -> None:
    parse = ServiceParser()
    known = parse(service_entry(80))
    assert known == parse_service(service_entry(80))
    assert parse(service_entry(80, statistics=b"12345678")) is known
    assert parse(service_entry(443)) == parse_service(service_entry(443))
    assert parse(service_entry(80, b"sh\0")) == parse_service(service_entry(80, b"sh\0"))


@given(st.lists(st.binary(max_size=40), max_size=5), st.booleans(), st.integers(0, 3), st.integers(0, 24))
def test_entries_of_a_list_equal_those_of_unpack(bodies: list[bytes], alike: bool, sequence: int, cut: int) -> None:
    bodies = [bodies[0] for _ in bodies] if alike else bodies
    messages = [pack_message(NetlinkRequest(5, body), 32, sequence) for body in bodies]
    datagram = b"".join(message + bytes(-len(message) & 3) for message in messages)
    datagram = datagram[: len(datagram) - cut]
    found = list_entries(datagram, 1)
    if found is not None:
        assert [NetlinkReply(1, 5, body) for body in found] == list(unpack_messages(datagram))
    if alike and bodies and not cut and sequence == 1 and len(bodies[0]) % 4 == 0:
        assert found == bodies
    if sequence != 1:
        assert found is None
