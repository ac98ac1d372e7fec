"""What is counted, from texts alone."""

import json

import pytest

from mesh.dataplane.nftables.traffic_counters import (
    CounterListing,
    CounterListingError,
    count_commands,
    counter_script,
    is_counted_alike,
    parse_counters,
    repair_commands,
)
from mesh.model.service import Transport
from mesh.model.table import RealKey, RealServer, TrafficCounters, VirtualKey, VirtualServer

WEB = VirtualKey("10.112.0.7", 80, Transport.TCP)
NAMES = VirtualKey("10.112.0.7", 53, Transport.UDP)
ONE = RealKey("10.2.0.1", 80)
SERVING = VirtualServer(real_servers={ONE: RealServer()})
REFUSING = VirtualServer(real_servers={ONE: RealServer(0)})


def listing(**sets: dict[VirtualKey, tuple[int, int]]) -> CounterListing:
    refusing = frozenset(sets.pop("refusing", {}))
    return CounterListing(sets, refusing)


ALL = listing(opened={WEB: (3, 180)}, received={WEB: (9, 900)}, sent={WEB: (8, 8000)})


def test_the_first_packets_count_as_received() -> None:
    assert ALL.traffic(WEB) == TrafficCounters(3, 1080, 8000)
    assert ALL.traffic(NAMES) == TrafficCounters()


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        (SERVING, VirtualServer(real_servers={ONE: RealServer(7), RealKey("10.2.0.2", 80): RealServer()}), True),
        (REFUSING, VirtualServer(), True),
        (SERVING, REFUSING, False),
        (REFUSING, SERVING, False),
        (None, SERVING, False),
        (SERVING, None, False),
    ],
)
def test_most_changes_leave_the_elements(
    before: VirtualServer | None, after: VirtualServer | None, alike: bool
) -> None:
    assert is_counted_alike(before, after) is alike


@pytest.mark.parametrize(
    ("found", "servers", "due"),
    [
        pytest.param(ALL, {WEB: SERVING}, [], id="as it must be"),
        pytest.param(ALL, {WEB: SERVING, NAMES: SERVING}, count_commands(4, NAMES, SERVING), id="one is missing"),
        pytest.param(ALL, {}, count_commands(4, WEB, None), id="one is gone"),
        pytest.param(ALL, {WEB: REFUSING}, count_commands(4, WEB, REFUSING), id="it refuses now"),
        pytest.param(
            CounterListing(ALL.counters, frozenset({WEB})),
            {WEB: SERVING},
            count_commands(4, WEB, SERVING),
            id="serves now",
        ),
        pytest.param(
            listing(opened={WEB: (3, 180)}, received={}, sent={WEB: (0, 0)}),
            {WEB: SERVING},
            count_commands(4, WEB, SERVING),
            id="an element of one set is missing",
        ),
        pytest.param(
            listing(refusing={NAMES: (0, 0)}), {}, count_commands(4, NAMES, None), id="a refusing one is gone"
        ),
    ],
)
def test_repairs(found: CounterListing, servers: dict[VirtualKey, VirtualServer], due: list[str]) -> None:
    assert repair_commands(4, found, servers) == due


def test_every_version_has_its_own_words() -> None:
    assert all(" ip6 vipmesh_count" in line for line in counter_script(6))
    assert not any("ipv4_addr" in line or " ip daddr" in line for line in counter_script(6))
    key = VirtualKey("fd00::7", 80, Transport.TCP)
    assert "add element ip6 vipmesh_count opened { fd00::7 . 6 . 80 }" in count_commands(6, key, SERVING)


def test_a_listing_is_parsed_and_what_nft_does_not_print_is_refused() -> None:
    element = {"elem": {"val": {"concat": ["10.112.0.7", "tcp", 80]}, "counter": {"packets": 3, "bytes": 180}}}
    other = {"elem": {"val": {"concat": ["10.112.0.7", "gre", 80]}, "counter": {"packets": 1, "bytes": 1}}}
    sets = [
        {"set": {"name": "opened", "handle": 1, "elem": [element, other]}},
        {"set": {"name": "refusing", "handle": 2, "elem": [{"concat": ["10.112.0.7", 17, 53]}]}},
    ]
    found = parse_counters(json.dumps({"nftables": [{"metainfo": {}}, *sets]}))
    assert found.counters == {"opened": {WEB: (3, 180)}}
    assert found.refusing == {NAMES}
    assert found.keys() == {WEB, NAMES}
    sets[0]["set"] |= {"handle": 9, "elem": []}
    assert parse_counters(json.dumps({"nftables": sets})).fixed == found.fixed, "without handles and elements"
    for bad in ("", "{}", '{"nftables": [{"set": {"name": "opened", "elem": [1]}}]}', '{"nftables": [{}]}'):
        with pytest.raises(CounterListingError):
            parse_counters(bad)
