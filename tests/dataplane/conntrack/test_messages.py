"""Messages about tracked connections as bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.conntrack import messages
from mesh.dataplane.netlink import MalformedNetlinkError, nest_attributes, pack_attribute
from mesh.model.service import Transport
from mesh.model.table import RealKey, VirtualKey
from tests.builders import WEB_KEY

A = RealKey("10.2.0.1", 8080)


def tuples(source: tuple[int, ...], destination: tuple[int, ...], ports: tuple[int, int], number: int = 6) -> bytes:
    numbers = pack_attribute(1, bytes([number])) + pack_attribute(2, struct.pack(">H", ports[0]))
    return nest_attributes(
        1, pack_attribute(1, bytes(source)) + pack_attribute(2, bytes(destination))
    ) + nest_attributes(2, numbers + pack_attribute(3, struct.pack(">H", ports[1])))


def tracked(state: int, number: int = 6, status: int = 1 << 5) -> bytes:
    """A connection of 10.1.0.2 to the web VIP that A answers."""
    return (
        nest_attributes(1, tuples((10, 1, 0, 2), (10, 112, 0, 7), (40000, 80), number))
        + nest_attributes(2, tuples((10, 2, 0, 1), (10, 1, 0, 2), (8080, 40000), number))
        + pack_attribute(3, struct.pack(">I", status))
        + nest_attributes(4, nest_attributes(1, pack_attribute(1, bytes([state]))))
        + pack_attribute(12, b"\1\2\3\4")
    )


@pytest.mark.parametrize(
    ("number", "is_open"),
    [
        pytest.param(1, False, id="SYN_SENT"),
        pytest.param(3, True, id="ESTABLISHED"),
        pytest.param(5, True, id="CLOSE_WAIT: one side may still send"),
        pytest.param(7, False, id="TIME_WAIT"),
    ],
)
def test_a_tracked_connection_is_read(number: int, is_open: bool) -> None:
    entry = messages.parse_entry(tracked(number), {WEB_KEY})
    assert entry is not None
    assert (entry.virtual, entry.real, entry.translated, entry.open) == (WEB_KEY, A, True, is_open)
    assert entry.handle in messages.delete_request(entry, 1)


def test_entries_of_other_virtual_servers_are_left_out() -> None:
    assert messages.parse_entry(tracked(3), {VirtualKey("10.112.0.7", 81, Transport.TCP)}) is None
    assert messages.parse_entry(tracked(3, number=1), {WEB_KEY}) is None, "ICMP"


@given(st.integers(0, len(tracked(3)) - 1))
def test_a_message_that_is_cut_short_is_malformed_or_has_less_in_it(size: int) -> None:
    try:
        entry = messages.parse_entry(tracked(3)[:size], {WEB_KEY})
    except MalformedNetlinkError:
        return
    assert entry is None or not entry.open


@pytest.mark.parametrize(
    ("status", "translated", "answered"),
    [
        pytest.param(0, False, False, id="the first packet"),
        pytest.param(1 << 1, False, True, id="IPS_SEEN_REPLY"),
        pytest.param(1 << 5, True, False, id="IPS_DST_NAT"),
        pytest.param(1 << 1 | 1 << 5, True, True, id="both"),
    ],
)
def test_the_status_is_read(status: int, translated: bool, answered: bool) -> None:
    entry = messages.parse_entry(tracked(3, status=status), {WEB_KEY})
    assert entry is not None
    assert (entry.translated, entry.answered, entry.bypasses) == (translated, answered, False)
