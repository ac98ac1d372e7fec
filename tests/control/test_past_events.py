"""Events are the difference of two states of a worker: each kind by a table, and their replay as a property."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.past_events import EventMoment, EventRecord, record_events, recording_effort, replay_endpoints
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.past_event import MAX_EVENT_TEXT, EventKind, PastEvent
from mesh.model.problem import Problem, Severity
from mesh.model.release_rollout import ReleaseRollout, RolloutPhase
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health, Service
from mesh.model.service_scaling import ServiceScaling
from mesh.model.view import ClusterView
from tests.builders import HTTP_PROBE, WEB_VIP, endpoint, service

ME = "w1"
CLAIMS = Claims({"web.test": WEB_VIP, "db.test": "10.112.0.8"}, {"web.test": "demo/web", "db.test": "demo/db"})
WEB, PROBED = service(), service(probe=HTTP_PROBE)
A, B = endpoint("a"), endpoint("b", "w2", address="10.2.0.2")
DAEMONS = frozenset({"w1", "w2"})


def view(
    *endpoints: Endpoint,
    services: tuple[Service, ...] = (WEB,),
    claims: Claims = CLAIMS,
    health: Mapping[EndpointKey, Health] | None = None,
    workers: frozenset[str] = DAEMONS,
) -> ClusterView:
    return ClusterView(services, endpoints, claims, health or {}, workers=workers)


def moment(known: ClusterView, **changed: object) -> EventMoment:
    return replace(EventMoment(1.0, ME, known, known), **changed)  # type: ignore[arg-type]


def after(*moments: EventMoment) -> tuple[PastEvent, ...]:
    """The events of the last moment."""
    record, events = EventRecord(), tuple[PastEvent, ...]()
    for each in moments:
        record, events = record_events(record, each)
    return events


def seen(events: tuple[PastEvent, ...]) -> list[tuple[EventKind, str | None]]:
    """The kind of each event, and the endpoint, service or worker that it is about."""
    return [(event.kind, event.endpoint or event.service or event.worker) for event in events]


K, HEALTHY, UNHEALTHY = EventKind, Health.HEALTHY, Health.UNHEALTHY
NAME_TAKEN = Problem(
    Code.NAME_TAKEN, Severity.ERROR, "service web", "the name is held by x", "use another", owner="demo/web"
)
BAD_LABEL = Problem(
    Code.LABEL_PORT, Severity.ERROR, "label mesh.routing.port_0", "no port", "use 80", label="mesh.routing.port_0"
)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(
            view(services=(), workers=frozenset({ME})),
            view(A, workers=frozenset({ME})),
            [(K.ENDPOINT_CAME, "a"), (K.SERVICE_VIP, "web.test"), (K.SERVICE_SERVES, "web.test")],
            id="a service appears",
        ),
        pytest.param(view(A, B), view(A), [(K.ENDPOINT_GONE, "b")], id="an endpoint of two goes"),
        pytest.param(
            view(A), view(), [(K.ENDPOINT_GONE, "a"), (K.SERVICE_EMPTY, "web.test")], id="the last endpoint goes"
        ),
        pytest.param(
            view(A),
            view(services=()),
            [(K.ENDPOINT_GONE, "a"), (K.SERVICE_EMPTY, "web.test"), (K.SERVICE_GONE, "web.test")],
            id="a service goes",
        ),
        pytest.param(
            view(A, services=(PROBED,)),
            view(A, services=(PROBED,), health={A.key: HEALTHY}),
            [(K.ENDPOINT_HEALTHY, "a"), (K.SERVICE_SERVES, "web.test")],
            id="the first probe succeeds",
        ),
        pytest.param(
            view(A, B, services=(PROBED,), health={A.key: HEALTHY, B.key: HEALTHY}),
            view(A, B, services=(PROBED,), health={A.key: HEALTHY, B.key: UNHEALTHY}),
            [(K.ENDPOINT_FAILED, "b")],
            id="a probe fails",
        ),
        pytest.param(
            view(A, services=(PROBED,), health={A.key: HEALTHY}),
            view(A, services=(PROBED,), health={A.key: Health.STARTING}),
            [(K.SERVICE_EMPTY, "web.test")],
            id="a verdict that is not known is no failure",
        ),
        pytest.param(
            view(A, B),
            view(A.with_state(DrainReason.ASKED, None), B),
            [(K.ENDPOINT_DRAINED, "a")],
            id="an endpoint is drained",
        ),
        pytest.param(
            view(A.with_state(DrainReason.ASKED, None), B), view(A, B), [(K.ENDPOINT_UNDRAINED, "a")], id="undrained"
        ),
        pytest.param(
            view(replace(A, run="1")), view(replace(A, run="2")), [(K.ENDPOINT_RESTARTED, "a")], id="a new process"
        ),
        pytest.param(
            view(replace(A, run="1")), view(replace(A, run=None)), [], id="a process that is not known may be the same"
        ),
        pytest.param(
            view(A),
            view(A, claims=Claims({"web.test": "10.112.0.9"}, {"web.test": "demo/web"})),
            [(K.SERVICE_VIP, "web.test")],
            id="another VIP",
        ),
        pytest.param(view(A), view(A, workers=frozenset({ME})), [(K.WORKER_LOST, "w2")], id="a worker is lost"),
        pytest.param(
            view(A, services=(WEB, service("db.test"))),
            view(replace(A, owner="demo/db"), services=(WEB, service("db.test"))),
            [
                (K.ENDPOINT_GONE, "a"),
                (K.ENDPOINT_CAME, "a"),
                (K.SERVICE_SERVES, "db.test"),
                (K.SERVICE_EMPTY, "web.test"),
            ],
            id="an endpoint moves to another service",
        ),
    ],
)
def test_the_difference_of_two_views(
    before: ClusterView, now: ClusterView, expected: list[tuple[EventKind, str]]
) -> None:
    assert seen(after(moment(before), moment(now))) == expected


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((), (NAME_TAKEN,), [(K.CONFLICT, "VM201")]),
        ((), (BAD_LABEL,), [(K.LABEL_REFUSED, str(Code.LABEL_PORT))]),
        ((), (replace(BAD_LABEL, severity=Severity.WARNING),), [(K.PROBLEM_BEGAN, str(Code.LABEL_PORT))]),
        ((), (replace(BAD_LABEL, label=None),), [(K.PROBLEM_BEGAN, str(Code.LABEL_PORT))]),
        ((NAME_TAKEN,), (), [(K.PROBLEM_ENDED, str(Code.EVENT_OF_PROBLEM_END))]),
        ((NAME_TAKEN,), (replace(NAME_TAKEN, reason="held for 2 s"),), []),
    ],
)
def test_problems(before: tuple[Problem, ...], now: tuple[Problem, ...], expected: list[tuple[EventKind, str]]) -> None:
    events = after(moment(view(A), problems={"x": before}), moment(view(A), problems={"x": now}))
    assert [(event.kind, event.code) for event in events] == expected


def test_a_worker_that_was_lost_is_back() -> None:
    alone = view(A, workers=frozenset({ME}))
    assert seen(after(moment(view(A)), moment(alone), moment(view(A)))) == [(K.WORKER_BACK, "w2")]


def test_repairs_are_counted() -> None:
    (event,) = after(moment(view(A), repairs=1), moment(view(A), repairs=4))
    assert (event.kind, event.text) == (K.REPAIRED, "3 changes made outside vipmesh were reverted")


def test_a_failure_has_the_answer_of_the_probe_and_a_drain_has_who_requested_it() -> None:
    healthy = view(A, services=(PROBED,), health={A.key: HEALTHY})
    failed = view(A.with_state(DrainReason.ASKED, None), services=(PROBED,), health={A.key: UNHEALTHY})
    failure, drain, _ = after(
        moment(healthy), moment(failed, probe_answer=lambda _: "status 503", drained_by={"a": "uid 0"})
    )
    assert failure.reason == "status 503"
    assert failure.text == "endpoint a of web.test on w1 failed: status 503"
    assert (drain.reason, drain.by) == ("asked", "uid 0")
    assert drain.text == "endpoint a of web.test on w1 takes no new connections: an operator drained it (uid 0)"


def test_a_restart_of_the_daemon_makes_no_events_of_what_has_not_changed() -> None:
    now = moment(view(A, B, services=(PROBED,), health={A.key: HEALTHY, B.key: UNHEALTHY}))
    record, _ = record_events(EventRecord(), now)
    kept = EventRecord(record.services, record.workers, record.lost)
    unprobed = view(A, B, services=(PROBED,), health={A.key: HEALTHY})
    assert record_events(kept, moment(unprobed))[1] == ()


@pytest.mark.parametrize(("running", "gone"), [(None, False), (frozenset({"a"}), False), (frozenset(), True)])
def test_an_own_endpoint_that_runs_is_not_gone(running: frozenset[str] | None, gone: bool) -> None:
    record, events = record_events(record_events(EventRecord(), moment(view(A, B)))[0], moment(view(), running=running))
    there = {each.key for recorded in record.services.values() for each in recorded.endpoints}
    assert (A.key not in there) is gone
    assert B.key not in there, "which endpoints run on other workers is not known here"
    assert ((K.ENDPOINT_GONE, "a") in seen(events)) is gone


def test_texts_from_outside_are_escaped_and_bounded() -> None:
    hostile = replace(A, id="x\n\x1b[2J" * 200, name="\r" * 1000)
    failed = view(hostile, services=(PROBED,), health={hostile.key: UNHEALTHY})
    events = after(
        moment(view()),
        moment(failed, probe_answer=lambda _: "\x00" * 9999, drained_by={hostile.id: "\n" * 999}),
        moment(view(replace(hostile, drain=DrainReason.ASKED)), drained_by={hostile.id: "\n" * 999}),
    )
    assert events
    for event in events:
        for text in (event.text, event.endpoint, event.name, event.reason, event.by):
            assert text is None or (text.isprintable() and len(text) <= MAX_EVENT_TEXT)


def test_work_follows_what_has_changed() -> None:
    known = view(A, B)
    record, _ = record_events(EventRecord(), moment(known))
    again, events = record_events(record, moment(known))
    assert events == ()
    assert again.services is record.services


ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from("abc"),
    st.sampled_from(["demo/web", "demo/db", "demo/none"]),
    st.sampled_from(["w1", "w2"]),
    st.just("10.2.0.1"),
    drain=st.sampled_from([None, DrainReason.ASKED]),
    run=st.sampled_from([None, "1", "2"]),
)
VERDICTS = st.sampled_from([None, *Health])
VIEWS = st.lists(st.tuples(ENDPOINTS, VERDICTS), max_size=6, unique_by=lambda pair: pair[0].key)


@given(st.lists(VIEWS, max_size=8), st.booleans())
def test_a_replay_of_the_events_gives_the_endpoints(
    steps: list[list[tuple[Endpoint, Health | None]]], restarts: bool
) -> None:
    record, past = EventRecord(), list[PastEvent]()
    for step in steps:
        health = {each.key: verdict for each, verdict in step if verdict is not None}
        ordered = sorted((each for each, _ in step), key=lambda each: (each.id, each.worker))
        known = view(*ordered, services=(PROBED, service("db.test")), health=health)
        record, events = record_events(record, moment(known))
        past += events
        assert replay_endpoints(past) == known.by_key.keys()
        if restarts:
            record = EventRecord(record.services, record.workers, record.lost)


@given(VIEWS, VIEWS, st.lists(st.lists(VERDICTS, min_size=6, max_size=6), max_size=3))
def test_an_incremental_difference_is_that_of_a_fresh_record(
    first: list[tuple[Endpoint, Health | None]],
    second: list[tuple[Endpoint, Health | None]],
    verdicts: list[list[Health | None]],
) -> None:
    """Also where the views share their declarations, or differ in verdicts alone."""
    services = (PROBED,)
    records: list[Callable[[EventRecord], EventRecord]] = [
        lambda record: record,
        lambda record: replace(record, known=None, traffic=None),
    ]
    found = []
    for shape in records:
        record, events = EventRecord(), tuple[PastEvent, ...]()
        for step in (first, second):
            ordered = sorted((each for each, _ in step), key=lambda each: (each.id, each.worker))
            known = view(*ordered, services=services)
            known = known.judged({each.key: verdict for each, verdict in step})
            record, events = record_events(shape(record), moment(known))
        for judged in verdicts:
            known = known.judged({each.key: verdict for each, verdict in zip(known.endpoints, judged, strict=False)})
            record, events = record_events(shape(record), moment(known))
        found.append((dict(record.services), events))
    assert found[0] == found[1]


def test_services_that_come_and_go_are_counted_before_they_are_looked_at() -> None:
    """Whoever removes thousands of services at once must not hold the event loop: the effort sends it to a thread."""
    services = tuple(service(f"n{number}.test", owner=f"demo/n{number}") for number in range(20))
    endpoints = [endpoint(f"e{number}", owner=f"demo/n{number}") for number in range(20)]
    there, gone = moment(view(*endpoints, services=services)), moment(view(services=()))
    assert recording_effort(EventRecord(), there) == 40
    record, _ = record_events(EventRecord(), there)
    assert recording_effort(record, there) == 0
    assert recording_effort(record, gone) == 40


def test_the_steps_of_a_rollout_are_events() -> None:
    step = ReleaseRollout("demo/web", "v2", "v1", RolloutPhase.STEP, steps=2, points=100, reason="2 instances serve")
    looks = [
        None,
        step,
        replace(step, elapsed=10.0, reason="2 instances for 10 s, 0 ends"),
        replace(step, is_paused=True, reason="pause by anna"),
        replace(step, phase=RolloutPhase.ABORTED, reason="1 instance in a restart loop"),
        replace(step, phase=RolloutPhase.DONE, reason="promote by anna"),
    ]
    record, found = EventRecord(), []
    for look in looks:
        known = ClusterView(rollouts={} if look is None else {"demo/web": look})
        record, events = record_events(record, EventMoment(1.0, "w1", known, known))
        found += [(each.kind, each.code, each.text) for each in events if each.kind.startswith("rollout-")]
    assert found == [
        ("rollout-step", "VM942", "rollout of demo/web: step 1 of 2: 1 % for v2 (2 instances serve)"),
        ("rollout-step", "VM942", "rollout of demo/web: step 1 of 2: 1 % for v2, paused (pause by anna)"),
        ("rollout-aborted", "VM943", "rollout of demo/web: v2 was aborted, all for v1 (1 instance in a restart loop)"),
        ("rollout-done", "VM946", "rollout of demo/web: v2 is in force (promote by anna)"),
    ]


def test_each_change_of_a_number_by_autoscaling_is_one_event() -> None:
    added = ServiceScaling("demo/web", 2, 4, 1, 8, "load", "CPU 101 % over 70 %")
    kept = ServiceScaling("demo/web", 4, 4, 1, 8, "cooldown", "cooldown for another 50 s")
    known = view()
    looks = [moment(known, scaling=each) for each in ((), (added,), (added,), (kept,), (replace(added),))]
    record, found = EventRecord(), list[str]()
    for each in looks:
        record, events = record_events(record, each)
        found += [event.text for event in events if event.kind is K.SERVICE_SCALED]
    assert found == ["demo/web is scaled from 2 to 4: CPU 101 % over 70 %"] * 2
