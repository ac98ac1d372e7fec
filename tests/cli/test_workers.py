"""The workers of a cluster: from the records of the store to the document and the table."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from mesh.api.workers import WorkerEntry, workers_document
from mesh.cli.main import main
from mesh.cluster.records.encode import build_view, encode_daemon, encode_digest, encode_registration
from mesh.cluster.worker_directory import (
    MAX_TOLD,
    RegisteredWorker,
    dropping_worker,
    registered_workers,
    told_problems,
)
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Endpoint
from mesh.model.validation import MAX_TEXT
from mesh.store import StoreSnapshot
from tests.builders import endpoint, service

FACTS = WorkerFacts("2", "w1", "ipvs", "asked for", store="etcd://10.1.0.1:2379")
RECORDS = {
    **encode_daemon("w1", "2", "a", data_plane="ipvs"),
    **encode_digest("w1", "0a"),
    **encode_daemon("worker 2", "2", "b", "10.1.0.2:9781", data_plane="nftables"),
    **encode_digest("worker 2", "0b"),
    **encode_daemon("w3", "1", "c"),
    **encode_registration("w3", [service()], [Endpoint("a", "demo/web", "w3", "10.2.0.3")]),
    **encode_registration("w4", [], [Endpoint("daemon", "demo/web", "w4", "10.2.0.4")]),
}


def test_registered_workers_say_what_they_are() -> None:
    assert registered_workers(StoreSnapshot(1, RECORDS)) == {
        "w1": RegisteredWorker("2", "ipvs", "0a"),
        "worker 2": RegisteredWorker("2", "nftables", "0b"),
        "w3": RegisteredWorker("1"),
    }


def test_only_records_of_daemons_change_them() -> None:
    before = registered_workers(StoreSnapshot(1, RECORDS))
    unrelated = StoreSnapshot(1, RECORDS, changed=frozenset({"workers/w4/endpoints/daemon", "health/w1/a"}))
    assert registered_workers(unrelated, before) is before
    changed = {**RECORDS, **encode_digest("w1", "0c")}
    after = registered_workers(StoreSnapshot(2, changed, changed=frozenset({"workers/w1/digest"})), before)
    assert after["w1"].digest == "0c"


class Unlisted(dict[str, bytes]):
    """Records of a store that nobody may go through: a cluster has 100,000 of them."""

    @override
    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all records are looked at")

    @override
    def items(self) -> NoReturn:
        raise AssertionError("all records are looked at")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["daemon", "digest", "endpoints/a", "endpoints/daemon"]),
            st.sampled_from(["w1", "w%202"]),
            st.sampled_from([None, b'{"version": "1"}', b'{"digest": "0a"}', b"["]),
        )
    )
)
def test_what_has_changed_is_enough(story: list[tuple[str, str, bytes | None]]) -> None:
    records: dict[str, bytes] = {}
    known = registered_workers(StoreSnapshot(0, records))
    for revision, (kind, worker, value) in enumerate(story, 1):
        key = f"workers/{worker}/{kind}"
        records = {each: said for each, said in records.items() if each != key}
        if value is not None:
            records[key] = value
        known = registered_workers(StoreSnapshot(revision, Unlisted(records), changed=frozenset({key})), known)
        assert known == registered_workers(StoreSnapshot(revision, records))


DROPPED = Problem(Code.PEERS_DROPPED, Severity.ERROR, "firewall", "it drops", "remove it", owner="demo/web")


def test_a_worker_tells_what_its_firewall_drops_of_the_services_that_it_runs() -> None:
    long = replace(DROPPED, reason="x" * 900)
    foreign = replace(DROPPED, owner="demo/other")
    records = {**RECORDS, **encode_digest("w1", "0a", [DROPPED, foreign, long])}
    found = registered_workers(StoreSnapshot(1, records))
    (told, cut) = told_problems(
        found, [endpoint("a", worker="w1"), endpoint("b", worker="w3", owner="demo/other")], "w3"
    )
    assert told == replace(DROPPED, subject="worker w1")
    assert len(cut.reason) <= MAX_TEXT
    assert (dropping_worker(told, "w3"), dropping_worker(DROPPED, "w3")) == ("w1", "w3")
    assert told_problems(found, [endpoint("a", worker="w1")], "w1") == (), "its own problems are among its problems"


@pytest.mark.parametrize(
    "told", [b"1", b"[1]", b'[{"owner": "o", "reason": "\\u001b", "remedy": "r"}]', b'[{"owner": "o", "reason": ""}]']
)
def test_what_is_told_and_cannot_be_used_is_nothing(told: bytes) -> None:
    value = b'{"v": 1, "digest": "0a", "told": ' + told + b"}"
    records = {"workers/w1/daemon": b"{}", "workers/w1/digest": value}
    assert registered_workers(StoreSnapshot(1, records)) == {"w1": RegisteredWorker()}


def test_no_more_is_taken_than_a_worker_may_tell() -> None:
    records = {**RECORDS, **encode_digest("w1", "0a", [DROPPED] * 50)}
    assert len(registered_workers(StoreSnapshot(1, records))["w1"].told) == MAX_TOLD


@pytest.mark.parametrize("value", [b"", b"[]", b"{", b'{"version": 1}', b"[" * 100_000, b'{"version": "a\\u001b"}'])
def test_a_record_that_cannot_be_used_says_nothing(value: bytes) -> None:
    assert registered_workers(StoreSnapshot(1, {"workers/w1/daemon": value})) == {"w1": RegisteredWorker()}


def test_the_digest_is_in_no_view() -> None:
    view, problems = build_view(RECORDS)
    without = {key: value for key, value in RECORDS.items() if not key.endswith("/digest")}
    assert not problems
    assert build_view(without)[0] == view


def test_the_document_has_every_worker() -> None:
    registered = registered_workers(StoreSnapshot(1, RECORDS))
    observed = WorkerSnapshot(
        FACTS,
        build_view(RECORDS)[0],
        digest="0a",
        registered={name: said for name, said in registered.items() if name != "w1"},
        unleased=frozenset({"w3"}),
        heard={"worker 2": 60.5, "w3": 5.0, "w1": 7.0},
    )
    assert workers_document(observed).workers == (
        WorkerEntry("w1", "2", "ipvs", "missing", None, "0a", 0),
        WorkerEntry("w3", "1", None, "ended", "1970-01-01T00:00:05+00:00", None, 1),
        WorkerEntry("w4", None, None, "ended", None, None, 1),
        WorkerEntry("worker 2", "2", "nftables", "kept", "1970-01-01T00:01:00+00:00", "0b", 0),
    )


def test_a_worker_alone_has_no_lease() -> None:
    alone = WorkerSnapshot(WorkerFacts("2", "w1", "ipvs", "asked for", store="sqlite:///var/lib/vipmesh/store.db"))
    assert [entry.lease for entry in workers_document(alone).workers] == ["none"]


ONE = {"name": "w1", "version": "2", "data_plane": "ipvs", "lease": "kept", "last_seen": None, "digest": "0a"}
TWO = {"name": "w\x1b2", "version": None, "data_plane": None, "lease": "ended", "last_seen": None, "digest": None}
DOCUMENT: dict[str, Any] = {"worker": "w1", "workers": [{**ONE, "endpoints": 2}, {**TWO, "endpoints": 0}]}


class WorkersHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(DOCUMENT).encode()
        self.send_response(200 if self.path == "/v1/workers" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error for what is tested."""


@pytest.fixture
def admin() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), WorkersHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_table_and_the_document(admin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workers", "--admin", admin]) == 0
    assert capsys.readouterr().out == (
        "WORKER  VERSION  DATA PLANE  LEASE  LAST SEEN    DIGEST   ENDPOINTS\n"
        "w1      2        ipvs        kept   this worker  0a       2\n"
        "w\\x1b2  unknown  unknown     ended  -            unknown  0\n"
    )
    assert main(["workers", "--admin", admin, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_without_a_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workers", "--admin", "127.0.0.1:1"]) == 1
    assert "no daemon answers" in capsys.readouterr().err
