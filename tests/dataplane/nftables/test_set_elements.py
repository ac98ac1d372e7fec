"""The kernel's messages about elements of sets, as bytes."""

import struct

import pytest

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.netlink import MalformedNetlinkError, nest_attributes, pack_attribute
from mesh.dataplane.nftables.set_elements import batch_request, elements_request, parse_elements
from mesh.dataplane.nftables.traffic_counters import COUNTER_SETS, CounterChange, CounterStep
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


def requests(changes: list[CounterChange], version: int = 4) -> list[tuple[int, int, bytes]]:
    """Kind, flags and the rest of each message of a transaction; all have the same sequence number."""
    data, found = batch_request(version, changes, 7), []
    while data:
        length, kind, flags, sequence = struct.unpack_from("=IHHI", data)
        assert sequence == 7
        found.append((kind, flags, data[16:length]))
        data = data[length:]
    return found


def test_a_transaction_has_each_step_for_each_set_in_order_and_its_last_message_is_acknowledged() -> None:
    steps = (CounterStep([backend(1)]), CounterStep([backend(1), backend(2)], deleted=True))
    begin, *between, end = requests([CounterChange(WEB, steps)])
    assert (begin, end) == ((0x10, 1, bytes([0, 0, 0, 10])), (0x11, 1, bytes([0, 0, 0, 10])))
    assert [kind & 0xFF for kind, *_ in between] == [12] * 3 + [14] * 3
    assert [flags for _, flags, _ in between] == [1] * 5 + [5]
    for (_, _, content), name in zip(between, 2 * COUNTER_SETS, strict=True):
        assert f"{name}\0".encode() in content
        assert key(1) in content
    assert [key(2) in content for _, _, content in between] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_written_is_read_back_and_no_attribute_is_too_long(version: int) -> None:
    address = "10.112.0.7" if version == 4 else "fd00::7"
    server = VirtualKey(address, 80, Transport.SCTP)
    backends = [(server, RealKey(address, port)) for port in range(1, 2000)]
    counts = {name: (number, 1 << 40) for number, name in enumerate(COUNTER_SETS, 1)}
    _, *between, _ = requests([CounterChange(server, (CounterStep(backends, counts=counts),))], version)
    for name in COUNTER_SETS:
        bodies = [content[4:] for _, _, content in between if f"{name}\0".encode() in content]
        assert len(bodies) == 4
        assert parse_elements(version, bodies) == dict.fromkeys(backends, counts[name])


def test_keys_that_are_read_again_are_known() -> None:
    known: dict[bytes, BackendKey | None] = {}
    first = parse_elements(4, [body(element(key(1), 3, 180), element(key(1, 47), 1, 1))], known)
    again = parse_elements(4, [body(element(key(1), 4, 240))], known)
    assert [*first] == [*again] == [backend(1)]
    assert known == {key(1): backend(1), key(1, 47): None}
