"""Everything that shows what is cut off says the same: one table of combinations, and all outputs for each."""

import json
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from mesh.api.explain.document import Cause, render_explanation
from mesh.api.explain.query import explain
from mesh.api.status import notices, worker_status
from mesh.api.workers import workers_document
from mesh.cli.doctor.facts import DoctorFacts
from mesh.cli.doctor.rules import DoctorInput, host_findings
from mesh.cluster.cut_off import CODES, cut_off, finding_of, statement_of, statements_about
from mesh.cluster.failure_detector import MISSES_BEFORE_LOST, DetectorState, HostPing, PingResult
from mesh.config.settings import parse_settings
from mesh.control.past_events import EventMoment, EventRecord, record_events
from mesh.control.planner import make_plan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.past_event import EventKind
from mesh.model.view import ClusterView
from tests.builders import WEB_VIP, endpoint, service

HUNG = CodedText(
    "since 2026-11-30 14:00:00+00:00: etcd: 10.0.0.9: no answer within 2 s; check it", Code.STORE_UNREACHABLE
)
LOST, A, S = MISSES_BEFORE_LOST, PingResult.ANSWERED, PingResult.SILENT
HEARD = {"w2": 100.0, "w3": 160.0}
W2, W3 = ("w2", "web-w2"), ("w3", "web-w3")
WEB = replace(service(), owner="demo/web")
NAME = WEB.name
VIEW = ClusterView(
    (WEB,),
    tuple(endpoint(f"web-{worker}", worker, address=f"10.2.0.{worker[1:]}") for worker in ("w1", "w2", "w3")),
    Claims({NAME: WEB_VIP}, {NAME: "demo/web"}, {}, {WEB_VIP: NAME}),
    workers=frozenset({"w1", "w2", "w3"}),
)


def hosts(**answers: PingResult) -> dict[str, HostPing]:
    return {name: HostPing(answer, 1) for name, answer in answers.items()}


@dataclass(frozen=True)
class Cut:
    """What of a cluster of three workers does not answer the first one, and what is said of it."""

    state: DetectorState
    codes: tuple[Code, ...]
    """In the order of the status."""
    words: tuple[str, ...]
    store: CodedText | None = None
    unreachable: frozenset[str] = frozenset()
    """The workers whose endpoints take no new connections from here."""


ALL_SILENT = DetectorState({"w2": LOST, "w3": LOST}, {W2: LOST, W3: LOST}, hosts=hosts(w2=S, w3=S, etcd=S))
CUTS = {
    "etcd hung": Cut(
        DetectorState({"w2": 0, "w3": 0}, hosts=hosts(w2=A, w3=A, etcd=S)),
        (Code.STORE_UNREACHABLE,),
        ("since 2026-11-30 14:00:00+00:00", "this worker is cut off from etcd: ", "stay as they were read last"),
        HUNG,
    ),
    "no peer answers": Cut(
        replace(ALL_SILENT, hosts=hosts(w2=S, w3=S, etcd=A)),
        (Code.WORKER_ISOLATED, Code.WORKER_UNREACHABLE, Code.WORKER_UNREACHABLE),
        (
            "it may be cut off from the other workers",
            "since 1970-01-01 00:02:40+00:00",
            "since 1970-01-01 00:01:40+00:00",
            "this worker may be cut off itself",
        ),
        unreachable=frozenset({"w2", "w3"}),
    ),
    "both": Cut(
        ALL_SILENT,
        (Code.STORE_UNREACHABLE, Code.WORKER_ISOLATED, Code.WORKER_UNREACHABLE, Code.WORKER_UNREACHABLE),
        (
            "this worker is cut off from etcd and maybe from the other workers: ",
            "it may be cut off from etcd, which does not answer, and from the other workers",
        ),
        HUNG,
        frozenset({"w2", "w3"}),
    ),
    "another worker is cut off from etcd": Cut(
        DetectorState({"w2": 0, "w3": 0}, hosts=hosts(w2=A, w3=A, etcd=A), unleased=frozenset({"w3"})),
        (Code.LEASE_ENDED_WORKER_ANSWERS,),
        (
            "worker w3: its lease in the store has ended, but it answers: it is or was cut off from etcd",
            "endpoints stay",
        ),
    ),
    "one of two others is lost": Cut(
        DetectorState({"w2": 0, "w3": LOST}, {W3: LOST}, hosts=hosts(w2=A, w3=S, etcd=A), unleased=frozenset({"w3"})),
        (Code.WORKER_UNREACHABLE,),
        ("worker w3: it does not answer this worker", "since 1970-01-01 00:02:40", "get no new connections from here"),
        unreachable=frozenset({"w3"}),
    ),
    "the daemon of another is gone": Cut(
        DetectorState({"w2": 0, "w3": LOST}, {W3: 0}, hosts=hosts(w2=A, w3=A, etcd=A), unleased=frozenset({"w3"})),
        (Code.WORKER_DAEMON_GONE,),
        ("worker w3: its daemon is gone, since 1970-01-01 00:02:40", "its endpoints answer"),
    ),
}


def snapshot(cut: Cut) -> WorkerSnapshot:
    """The worker as the control loop shows it."""
    told = cut_off(cut.store, cut.state, HEARD)
    return WorkerSnapshot(
        WorkerFacts("1", "w1", "ipvs", "a test"),
        VIEW,
        plan=make_plan(VIEW, {}, ()),
        problems={"peers": told.problems},
        frozen={} if told.store is None else {"store": told.store},
        lost=cut.state.lost,
        isolated=cut.state.isolated,
        unleased=cut.state.unleased,
        heard=HEARD,
    )


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest) -> Cut:
    return CUTS[request.param]


def said(cut: Cut) -> list[tuple[str, str]]:
    """Code and text of each notice in the status."""
    return [(notice.code, notice.text) for notice in worker_status(snapshot(cut)).notices]


def test_the_status_says_it(cut: Cut) -> None:
    assert [code for code, _ in said(cut)] == [str(code) for code in cut.codes]
    text = "\n".join(text for _, text in said(cut))
    assert [word for word in cut.words if word not in text] == []
    assert msgspec.to_builtins(worker_status(snapshot(cut)))["notices"]


def test_an_explanation_says_the_same(cut: Cut) -> None:
    observed = snapshot(cut)
    found = explain(NAME, DetailedSnapshot(observed, "mesh.internal"))
    assert [*found.frozen, *found.cut_off] == [text for _, text in said(cut)]
    shown = render_explanation(found, notices(observed))
    assert [f"  {text} [{code}]" for code, text in said(cut) if f"  {text} [{code}]" not in shown] == []


def test_what_is_not_found_may_be_on_a_worker_that_is_cut_off(cut: Cut) -> None:
    found = explain("nobody", DetailedSnapshot(snapshot(cut), "mesh.internal"))
    assert not found.found
    assert [*found.frozen, *found.cut_off] == [text for _, text in said(cut)]


def test_an_endpoint_that_is_withheld_has_the_remedy_of_its_worker(cut: Cut) -> None:
    observed = snapshot(cut)
    found = explain(NAME, DetailedSnapshot(observed, "mesh.internal"))
    reasons = {
        step.worker: reason.remedy
        for step in found.ways[0].endpoints
        for reason in (*step.why_not, *step.in_spite_of)
        if reason.cause is Cause.DRAINING
    }
    told = {worker: statement_of(observed.problems["peers"], worker) for worker in cut.unreachable}
    assert reasons == {worker: problem.remedy for worker, problem in told.items() if problem is not None}


def test_the_list_of_workers_says_the_same(cut: Cut) -> None:
    told = workers_document(snapshot(cut)).cut_off
    assert [(each.code, each.text) for each in told] == said(cut)


def test_doctor_says_the_same(cut: Cut) -> None:
    document: dict[str, Any] = json.loads(msgspec.json.encode(worker_status(snapshot(cut))))
    told = [finding_of(notice["code"], notice["text"]) for notice in document["notices"]]
    facts = DoctorFacts("6.1", cut_off=tuple(each for each in told if each is not None))
    shown = [
        finding
        for finding in host_findings(facts, DoctorInput(parse_settings("", {}, hostname="w1"), {}, None))
        if finding.about == "cluster"
    ]
    assert tuple(finding.code for finding in shown) == cut.codes
    for finding, (_, text) in zip(shown, said(cut), strict=True):
        whole = finding.found if finding.mend is None else f"{finding.found}; {finding.mend}"
        assert text.removeprefix("warning: ") == whole


def test_the_events_say_the_same(cut: Cut) -> None:
    """What begins, and what becomes of a worker whose registration ended."""
    observed = snapshot(cut)
    before, _ = record_events(EventRecord(), EventMoment(1.0, "w1", VIEW, VIEW))
    there = replace(VIEW, workers=VIEW.workers - cut.state.unleased)
    now = EventMoment(2.0, "w1", there, there, problems=observed.problems, troubles=observed.frozen)
    events = record_events(before, now)[1]
    assert {event.text for event in events if event.kind is EventKind.PROBLEM_BEGAN} == {text for _, text in said(cut)}
    lost = {event.worker: event.text for event in events if event.kind is EventKind.WORKER_LOST}
    assert lost.keys() == cut.state.unleased
    for worker, text in lost.items():
        problem = statement_of(observed.problems["peers"], worker or "")
        assert problem is not None
        assert text == f"worker {worker} is not registered any more: {problem.reason}"


def test_a_worker_without_endpoints_may_make_this_one_alone() -> None:
    """Nothing is lost with it, and yet this worker must not be silent."""
    state = DetectorState({"w2": LOST}, hosts=hosts(w2=S))
    assert [each.code for each in cut_off(None, state).problems] == [Code.WORKER_ISOLATED]


def test_where_all_is_well_nothing_is_said() -> None:
    assert cut_off(None, DetectorState({"w2": 0}, hosts=hosts(w2=A))) == cut_off(None, DetectorState())
    assert not cut_off(None, DetectorState()).problems


@pytest.mark.parametrize("code", [Code.STORE_REFUSES, Code.LEASE_LOST, Code.STORE_UNUSABLE])
def test_a_store_that_answers_is_not_cut_off(code: Code) -> None:
    refuses = CodedText("etcd refuses: no; ask", code)
    assert cut_off(refuses, ALL_SILENT).store is refuses


def test_workers_that_all_are_out_of_reach_point_to_this_one() -> None:
    state = replace(ALL_SILENT, hosts=hosts(w2=S, w3=S, a=A, b=A, c=A))
    told = cut_off(None, state).problems
    assert not state.isolated
    assert all("no other worker answers either: check the network of this worker" in each.remedy for each in told)


def test_a_statement_is_of_its_worker_alone() -> None:
    told = cut_off(None, CUTS["no peer answers"].state).problems
    assert [each.subject for each in statements_about(told, {"w3"})] == ["this worker", "worker w3"]


@pytest.mark.parametrize(
    ("code", "text"), [("VM999", "x; y"), (None, "x"), ("VM453", None), ("VM401", "x; y"), ([], {})]
)
def test_notices_of_other_things_and_versions_state_nothing(code: object, text: object) -> None:
    assert finding_of(code, text) is None


def test_every_code_has_a_case() -> None:
    assert {code for cut in CUTS.values() for code in cut.codes} == CODES
