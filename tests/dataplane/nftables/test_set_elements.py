"""The kernel's messages about elements of sets, as bytes."""

import struct

import pytest

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.netlink import MalformedNetlinkError, nest_attributes, pack_attribute
from mesh.dataplane.nftables.set_elements import elements_request, parse_elements
from mesh.model.service import Transport
from mesh.model.table import RealKey, VirtualKey

WEB = VirtualKey("10.112.0.7", 80, Transport.TCP)


def key(number: int, protocol: int = 6) -> bytes:
    return struct.pack(">4sB3xH2x4sH2x", bytes([10, 112, 0, 7]), protocol, 80, bytes([10, 2, 0, number]), 8080)


def element(key: bytes, packets: int, size: int, *, swapped: bool = False, more: bytes = b"") -> bytes:
    numbers = [pack_attribute(1, struct.pack(">Q", size)), pack_attribute(2, struct.pack(">Q", packets))]
    counter = pack_attribute(1, b"counter\0") + nest_attributes(2, b"".join(numbers[:: -1 if swapped else 1]))
    return nest_attributes(1, nest_attributes(1, pack_attribute(1, key)) + nest_attributes(7, counter) + more)


def body(*elements: bytes) -> bytes:
    return pack_attribute(1, b"vipmesh_count\0") + pack_attribute(2, b"sent\0") + nest_attributes(3, b"".join(elements))


def backend(number: int) -> BackendKey:
    return WEB, RealKey(f"10.2.0.{number}", 8080)


def test_elements_of_several_messages_are_read() -> None:
    first = body(element(key(1), 3, 180), element(key(2), 1 << 40, 1 << 50))
    assert parse_elements(4, [first, body(), body(element(key(3), 0, 0))]) == {
        backend(1): (3, 180),
        backend(2): (1 << 40, 1 << 50),
        backend(3): (0, 0),
    }


def test_elements_of_any_layout_are_read() -> None:
    plain = nest_attributes(1, nest_attributes(1, pack_attribute(1, key(9))))
    flagged = element(key(4), 4, 40, more=pack_attribute(3, bytes(4)))
    mixed = [element(key(1), 1, 10), element(key(2), 2, 20, swapped=True), flagged, plain, element(key(3), 3, 30)]
    expected = {backend(1): (1, 10), backend(2): (2, 20), backend(4): (4, 40), backend(9): (0, 0), backend(3): (3, 30)}
    assert parse_elements(4, [body(*mixed)]) == expected
    assert parse_elements(4, [body(*reversed(mixed))]) == expected


def test_an_element_of_another_protocol_is_left_out() -> None:
    assert parse_elements(4, [body(element(key(1, 47), 3, 180), element(key(2), 1, 1))]) == {backend(2): (1, 1)}


def test_ipv6() -> None:
    packed = struct.pack(">16sB3xH2x16sH2x", bytes(15) + b"\7", 17, 53, bytes(15) + b"\1", 53)
    found = parse_elements(6, [body(element(packed, 1, 60))])
    assert found == {(VirtualKey("::7", 53, Transport.UDP), RealKey("::1", 53)): (1, 60)}


@pytest.mark.parametrize(
    "bad",
    [
        body(element(key(1)[:-4], 1, 1)),
        body(element(b"", 1, 1)),
        body(nest_attributes(1, b"")),
        body(element(key(1), 1, 1))[:-4],
        body(element(key(1), 1, 1), b"\0\0\0\0"),
    ],
)
def test_what_no_kernel_sends_is_refused(bad: bytes) -> None:
    with pytest.raises(MalformedNetlinkError):
        parse_elements(4, [bad])


def test_the_request_names_table_and_set() -> None:
    request = elements_request(6, "vipmesh_count", "sent", 7)
    length, kind, flags, sequence = struct.unpack_from("=IHHI", request)
    assert (length, kind, flags, sequence) == (len(request), 10 << 8 | 13, 0x301, 7)
    assert request[16] == 10
    assert request[20:].count(b"vipmesh_count\0") == request[20:].count(b"sent\0") == 1
