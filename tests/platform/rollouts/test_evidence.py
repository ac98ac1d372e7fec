"""Evidence of releases: added up on a worker, as a record of the store, and merged from the records of all workers."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.health.state_machine import Verdict
from mesh.platform.rollouts.evidence_history import EVIDENCE_FRESH, WINDOW, EvidenceHistory
from mesh.platform.rollouts.evidence_records import (
    MAX_EVIDENCE_RECORD,
    MAX_JUDGED_ENDPOINTS,
    MAX_JUDGED_RELEASES,
    CheckCounts,
    ConnectionCounts,
    ReleaseCounts,
    WorkerEvidence,
    decode_all_evidence,
    decode_evidence,
    encode_evidence,
    evidence_key,
    worker_of_evidence,
)
from mesh.platform.rollouts.judge import CheckEvidence, ConnectionEvidence, ConnectionFailure, time_bucket
from mesh.platform.rollouts.release_evidence import (
    EvidenceCollector,
    InstanceExit,
    JudgedInstance,
    LedConnections,
    ReleaseKey,
    ReleaseObservation,
)

OWNER = "shop/web"
V2 = ReleaseKey(OWNER, "v2")
A, B = JudgedInstance(V2), JudgedInstance(V2)
CMD = "release.check.cmd"


def counts_of(found: WorkerEvidence) -> ReleaseCounts:
    return found.services[OWNER]["v2"]


# -------------------------------------------------------------------------------------------------- the collector


def test_an_end_that_nobody_asked_for_counts_and_a_second_one_is_a_loop() -> None:
    collector = EvidenceCollector("r")
    collector.observe(ReleaseObservation({"a": A, "b": B}), [OWNER], 1.0)
    counted = counts_of(collector.observe(ReleaseObservation({"b": B}, [InstanceExit("a")]), [OWNER], 2.0))
    assert (counted.exits, counted.ended, counted.looping, counted.instances) == (1, 1, 0, 1)
    again = counts_of(collector.observe(ReleaseObservation({"a": A, "b": B}, [InstanceExit("a")]), [OWNER], 3.0))
    assert (again.exits, again.ended, again.looping, again.instances) == (2, 1, 1, 2)


@pytest.mark.parametrize("ended", [InstanceExit("a", is_asked=True), InstanceExit("b"), InstanceExit("other")])
def test_an_end_that_was_asked_for_does_not_count(ended: InstanceExit) -> None:
    collector = EvidenceCollector("r")
    looked = ReleaseObservation({"a": A, "b": replace(B, is_ending=True)})
    collector.observe(looked, [OWNER], 1.0)
    counted = counts_of(collector.observe(replace(looked, exits=[ended]), [OWNER], 2.0))
    assert counted.exits == 0


def test_an_end_out_of_memory_counts_whoever_asked() -> None:
    collector = EvidenceCollector("r")
    looked = ReleaseObservation({"a": A}, [InstanceExit("a", out_of_memory=True, is_asked=True)])
    collector.observe(ReleaseObservation({"a": A}), [OWNER], 1.0)
    assert counts_of(collector.observe(looked, [OWNER], 2.0)).out_of_memory == 1


def test_ends_that_nobody_has_read_until_the_rollout_began_do_not_count() -> None:
    looked = ReleaseObservation({"a": A}, [InstanceExit("a"), InstanceExit("a", out_of_memory=True)])
    counted = counts_of(EvidenceCollector("r").observe(looked, [OWNER], 1.0))
    assert counted == ReleaseCounts(instances=1)


def test_probes_count_once_and_from_the_first_success_on() -> None:
    collector = EvidenceCollector("r")
    collector.observe(ReleaseObservation({"a": A}), [OWNER], 10.0)
    verdicts = [Verdict(False, "refused", 0.1, 9.0), Verdict(False, "refused", 0.1, 11.0)]
    starting = collector.observe(ReleaseObservation({"a": A}, verdicts={"a": verdicts}), [OWNER], 12.0)
    assert counts_of(starting).probes == 0
    verdicts += [Verdict(True, "status 200", 0.1, 13.0), Verdict(False, "status 500", 0.1, 14.0)]
    for now in (15.0, 16.0):
        served = counts_of(collector.observe(ReleaseObservation({"a": A}, verdicts={"a": verdicts}), [OWNER], now))
        assert (served.probes, served.failed_probes, served.probe_times) == (2, 1, {time_bucket(0.1): 1})


def led(attempts: int, refused: int | None = 0, place: str = "p") -> LedConnections:
    return LedConnections(V2, "w1/a", place, ConnectionCounts(attempts, 3, refused, 0, 0))


def test_connections_count_from_when_the_service_is_watched() -> None:
    collector = EvidenceCollector("r")
    collector.observe(ReleaseObservation(connections=[led(1000, 10)]), [OWNER], 1.0)
    grown = collector.observe(ReleaseObservation(connections=[led(1007, 12), led(5, 1, "new")]), [OWNER], 2.0)
    assert counts_of(grown).endpoints == {"w1/a": ConnectionCounts(12, 6, 3, 0, 0)}
    again = collector.observe(ReleaseObservation(connections=[led(2, 1)]), [OWNER], 3.0)  # a counter began again
    assert counts_of(again).endpoints == {"w1/a": ConnectionCounts(14, 3, 4, 0, 0)}
    gone = collector.observe(ReleaseObservation(), [OWNER], 4.0)
    assert counts_of(gone).endpoints["w1/a"].open == 0


def test_what_the_plane_does_not_count_stays_uncounted() -> None:
    collector = EvidenceCollector("r")
    collector.observe(ReleaseObservation(connections=[led(1, None)]), [OWNER], 1.0)
    found = collector.observe(ReleaseObservation(connections=[led(2, None)]), [OWNER], 2.0)
    assert counts_of(found).endpoints["w1/a"] == ConnectionCounts(1, 3, None, 0, 0)


def test_a_service_that_is_watched_no_more_is_forgotten() -> None:
    collector = EvidenceCollector("r")
    collector.observe(ReleaseObservation({"a": A}, [InstanceExit("a")]), [OWNER], 1.0)
    assert collector.observe(ReleaseObservation(), [], 2.0).services == {}
    anew = collector.observe(ReleaseObservation({"a": A}), [OWNER], 3.0)
    assert counts_of(anew) == ReleaseCounts(instances=1)


# -------------------------------------------------------------------------------------------------- the records


def test_a_record_is_read_as_it_was_written() -> None:
    counts = ReleaseCounts(
        2, 1, probe_times={8: 3}, endpoints={"w1/a": ConnectionCounts(9, 1, 0, None, 2)}, checks={CMD: CheckCounts(1)}
    )
    evidence = WorkerEvidence(7, "r", {OWNER: {"v2": counts, "": ReleaseCounts()}})
    assert decode_evidence(encode_evidence(evidence)) == evidence
    assert decode_all_evidence({evidence_key("w/1"): encode_evidence(evidence)}) == {"w/1": evidence}
    assert worker_of_evidence("usage/w1") is None


def test_fields_of_later_versions_are_ignored() -> None:
    later: Any = {
        "round": 1,
        "new": 1,
        "services": {OWNER: {"v2": {"exits": 2, "x": [1], "endpoints": {"e": [1, 2, 0, 0, 0, 9]}}}},
    }
    found = decode_evidence(msgspec.json.encode(later))
    assert found is not None
    assert counts_of(found) == ReleaseCounts(exits=2, endpoints={"e": ConnectionCounts(1, 2, 0, 0, 0)})


@pytest.mark.parametrize(
    "release",
    [
        {"exits": -1},
        {"exits": 1 << 60},
        {"probe_times": {"64": 1}},
        {"probe_times": {"-1": 1}},
        {"endpoints": {"e" * 300: [1]}},
        {"endpoints": {f"e{n}": [1] for n in range(MAX_JUDGED_ENDPOINTS + 1)}},
        {"checks": {CMD: [1, 1, "x" * 121]}},
        {"checks": "x"},
    ],
)
def test_a_record_beyond_its_bounds_is_not_read(release: Any) -> None:
    assert decode_evidence(msgspec.json.encode({"round": 1, "services": {OWNER: {"v2": release}}})) is None


def test_a_record_is_bounded_whatever_was_seen() -> None:
    endpoints = {f"w1/{n:040}": ConnectionCounts(n, n, n, n, n) for n in range(2 * MAX_JUDGED_ENDPOINTS)}
    releases = {f"v{n}": ReleaseCounts(endpoints=endpoints) for n in range(2 * MAX_JUDGED_RELEASES)}
    services = {f"shop/{n}": releases if n == 1 else {"v1": ReleaseCounts(1)} for n in range(150)}
    value = encode_evidence(WorkerEvidence(1, "r", services))
    assert len(value) <= MAX_EVIDENCE_RECORD
    found = decode_evidence(value)
    assert found is not None
    assert "shop/0" in found.services


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_none(value: bytes) -> None:
    found = decode_evidence(value)
    assert found is None or decode_evidence(encode_evidence(found)) is not None


# -------------------------------------------------------------------------------------------------- the history


JUDGED = {OWNER: ["v1", "v2"]}


def record(number: int, run: str = "r", **counts: Any) -> WorkerEvidence:
    return WorkerEvidence(number, run, {OWNER: {"v2": ReleaseCounts(**counts)}})


def test_what_workers_count_in_the_window_is_added_up() -> None:
    history = EvidenceHistory()
    history.take({"w1": record(1, exits=5, instances=2)}, JUDGED, 0.0)
    history.take({"w1": record(2, exits=7, instances=2), "w2": record(1, exits=1, instances=1)}, JUDGED, 2.0)
    found = history.evidence(OWNER, "v2")
    assert (found.exits, found.instances, found.seconds) == (3, 3, 2.0)
    history.take({"w1": record(1, "anew", exits=2, instances=2)}, JUDGED, 3.0)  # its daemon began anew
    assert history.evidence(OWNER, "v2").exits == 5


def test_a_window_begins_anew_with_a_step() -> None:
    history = EvidenceHistory()
    before = {"w1/a": ConnectionCounts(10, 4, 1, 0, None)}
    history.take({"w1": record(1, endpoints={})}, JUDGED, 0.0)
    history.take({"w1": record(2, probes=3, probe_times={4: 3}, endpoints=before)}, JUDGED, 1.0)
    history.restart(OWNER)
    now = {"w1/a": ConnectionCounts(30, 9, 2, 0, None)}
    history.take({"w1": record(3, probes=5, probe_times={4: 4, 5: 1}, endpoints=now)}, JUDGED, 2.0)
    found = history.evidence(OWNER, "v2")
    assert (found.probes, found.probe_times, found.seconds) == (2, {4: 1, 5: 1}, 1.0)
    failures = {ConnectionFailure.REFUSED: 1, ConnectionFailure.UNANSWERED: 0}
    assert found.endpoints == {"w1/a": ConnectionEvidence(20, failures, 4, 9)}
    assert found.uncounted == {ConnectionFailure.RESET}


def test_a_window_does_not_last_for_ever() -> None:
    history = EvidenceHistory()
    for second in range(0, int(2 * WINDOW), 5):
        history.take({"w1": record(second, exits=second)}, JUDGED, float(second))
    found = history.evidence(OWNER, "v2")
    assert WINDOW <= found.seconds <= WINDOW + 10.0
    assert found.exits == found.seconds


def test_a_worker_that_is_silent_is_no_evidence_and_named() -> None:
    history = EvidenceHistory()
    records = {"w1": record(1, instances=2)}
    history.take(records, JUDGED, 0.0)
    assert history.silent(["w1", "w2"]) == ("w2",)
    history.take(records, JUDGED, EVIDENCE_FRESH + 0.1)
    assert history.silent(["w1", "w2"]) == ("w1", "w2")
    assert history.evidence(OWNER, "v2").instances == 0


def test_checks_are_added_up_and_their_reasons_are_shown_safely() -> None:
    history = EvidenceHistory()
    history.take({"w1": record(1, checks={CMD: CheckCounts(4, 1)})}, JUDGED, 0.0)
    history.take({"w1": record(2, checks={CMD: CheckCounts(6, 2, "exit\x1b[1m")})}, JUDGED, 1.0)
    assert history.checks(OWNER, "v2", [CMD]) == (CheckEvidence(CMD, 2, 1, "exit?[1m"),)
    assert history.checks(OWNER, "v2", ["release.check.url"]) == (CheckEvidence("release.check.url"),)


def test_releases_that_nobody_judges_are_not_kept() -> None:
    history = EvidenceHistory()
    others = {f"v{n}": ReleaseCounts(exits=1) for n in range(MAX_JUDGED_RELEASES)}
    history.take({"w1": WorkerEvidence(1, "r", {OWNER: {}})}, JUDGED, 0.0)
    history.take({"w1": WorkerEvidence(2, "r", {OWNER: others, "shop/db": others})}, JUDGED, 1.0)
    assert [history.evidence(OWNER, release).exits for release in ("v2", "v3")] == [1, 0]
    assert history.evidence("shop/db", "v2").exits == 0


def test_of_services_without_a_rollout_nothing_is_kept() -> None:
    history = EvidenceHistory()
    history.take({"w1": record(1)}, JUDGED, 0.0)
    history.take({"w1": record(2, exits=1)}, {}, 1.0)
    assert history.evidence(OWNER, "v2").exits == 0
