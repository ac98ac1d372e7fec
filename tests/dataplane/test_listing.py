"""Lists of real servers: the remembered layout gives what step by step gives, whatever comes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.ipvs.codec import parse_destination
from mesh.dataplane.ipvs.listing import DestinationParser
from mesh.dataplane.ipvs.wire import MalformedError, attribute, nest

U32 = struct.Struct("=I")
KINDS = {**dict.fromkeys(range(3, 10), U32), 2: struct.Struct(">H"), 11: struct.Struct("=H")}
"""Of linux/ip_vs.h, IPVS_DEST_ATTR_*: number and layout of all but the address."""


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A real server in one of a few layouts, some of which lack counts or have attributes that we do not know."""
    order = draw(st.sampled_from([(1, *KINDS), (11, 1, *range(2, 10)), (1, 2, 3, 4, 11), (1, *KINDS, 12)]))
    family = draw(st.sampled_from([2, 10]))
    body = b""
    for kind in order:
        if kind == 1:
            address = draw(st.binary(min_size=16, max_size=16))
            body += attribute(kind, address if family == 10 else address[:4] + bytes(12))
        elif kind == 11:
            body += attribute(kind, KINDS[kind].pack(family))
        elif kind == 12:
            body += attribute(kind, draw(st.binary(max_size=9)))
        else:
            body += attribute(kind, KINDS[kind].pack(draw(st.integers(0, 0xFFFF))))
    return nest(2, body)


@given(st.lists(messages(), max_size=9))
def test_it_gives_what_step_by_step_gives(bodies: list[bytes]) -> None:
    parse = DestinationParser()
    assert [parse(body) for body in bodies] == [parse_destination(body) for body in bodies]


@given(messages(), st.data())
def test_what_is_damaged_is_refused_as_step_by_step_is(body: bytes, data: st.DataObject) -> None:
    parse = DestinationParser()
    parse(body)
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
    try:
        expected = parse_destination(damaged)
    except (MalformedError, ValueError):
        with pytest.raises((MalformedError, ValueError)):
            parse(damaged)
    else:
        assert parse(damaged) == expected
