"""Events for watchers: everything once, then changes and traffic."""

from dataclasses import replace
from itertools import pairwise

import pytest

from mesh.api.events import (
    EndpointTraffic,
    EventInput,
    InitialStateEvent,
    ServiceRemovedEvent,
    TrafficEvent,
    WatcherState,
    changed_events,
    initial_events,
    traffic_event,
    watcher_state,
)
from mesh.api.status import ServiceStatus, WorkerStatus
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.service import DrainReason, Health, Transport
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from tests.api.metrics.test_families import FACTS, OBSERVED, VIEW

A, B = (VirtualKey(f"10.112.0.{n}", 80, Transport.TCP) for n in (2, 3))


def moment(
    at: float = 10.0, observed: WorkerSnapshot = OBSERVED, traffic: dict[VirtualKey, TrafficCounters] | None = None
) -> EventInput:
    return EventInput(observed, at, traffic or {})


def test_a_new_watcher_gets_everything_in_order() -> None:
    told = list(initial_events(watcher_state(moment())))
    assert [type(each) for each in told] == [WorkerStatus, *[ServiceStatus] * 4, InitialStateEvent]
    assert isinstance(told[0], WorkerStatus)
    assert (told[0].services, told[0].problems[0]) == ((), "error: service a: three; mend it")
    assert told[-1] == InitialStateEvent(4)


def test_an_unchanged_snapshot_sends_no_event() -> None:
    assert not list(changed_events(watcher_state(moment()), watcher_state(moment(12.0))))


def test_only_changes_are_sent() -> None:
    before = watcher_state(moment())
    healed = replace(OBSERVED, probed={**OBSERVED.probed, (FACTS.worker, "a-2"): Health.HEALTHY})
    (service,) = changed_events(before, watcher_state(moment(observed=healed)))
    assert isinstance(service, ServiceStatus)
    shown = [(e.serving, e.programming) for e in service.endpoints]
    assert (service.name, shown) == ("a.test", [(True, False), (False, True), (False, False), (True, False)])

    fewer = replace(OBSERVED, view=replace(VIEW, services=VIEW.services[1:]), repairs=8)
    worker, gone = changed_events(before, watcher_state(moment(observed=fewer)))
    assert isinstance(worker, WorkerStatus)
    assert (worker.repairs, gone) == (8, ServiceRemovedEvent("demo/a"))


@pytest.mark.parametrize("sequence", ["plain", "backwards", "with an empty one between"])
def test_events_add_up_to_the_snapshot(sequence: str) -> None:
    moments = [
        moment(),
        moment(observed=replace(OBSERVED, view=replace(VIEW, services=VIEW.services[:2]))),
        moment(observed=replace(OBSERVED, probed={}, problems={})),
        moment(
            observed=replace(
                OBSERVED, instances=tuple(replace(i, drain=DrainReason.PAUSED) for i in OBSERVED.instances or ())
            )
        ),
    ]
    if sequence == "backwards":
        moments.reverse()
    elif sequence != "plain":
        moments.insert(2, moment(observed=WorkerSnapshot(FACTS)))
    looks = [watcher_state(each) for each in moments]
    known = WatcherState(looks[0].worker, dict(looks[0].services), {}, 0.0)
    for before, now in pairwise(looks):
        services = dict(known.services)
        worker = known.worker
        for each in changed_events(before, now):
            match each:
                case WorkerStatus():
                    worker = each
                case ServiceStatus():
                    services[each.owner] = each
                case ServiceRemovedEvent(owner):
                    del services[owner]
        known = WatcherState(worker, services, {}, 0.0)
        assert (known.worker, known.services) == (now.worker, now.services)


def test_rates_are_computed_between_two_snapshots() -> None:
    before = watcher_state(moment(10.0, traffic={A: TrafficCounters(100, 1000, 5000), B: TrafficCounters(7, 0, 0)}))
    found = traffic_event(
        before, moment(12.0, traffic={A: TrafficCounters(110, 3000, 5000), B: TrafficCounters(7, 0, 0)})
    )
    (service,) = found.services
    assert (service.owner, service.opened, service.bytes_in, service.bytes_out) == ("demo/a", 5.0, 1000.0, 0.0)
    assert (found.counted, found.opened, found.bytes_in) == (True, 5.0, 1000.0)


def test_without_an_earlier_snapshot_or_after_a_counter_reset_there_is_no_rate() -> None:
    now = moment(12.0, traffic={A: TrafficCounters(3)})
    assert traffic_event(None, now) == TrafficEvent(0, (), counted=True)
    for former in (TrafficCounters(100), TrafficCounters(3, 1, 0), TrafficCounters(3, 0, 1)):
        anew = traffic_event(watcher_state(moment(10.0, traffic={A: former})), now)
        assert anew == TrafficEvent(0, (), True, 0.0, 0.0, 0.0)


def test_a_data_plane_that_does_not_count_has_connections_and_no_rates() -> None:
    web = {(A, RealKey("10.2.0.1", 80)): 2, (A, RealKey("10.2.0.4", 80)): 1, (A, RealKey("10.2.0.2", 80)): 0}
    found = traffic_event(watcher_state(moment()), replace(moment(12.0), connections=web))
    (service,) = found.services
    assert service.endpoints == {f"{FACTS.worker}/a-1": 2, "w2/a-4": 1}
    assert (service.connections, service.opened) == (3, None)
    assert (found.connections, found.counted, found.opened) == (3, False, None)


def test_rates_of_endpoints_leave_out_those_without_traffic_and_those_that_began_again() -> None:
    one, two, other = (RealKey(f"10.2.0.{n}", 80) for n in (1, 4, 9))
    before = {(A, one): TrafficCounters(5, 10, 20), (A, two): TrafficCounters(9, 9, 9), (A, other): TrafficCounters()}
    now = {(A, one): TrafficCounters(7, 30, 120), (A, two): TrafficCounters(1, 99, 99), (A, other): TrafficCounters(8)}
    traffic = {A: TrafficCounters(14)}, {A: TrafficCounters(16)}
    told = watcher_state(replace(moment(10.0, traffic=traffic[0]), endpoint_traffic=before))
    found = traffic_event(told, replace(moment(12.0, traffic=traffic[1]), endpoint_traffic=now))
    (service,) = found.services
    assert service.endpoint_rates == {f"{FACTS.worker}/a-1": EndpointTraffic(1.0, 10.0, 50.0)}
    silent = traffic_event(None, replace(moment(12.0, traffic=traffic[1]), endpoint_traffic=now))
    assert not any(service.endpoint_rates for service in silent.services)


def test_before_the_first_pass_there_is_no_traffic() -> None:
    assert traffic_event(None, EventInput(WorkerSnapshot(FACTS), 1.0)) == TrafficEvent(0, (), counted=False)


def test_a_virtual_server_outside_the_plan_counts_for_no_service() -> None:
    stranger = VirtualKey("10.112.0.77", 80, Transport.TCP)
    found = traffic_event(None, replace(moment(), connections={(stranger, RealKey("10.2.0.1", 80)): 9}))
    assert found == TrafficEvent(0, (), counted=False)
    assert make_plan(VIEW, {}).table.virtual_servers.keys().isdisjoint({stranger})
