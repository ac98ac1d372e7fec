"""The history of traffic: what is kept, what makes place for it, and how much memory it takes."""

import tracemalloc
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from mesh.api.events import EventInput, ServiceTraffic, TrafficEvent, traffic_event
from mesh.api.traffic_history import (
    INTERVAL,
    MAX_SERVICES,
    SAMPLES,
    HistorySample,
    TrafficHistory,
    take_history_sample,
)
from mesh.model.service import Transport
from mesh.model.table import TrafficCounters, VirtualKey
from tests.api.page.browser import failed, observed

LIMIT = 4 << 20


def sample(
    connections: dict[str, int], *, counted: bool = True, services: int = 1, endpoints: int = 2
) -> HistorySample:
    """The state in which these services have so many connections."""
    rate = 1.0 if counted else None
    each = tuple(ServiceTraffic(owner, count, {}, rate, rate, rate) for owner, count in connections.items())
    all_rates = [float(len(each)) if counted else None] * 3
    traffic = TrafficEvent(sum(connections.values()), each, counted, *all_rates)
    return HistorySample(1, 2, traffic)


def test_there_is_nothing_before_the_first_sample() -> None:
    document = TrafficHistory().document("w1")
    assert (document.at, document.interval, document.connections) == (0.0, INTERVAL, ())


def test_the_first_sample_is_there_at_once() -> None:
    history = TrafficHistory()
    history.record(1000, 5.0, sample({"shop/web": 7}))
    total, web = history.document("w1"), history.document("w1", "shop/web")
    assert (total.at, total.connections, total.services, total.endpoints) == (5.0, (7.0,), (1.0,), (2.0,))
    assert (web.owner, web.connections, web.opened, web.services) == ("shop/web", (7.0,), (1.0,), ())
    assert history.document("w1", "shop/db").connections == ()


def test_a_slot_without_a_sample_has_no_values() -> None:
    history = TrafficHistory()
    history.record(10, 1.0, sample({"shop/web": 7}))
    history.record(13, 4.0, sample({}))
    assert history.document("w1").connections == (7.0, None, None, 0.0)
    assert history.document("w1", "shop/web").connections == (7.0, None, None, 0.0)
    history.record(12, 4.0, sample({"shop/web": 9}))
    assert history.document("w1").connections == (7.0, None, None, 0.0), "the past does not change"


def test_rates_are_unknown_where_the_data_plane_does_not_count() -> None:
    history = TrafficHistory()
    history.record(1, 1.0, sample({"shop/web": 7}, counted=False))
    history.record(2, 2.0, sample({}, counted=False))
    web = history.document("w1", "shop/web")
    assert (web.connections, web.opened, web.bytes_out) == ((7.0, 0.0), (None, None), (None, None))


def test_the_service_that_has_been_quiet_for_longest_makes_place() -> None:
    history = TrafficHistory(samples=5, most=2)
    history.record(1, 1.0, sample({"a": 1, "b": 1}))
    history.record(2, 2.0, sample({"b": 1, "c": 1}))
    assert history.owners() == {"b", "c"}
    history.record(3, 3.0, sample({"b": 1, "c": 1, "d": 1}))
    assert history.owners() == {"b", "c"}, "both are busy now"
    history.record(8, 8.0, sample({}))
    assert history.owners() == frozenset(), "an hour without traffic"


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100))), max_size=40
    )
)
def test_it_gives_what_a_list_of_all_samples_would_give(steps: list[tuple[int, dict[str, int]]]) -> None:
    history, kept, slot = TrafficHistory(samples=5, most=3), dict[int, dict[str, int]](), 0
    for pause, connections in steps:
        slot += pause
        if not kept or slot > max(kept):
            history.record(slot, float(slot), sample(connections))
            kept[slot] = connections
    if not kept:
        return
    last = max(kept)
    slots = range(max(min(kept), last - 4), last + 1)
    wanted = tuple(float(sum(kept[at].values())) if at in kept else None for at in slots)
    assert history.document("w1").connections == wanted
    assert len(history.owners()) <= 3
    for owner in history.owners():
        for at, value in zip(slots, history.document("w1", owner).connections, strict=True):
            assert value in (None, float(kept.get(at, {}).get(owner, 0)))
    busy = [owner for owner in kept[last] if owner in history.owners()]
    assert len(busy) == min(3, len(kept[last])), "who is busy now has a place"


def owners(count: int, first: int = 0) -> Iterable[str]:
    return (f"{'project' * 20}/{'service' * 20}-{n}" for n in range(first, first + count))


def test_it_takes_less_than_four_mebibytes_however_many_services_there_are() -> None:
    tracemalloc.start()
    try:
        history = TrafficHistory()
        for slot in range(12):
            history.record(slot, float(slot), sample(dict.fromkeys(owners(2000, 500 * slot), 3)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(history.owners()) == MAX_SERVICES
    assert kept < LIMIT
    assert SAMPLES * INTERVAL == 3600


def test_a_sample_of_a_worker() -> None:
    seen = failed(observed(3, 2), 1, "refused")
    key = VirtualKey("10.112.0.1", 80, Transport.TCP)
    before = EventInput(seen, 10.0, {key: TrafficCounters(10)})
    now = EventInput(seen, 20.0, {key: TrafficCounters(60)})
    found = take_history_sample(seen, traffic_event(before, now))
    assert (found.services, found.endpoints, found.traffic.opened) == (3, 5, 5.0)
