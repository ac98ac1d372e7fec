"""IPVS's counts of what went through a virtual server, as kernels with and without wide ones write them."""

import struct

import pytest

from mesh.dataplane.ipvs import messages as codec
from mesh.dataplane.ipvs.messages import IpvsService
from mesh.dataplane.ipvs.stats import parse_traffic
from mesh.dataplane.netlink import MalformedNetlinkError, nest_attributes, pack_attribute
from mesh.model.service import Transport
from mesh.model.table import TrafficCounters, VirtualKey

WEB = VirtualKey("10.112.0.7", 80, Transport.TCP)
KEY = codec.new_service(IpvsService(WEB, "wrr")).body[4:]
OLD = nest_attributes(
    10,
    pack_attribute(1, struct.pack("=I", 7)) + b"".join(pack_attribute(k, struct.pack("=Q", k * 100)) for k in (4, 5)),
)
WIDE = nest_attributes(12, b"".join(pack_attribute(k, struct.pack("=Q", (1 << 32) + k)) for k in range(1, 11)))


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (OLD, TrafficCounters(7, 400, 500)),
        (OLD + WIDE, TrafficCounters((1 << 32) + 1, (1 << 32) + 4, (1 << 32) + 5)),
    ],
)
def test_what_the_kernel_counts(stats: bytes, expected: TrafficCounters) -> None:
    assert parse_traffic(nest_attributes(1, KEY + stats)) == (WEB, expected)


def test_what_no_key_can_name_is_passed_over() -> None:
    marked = pack_attribute(1, struct.pack("=H", 2)) + pack_attribute(5, struct.pack("=I", 9))
    assert parse_traffic(nest_attributes(1, marked + OLD)) is None


@pytest.mark.parametrize("cut", range(4, len(OLD), 4))
def test_what_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(MalformedNetlinkError):
        parse_traffic(nest_attributes(1, KEY + OLD[:cut]))
