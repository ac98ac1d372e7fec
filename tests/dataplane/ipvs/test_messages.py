"""The bytes of IPVS netlink messages: as ipvsadm sends them, and round trips of any values."""

import errno
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.ipvs import messages as codec
from mesh.dataplane.ipvs.messages import PERSISTENT, IpvsCommand, IpvsDestination, IpvsService, IpvsTimeouts
from mesh.dataplane.netlink import (
    MalformedNetlinkError,
    NetlinkAck,
    NetlinkReply,
    NetlinkRequest,
    nest_attributes,
    pack_attribute,
    pack_message,
    unpack_messages,
)
from mesh.model.service import Scheduler, Transport
from mesh.model.table import RealKey, VirtualKey
from tests.builders import WEB_KEY

NAMES = VirtualKey("fd00::7", 53, Transport.UDP)
BACKEND = RealKey("10.2.0.1", 8080)

WEB_KEY_BYTES = (
    "06000100 02000000"  # AF: inet
    "06000200 06000000"  # protocol: TCP
    "14000300 0a700007 00000000 00000000 00000000"
    "06000400 00500000"  # port 80, big endian
)
BACKEND_KEY_BYTES = "06000b00 02000000 14000100 0a020001 00000000 00000000 00000000 06000200 1f900000"

HEADER = struct.Struct("=IHHII")


@pytest.mark.parametrize(
    ("request_", "command", "body"),
    [
        pytest.param(
            codec.new_service(IpvsService(WEB_KEY, "wrr", PERSISTENT, 360)),
            1,
            "54000180" + WEB_KEY_BYTES + "08000600 77727200"  # wrr
            "0c000700 01000000 ffffffff 08000800 68010000 08000900 ffffffff",
            id="ipvsadm -A -t 10.112.0.7:80 -s wrr -p 360",
        ),
        pytest.param(
            codec.new_service(IpvsService(NAMES, "rr")),
            1,
            "54000180 06000100 0a000000 06000200 11000000 14000300 fd000000 00000000 00000000 00000007"
            "06000400 00350000 07000600 72720000 0c000700 00000000 ffffffff 08000800 00000000 08000900 80000000",
            id="ipvsadm -A -u [fd00::7]:53 -s rr",
        ),
        pytest.param(
            codec.set_config(IpvsTimeouts(7200, 0, 0)),
            12,
            "08000400 201c0000",
            id="ipvsadm --set 7200 0 0, without the zeroes",
        ),
        pytest.param(codec.get_info(), 15, "", id="what ipvsadm asks first"),
        pytest.param(codec.delete_service(WEB_KEY), 3, "30000180" + WEB_KEY_BYTES, id="delete service: the key alone"),
        pytest.param(
            codec.delete_destination(WEB_KEY, BACKEND),
            7,
            "30000180" + WEB_KEY_BYTES + "28000280" + BACKEND_KEY_BYTES,
            id="delete destination: the keys alone",
        ),
        pytest.param(
            codec.set_destination(WEB_KEY, IpvsDestination(BACKEND, 3)),
            6,
            "30000180" + WEB_KEY_BYTES + "48000280" + BACKEND_KEY_BYTES + "08000300 00000000 08000400 03000000"
            "08000500 00000000 08000600 00000000",
            id="set destination: masqueraded, weight 3, no thresholds",
        ),
    ],
)
@pytest.mark.skipif(
    struct.pack("=H", 1) != b"\x01\x00", reason="the literal bytes are those of a little-endian machine"
)
def test_literal_bytes(request_: NetlinkRequest, command: int, body: str) -> None:
    assert request_.command == command
    assert request_.body.hex() == bytes.fromhex(body).hex()


def test_a_message_is_a_netlink_and_a_generic_header_and_the_body() -> None:
    message = pack_message(codec.delete_service(WEB_KEY), family=28, sequence=7)

    assert HEADER.unpack_from(message) == (len(message), 28, 0x1 | 0x4, 7, 0)  # REQUEST | ACK
    assert message[16:20] == bytes([IpvsCommand.DEL_SERVICE, 1, 0, 0])
    assert message[20:] == codec.delete_service(WEB_KEY).body


def test_a_list_is_requested_without_an_acknowledgement() -> None:
    message = pack_message(codec.get_services(), family=28, sequence=7)

    assert HEADER.unpack_from(message)[2] == 0x1 | 0x300  # REQUEST | DUMP


addresses = {4: st.ip_addresses(v=4).map(str), 6: st.ip_addresses(v=6).map(str)}
ports = st.integers(0, 0xFFFF)
numbers = st.integers(0, 0x7FFFFFFF)


@st.composite
def services(draw: st.DrawFn) -> IpvsService:
    version = draw(st.sampled_from((4, 6)))
    return IpvsService(
        key=VirtualKey(draw(addresses[version]), draw(ports), draw(st.sampled_from(Transport))),
        scheduler=draw(st.sampled_from(Scheduler) | st.just("lblcr")),
        flags=draw(st.sampled_from((0, PERSISTENT, 4, 0x18))),
        timeout=draw(numbers),
        prefix=draw(st.none() | st.integers(1, 31)),
    )


@given(services())
def test_a_service_survives_a_round_trip(service: IpvsService) -> None:
    for request in (codec.new_service(service), codec.set_service(service)):
        assert codec.parse_service(request.body) == service


@given(services(), numbers, st.sampled_from((4, 6)).flatmap(lambda version: addresses[version]), ports)
def test_a_destination_survives_a_round_trip(service: IpvsService, weight: int, address: str, port: int) -> None:
    destination = IpvsDestination(RealKey(address, port), weight)

    for encode in (codec.new_destination, codec.set_destination):
        body = encode(service.key, destination).body
        assert codec.parse_destination(body) == destination


@given(st.builds(IpvsTimeouts, numbers, numbers, numbers))
def test_timeouts_survive_a_round_trip(timeouts: IpvsTimeouts) -> None:
    assert codec.parse_timeouts(codec.set_config(timeouts).body) == timeouts


def test_the_kernels_own_flag_is_no_part_of_a_service() -> None:
    service = IpvsService(WEB_KEY, "rr")
    listed = codec.new_service(replace(service, flags=2)).body  # IP_VS_SVC_F_HASHED

    assert codec.parse_service(listed) == service


def test_connection_counts_are_read() -> None:
    keys = codec.new_destination(WEB_KEY, IpvsDestination(BACKEND, 3)).body[0x30 + 4 :]
    counts = b"".join(pack_attribute(kind, struct.pack("=I", count)) for kind, count in ((7, 11), (8, 12), (9, 13)))

    listed = codec.parse_destination(nest_attributes(2, keys + counts))

    assert listed == IpvsDestination(BACKEND, 3, codec.MASQUERADE, active=11, inactive=12, persistent=13)


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(pack_attribute(1, b"\x02\0") + pack_attribute(5, struct.pack("=I", 77)), id="of a firewall mark"),
        pytest.param(pack_attribute(1, b"\x02\0") + pack_attribute(2, struct.pack("=H", 50)), id="of no port"),
    ],
)
def test_a_service_that_no_key_can_name_is_none(inner: bytes) -> None:
    assert codec.parse_service(nest_attributes(1, inner)) is None


def test_info_is_a_version_and_a_size() -> None:
    body = pack_attribute(1, struct.pack("=I", 0x010201)) + pack_attribute(2, struct.pack("=I", 4096))

    assert codec.parse_info(body) == ("1.2.1", 4096)


def message(kind: int, payload: bytes, flags: int = 0, sequence: int = 5) -> bytes:
    return (HEADER.pack(16 + len(payload), kind, flags, sequence, 99) + payload).ljust(
        (16 + len(payload) + 3) & ~3, b"\0"
    )


REFUSED = HEADER.pack(60, 28, 5, 5, 99)
WORDS = pack_attribute(1, b"no such thing\0")


@pytest.mark.parametrize(
    ("datagram", "answers"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(message(2, struct.pack("=i", 0) + REFUSED, 0x100), [NetlinkAck(5)], id="acknowledged"),
        pytest.param(
            message(2, struct.pack("=i", -17) + REFUSED, 0x100),
            [NetlinkAck(5, errno.EEXIST)],
            id="refused without words",
        ),
        pytest.param(
            message(2, struct.pack("=i", -22) + REFUSED + WORDS, 0x300),
            [NetlinkAck(5, errno.EINVAL, "no such thing")],
            id="refused with words, the message capped",
        ),
        pytest.param(
            message(2, struct.pack("=i", -22) + REFUSED + bytes(44) + WORDS, 0x200),
            [NetlinkAck(5, errno.EINVAL, "no such thing")],
            id="refused with words after the whole message",
        ),
        pytest.param(message(3, struct.pack("=i", 0)), [NetlinkAck(5)], id="end of a list"),
        pytest.param(
            message(3, struct.pack("=i", 0), 0x10), [NetlinkAck(5, interrupted=True)], id="end of an interrupted list"
        ),
        pytest.param(
            message(28, b"\x01\x01\0\0body!") + message(28, b"\x01\x01\0\0more", 2, 6),
            [NetlinkReply(5, 1, b"body!"), NetlinkReply(6, 1, b"more")],
            id="two replies in a datagram, the first padded",
        ),
    ],
)
def test_answers(datagram: bytes, answers: list[NetlinkAck | NetlinkReply]) -> None:
    assert list(unpack_messages(datagram)) == answers


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"\0" * 7, id="half a header"),
        pytest.param(HEADER.pack(400, 28, 0, 5, 99) + b"1234", id="longer than the datagram"),
        pytest.param(HEADER.pack(16, 28, 0, 5, 99), id="without a payload"),
        pytest.param(message(2, struct.pack("=i", -22) + REFUSED + b"\x40\0\x01\0", 0x300), id="broken words"),
    ],
)
def test_bytes_that_are_no_netlink_reply(datagram: bytes) -> None:
    with pytest.raises(MalformedNetlinkError):
        list(unpack_messages(datagram))


@given(services(), st.data())
def test_a_truncated_body_is_malformed(service: IpvsService, data: st.DataObject) -> None:
    body = codec.new_service(service).body
    cut = body[: data.draw(st.integers(0, len(body) - 1))]

    with pytest.raises(MalformedNetlinkError):
        codec.parse_service(cut)


@given(st.binary(max_size=200))
def test_noise_is_an_answer_or_malformed(noise: bytes) -> None:
    try:
        list(unpack_messages(noise))
    except MalformedNetlinkError:
        return


@given(st.binary(max_size=100))
def test_noise_in_a_service_is_malformed_or_none(noise: bytes) -> None:
    try:
        codec.parse_service(nest_attributes(1, noise))
    except MalformedNetlinkError:
        return
