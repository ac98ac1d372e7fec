"""What is counted, from texts alone."""

import json

import pytest

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.nftables.service_chain import FOREIGN_VALUE
from mesh.dataplane.nftables.traffic_counters import (
    CounterChange,
    CounterFrame,
    CounterListing,
    CounterListingError,
    CounterStep,
    count_change,
    counter_script,
    former_real_server,
    is_counted_alike,
    parse_frame,
    repair_changes,
)
from mesh.model.service import Transport
from mesh.model.table import RealKey, RealServer, TrafficCounters, VirtualKey, VirtualServer

WEB = VirtualKey("10.112.0.7", 80, Transport.TCP)
NAMES = VirtualKey("10.112.0.7", 53, Transport.UDP)
ONE, TWO, FORMER = RealKey("10.2.0.1", 80), RealKey("10.2.0.2", 80), former_real_server(4)
SERVING = VirtualServer(real_servers={ONE: RealServer()})
BOTH = VirtualServer(real_servers={ONE: RealServer(), TWO: RealServer()})

OPENED: dict[BackendKey, tuple[int, int]] = {(WEB, ONE): (3, 180), (WEB, FORMER): (1, 60)}
ALL = CounterListing(
    {
        "opened": OPENED,
        "received": {(WEB, ONE): (9, 900), (WEB, FORMER): (0, 0)},
        "sent": {(WEB, ONE): (8, 8000), (WEB, FORMER): (1, 7)},
    }
)


def added(*backends: BackendKey, key: VirtualKey = WEB) -> CounterChange:
    return CounterChange(key, (CounterStep(list(backends)),))


def removed(*backends: BackendKey) -> CounterChange:
    return CounterChange(WEB, (CounterStep(list(backends)), CounterStep(list(backends), deleted=True)))


def test_the_first_packets_count_as_received_and_former_endpoints_for_their_service() -> None:
    assert ALL.traffic((WEB, ONE)) == TrafficCounters(3, 1080, 8000)
    assert ALL.traffic((NAMES, ONE)) == TrafficCounters()
    assert ALL.totals() == {WEB: TrafficCounters(4, 1140, 8007)}


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        (SERVING, VirtualServer(real_servers={ONE: RealServer(7)}), True),
        (BOTH, SERVING, True),
        (SERVING, VirtualServer(real_servers={ONE: RealServer(0)}, persistence=9), True),
        (SERVING, BOTH, False),
        (None, SERVING, False),
        (SERVING, None, False),
    ],
)
def test_most_changes_leave_the_elements(
    before: VirtualServer | None, after: VirtualServer | None, alike: bool
) -> None:
    assert is_counted_alike(before, after) is alike


def test_a_change_of_one_endpoint_is_one_element() -> None:
    assert count_change(4, WEB, SERVING, BOTH) == added((WEB, TWO))
    assert count_change(4, WEB, BOTH, SERVING) is None, "its counts are kept until they are read"


def test_a_service_is_counted_from_its_beginning_to_its_end() -> None:
    assert count_change(4, WEB, None, SERVING) == added((WEB, FORMER), (WEB, ONE))
    assert count_change(4, WEB, SERVING, None) == removed((WEB, FORMER), (WEB, ONE))


@pytest.mark.parametrize(
    ("found", "servers", "due"),
    [
        pytest.param(ALL, {WEB: SERVING}, [], id="as it must be"),
        pytest.param(ALL, {WEB: BOTH}, [added((WEB, TWO))], id="an endpoint is missing"),
        pytest.param(
            CounterListing({**ALL.counters, "opened": {(WEB, FORMER): (1, 60)}}),
            {WEB: SERVING},
            [added((WEB, ONE))],
            id="an element of one set is missing",
        ),
        pytest.param(ALL, {}, [removed((WEB, FORMER), (WEB, ONE))], id="a service is gone"),
        pytest.param(
            ALL,
            {WEB: VirtualServer()},
            [
                CounterChange(
                    WEB,
                    (
                        *removed((WEB, ONE), (WEB, FORMER)).steps,
                        CounterStep(
                            [(WEB, FORMER)], counts={"opened": (4, 240), "received": (9, 900), "sent": (9, 8007)}
                        ),
                    ),
                )
            ],
            id="an endpoint is gone",
        ),
        pytest.param(
            ALL,
            {WEB: VirtualServer(persistence=FOREIGN_VALUE)},
            [],
            id="a damaged service has unknown endpoints",
        ),
    ],
)
def test_repairs(found: CounterListing, servers: dict[VirtualKey, VirtualServer], due: list[CounterChange]) -> None:
    assert repair_changes(4, found, servers) == due


def test_every_version_has_its_own_words() -> None:
    assert all(" ip6 vipmesh_count" in line for line in counter_script(6))
    assert not any("ipv4_addr" in line or " ip daddr" in line for line in counter_script(6))


def test_the_frame_is_parsed_and_what_nft_does_not_print_is_refused() -> None:
    types = ["ipv4_addr", "inet_proto", "inet_service"]
    sets = [{"set": {"name": "opened", "type": types, "handle": 1, "elem": [1]}}]
    found = parse_frame(json.dumps({"nftables": [{"metainfo": {}}, *sets]}))
    assert not found.fits(4), "a set of another version"
    sets[0]["set"] |= {"handle": 9, "elem": []}
    assert parse_frame(json.dumps({"nftables": sets})).fixed == found.fixed, "without handles and elements"
    sets[0]["set"]["type"] = [*types, "ipv4_addr", "inet_service"]
    assert parse_frame(json.dumps({"nftables": sets})).fits(4)
    assert not parse_frame(json.dumps({"nftables": sets})).fits(6)
    assert not CounterFrame(types={"refusing": ("ipv4_addr",)}).fits(4)
    assert CounterFrame().fits(4), "an empty table"
    for bad in ("", "{}", '{"nftables": [{"set": {"name": "opened"}}]}', '{"nftables": [{}]}', "[" * 99_999):
        with pytest.raises(CounterListingError):
            parse_frame(bad)
