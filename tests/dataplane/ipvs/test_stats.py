"""IPVS traffic counters of a virtual server, as kernels with and without 64-bit counters write them."""

import struct

import pytest

from mesh.dataplane.ipvs import messages as codec
from mesh.dataplane.ipvs.messages import IpvsService
from mesh.dataplane.ipvs.stats import parse_traffic
from mesh.dataplane.netlink import MalformedNetlinkError, nest_attributes, pack_attribute
from mesh.model.table import TrafficCounters
from tests.builders import WEB_KEY

KEY = codec.new_service(IpvsService(WEB_KEY, "wrr")).body[4:]
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
def test_counters_of_the_kernel(stats: bytes, expected: TrafficCounters) -> None:
    assert parse_traffic(nest_attributes(1, KEY + stats)) == (WEB_KEY, expected)


def test_a_service_without_a_virtual_key_is_ignored() -> None:
    marked = pack_attribute(1, struct.pack("=H", 2)) + pack_attribute(5, struct.pack("=I", 9))
    assert parse_traffic(nest_attributes(1, marked + OLD)) is None


@pytest.mark.parametrize("cut", range(4, len(OLD), 4))
def test_truncated_counters_are_refused(cut: int) -> None:
    with pytest.raises(MalformedNetlinkError):
        parse_traffic(nest_attributes(1, KEY + OLD[:cut]))
