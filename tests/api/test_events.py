"""What watchers are told: everything once, then what changed, and what goes through."""

from dataclasses import replace
from itertools import pairwise

import pytest

from mesh.api.events import Flow, Gone, Moment, Ready, Told, everything, flow, news, take
from mesh.api.status import ServiceStatus, WorkerStatus
from mesh.control.planner import plan
from mesh.control.snapshot import Observed
from mesh.model.service import Drain, Health, Transport
from mesh.model.table import RealKey, Traffic, VirtualKey
from tests.api.metrics.test_families import FACTS, OBSERVED, VIEW

A, B = (VirtualKey(f"10.112.0.{n}", 80, Transport.TCP) for n in (2, 3))


def moment(at: float = 10.0, observed: Observed = OBSERVED, traffic: dict[VirtualKey, Traffic] | None = None) -> Moment:
    return Moment(observed, at, traffic or {})


def test_a_new_watcher_gets_everything_in_order() -> None:
    told = list(everything(take(moment())))
    assert [type(each) for each in told] == [WorkerStatus, *[ServiceStatus] * 4, Ready]
    assert isinstance(told[0], WorkerStatus)
    assert (told[0].services, told[0].problems[0]) == ((), "error: service a: three; mend it")
    assert told[-1] == Ready(4)


def test_the_same_again_is_no_news() -> None:
    assert not list(news(take(moment()), take(moment(12.0))))


def test_only_what_has_changed_is_news() -> None:
    before = take(moment())
    healed = replace(OBSERVED, probed={**OBSERVED.probed, "a-2": Health.HEALTHY})
    (service,) = news(before, take(moment(observed=healed)))
    assert isinstance(service, ServiceStatus)
    assert (service.name, [e.serving for e in service.endpoints]) == ("a.test", [True, True, False, True])

    fewer = replace(OBSERVED, view=replace(VIEW, services=VIEW.services[1:]), repairs=8)
    worker, gone = news(before, take(moment(observed=fewer)))
    assert isinstance(worker, WorkerStatus)
    assert (worker.repairs, gone) == (8, Gone("demo/a"))


@pytest.mark.parametrize("sequence", ["plain", "backwards", "with an empty one between"])
def test_news_add_up_to_the_whole(sequence: str) -> None:
    moments = [
        moment(),
        moment(observed=replace(OBSERVED, view=replace(VIEW, services=VIEW.services[:2]))),
        moment(observed=replace(OBSERVED, probed={}, problems={})),
        moment(
            observed=replace(
                OBSERVED, instances=tuple(replace(i, drain=Drain.PAUSED) for i in OBSERVED.instances or ())
            )
        ),
    ]
    if sequence == "backwards":
        moments.reverse()
    elif sequence != "plain":
        moments.insert(2, moment(observed=Observed(FACTS)))
    looks = [take(each) for each in moments]
    known = Told(looks[0].worker, dict(looks[0].services), {}, 0.0)
    for before, now in pairwise(looks):
        services = dict(known.services)
        worker = known.worker
        for each in news(before, now):
            match each:
                case WorkerStatus():
                    worker = each
                case ServiceStatus():
                    services[each.owner] = each
                case Gone(owner):
                    del services[owner]
        known = Told(worker, services, {}, 0.0)
        assert (known.worker, known.services) == (now.worker, now.services)


def test_rates_are_between_two_looks() -> None:
    before = take(moment(10.0, traffic={A: Traffic(100, 1000, 5000), B: Traffic(7, 0, 0)}))
    found = flow(before, moment(12.0, traffic={A: Traffic(110, 3000, 5000), B: Traffic(7, 0, 0)}))
    (service,) = found.services
    assert (service.owner, service.opened, service.bytes_in, service.bytes_out) == ("demo/a", 5.0, 1000.0, 0.0)
    assert (found.counted, found.opened, found.bytes_in) == (True, 5.0, 1000.0)


def test_without_a_look_before_and_after_a_new_beginning_there_is_no_rate() -> None:
    now = moment(12.0, traffic={A: Traffic(3)})
    assert flow(None, now) == Flow(0, (), counted=True)
    for former in (Traffic(100), Traffic(3, 1, 0), Traffic(3, 0, 1)):
        anew = flow(take(moment(10.0, traffic={A: former})), now)
        assert anew == Flow(0, (), True, 0.0, 0.0, 0.0)


def test_a_data_plane_that_does_not_count_has_connections_and_no_rates() -> None:
    web = {(A, RealKey("10.2.0.1", 80)): 2, (A, RealKey("10.2.0.4", 80)): 1, (A, RealKey("10.2.0.2", 80)): 0}
    found = flow(take(moment()), replace(moment(12.0), connections=web))
    (service,) = found.services
    assert service.endpoints == {f"{FACTS.worker}/a-1": 2, "w2/a-4": 1}
    assert (service.connections, service.opened) == (3, None)
    assert (found.connections, found.counted, found.opened) == (3, False, None)


def test_before_the_first_pass_nothing_goes_through() -> None:
    assert flow(None, Moment(Observed(FACTS), 1.0)) == Flow(0, (), counted=False)


def test_a_virtual_server_that_is_not_in_the_plan_counts_for_nobody() -> None:
    stranger = VirtualKey("10.112.0.77", 80, Transport.TCP)
    found = flow(None, replace(moment(), connections={(stranger, RealKey("10.2.0.1", 80)): 9}))
    assert found == Flow(0, (), counted=False)
    assert plan(VIEW, {}).table.virtual_servers.keys().isdisjoint({stranger})
