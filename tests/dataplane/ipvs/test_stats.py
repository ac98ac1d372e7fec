"""IPVS traffic counters of a virtual server, as kernels with and without 64-bit counters write them."""

import struct

import pytest

from mesh.dataplane.ipvs import messages as codec
from mesh.dataplane.ipvs.messages import IpvsDestination, IpvsService
from mesh.dataplane.ipvs.stats import parse_endpoint_traffic, parse_traffic
from mesh.dataplane.netlink import MalformedNetlinkError, NetlinkAttributes, nest_attributes, pack_attribute
from mesh.model.table import RealKey, TrafficCounters
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


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        (OLD, TrafficCounters(7, 400, 500)),
        (OLD + WIDE, TrafficCounters((1 << 32) + 1, (1 << 32) + 4, (1 << 32) + 5)),
    ],
)
def test_counters_of_a_real_server(stats: bytes, expected: TrafficCounters) -> None:
    real = IpvsDestination(RealKey("10.2.0.1", 8080), 3)
    attributes = NetlinkAttributes(codec.new_destination(WEB_KEY, real).body).raw(codec.DESTINATION)
    family = pack_attribute(11, struct.pack("=H", 2))
    written = nest_attributes(2, attributes + (b"" if NetlinkAttributes(attributes).has(11) else family) + stats)
    assert parse_endpoint_traffic(written) == (RealKey("10.2.0.1", 8080), expected)


def test_a_service_without_a_virtual_key_is_ignored() -> None:
    marked = pack_attribute(1, struct.pack("=H", 2)) + pack_attribute(5, struct.pack("=I", 9))
    assert parse_traffic(nest_attributes(1, marked + OLD)) is None


@pytest.mark.parametrize("cut", range(4, len(OLD), 4))
def test_truncated_counters_are_refused(cut: int) -> None:
    with pytest.raises(MalformedNetlinkError):
        parse_traffic(nest_attributes(1, KEY + OLD[:cut]))
