"""Which workers probe the endpoints of a departed worker, and which of its records are retained."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.departed import RETENTION, VERDICT_VALIDITY, DepartedWorkers, adoptable_records
from mesh.cluster.records.encode import build_view, encode_daemon, encode_registration, encode_verdict
from mesh.health.takeover import PROBERS_PER_ENDPOINT, choose_probers, taken_over_probes
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, Health
from mesh.model.view import ClusterView
from tests.builders import HTTP_PROBE, endpoint, service

WEB = service("web.test", probe=HTTP_PROBE)
PLAIN = service("plain.test")
WORKERS = [f"w{number}" for number in range(10)]

names = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8)


def records(worker: str, *endpoints: Endpoint) -> dict[str, bytes]:
    return encode_registration(worker, (WEB, PLAIN), endpoints) | encode_daemon(worker, "1", worker)


@given(names, st.text(), names)
def test_a_departing_worker_moves_only_its_own_probes(workers: set[str], id: str, gone: set[str]) -> None:
    before = choose_probers(("x", id), workers)
    assert len(before) == min(PROBERS_PER_ENDPOINT, len(workers)) == len(set(before))
    assert choose_probers(("x", id), sorted(workers)) == before
    after = choose_probers(("x", id), workers - gone)
    assert [one for one in before if one not in gone] == [one for one in after if one in before]


def test_probes_are_spread_evenly() -> None:
    first = Counter(choose_probers(("x", f"demo/web/{number}"), WORKERS)[0] for number in range(5000))
    both = Counter(one for number in range(5000) for one in choose_probers(("x", f"demo/web/{number}"), WORKERS))
    assert all(400 <= first[worker] <= 600 for worker in WORKERS)
    assert all(850 <= both[worker] <= 1150 for worker in WORKERS)


def test_only_endpoints_that_can_be_probed_remotely_are_taken_over() -> None:
    commands = replace(WEB, owner="demo/cmd", probe=Probe(ProbeKind.COMMAND, None, command="true"))
    headers = replace(WEB, owner="demo/key", probe=replace(HTTP_PROBE, withheld_headers=("Authorization",)))
    seen = ClusterView(
        (WEB, PLAIN, commands, headers),
        (
            endpoint("a", "w1"),
            endpoint("b", "w1", address="127.0.0.11"),
            endpoint("c", "w1", address="fe80::1"),
            endpoint("d", "w1", "demo/plain"),
            endpoint("e", "w1", "demo/cmd"),
            endpoint("f", "w2"),
            endpoint("g", "me"),
            endpoint("h", "w1", "demo/key"),
        ),
        workers=frozenset({"me", "w2"}),
        silent=frozenset({"w1"}),
    )
    assert [id for _, id in taken_over_probes(seen, "me")] == ["a"]
    assert not taken_over_probes(replace(seen, silent=frozenset()), "me")
    assert not taken_over_probes(replace(seen, workers=frozenset({"w2", *WORKERS[2:]})), "w1")


def test_while_the_store_is_unreachable_each_worker_probes_all_endpoints() -> None:
    """All of the others are silent then, and nobody shares the work."""
    seen = ClusterView(
        (WEB,),
        tuple(endpoint(f"e{number}", f"w{number % 9}") for number in range(50)),
        workers=frozenset({"me", *WORKERS}),
        silent=frozenset(WORKERS),
    )
    assert len(taken_over_probes(seen, "me")) == 50


def test_adoptable_records_are_those_of_remotely_probed_endpoints() -> None:
    left = adoptable_records("w1", records("w1", endpoint("a", "w1"), endpoint("b", "w1", "demo/plain")))
    seen, problems = build_view(left)
    assert not problems
    assert [one.key for one in seen.endpoints] == [("w1", "a")]
    assert seen.services == (WEB,)
    assert not seen.workers
    assert adoptable_records("w1", records("w1", endpoint("b", "w1", "demo/plain"))) == {}


def test_records_of_a_departed_worker_are_retained_for_a_limited_time() -> None:
    gone = DepartedWorkers()
    both = records("w1", endpoint("a", "w1")) | records("w 2/x", endpoint("a", "w 2/x"))
    only = records("w1", endpoint("a", "w1"))
    gone.notice(both, only, "w1", 100.0)
    assert gone.silent(["w 2/x"]) == {"w 2/x"}
    assert [one.key for one in build_view(gone.records)[0].endpoints] == [("w 2/x", "a")]
    assert not gone.tick(None, 100.0 + RETENTION - 1)
    assert gone.tick(None, 100.0 + RETENTION)
    assert (gone.silent(["w 2/x"]), gone.records) == (frozenset(), {})


def test_a_returning_worker_owns_its_records_again() -> None:
    gone = DepartedWorkers()
    both = records("w1", endpoint("a", "w1")) | records("w2", endpoint("a", "w2"))
    gone.notice(both, records("w1", endpoint("a", "w1")), "w1", 100.0)
    gone.notice(records("w1", endpoint("a", "w1")), both, "w1", 105.0)
    assert (gone.silent(["w2"]), gone.records) == (frozenset(), {})


def test_a_withdrawn_endpoint_is_not_retained() -> None:
    gone = DepartedWorkers()
    gone.notice(records("w2", endpoint("a", "w2"), endpoint("b", "w2")), records("w2", endpoint("a", "w2")), "w1", 0.0)
    assert gone.records == {}
    gone.notice(records("me", endpoint("a", "me")), {}, "me", 0.0)
    assert gone.records == {}


def test_verdicts_expire_while_the_store_is_unreachable() -> None:
    gone = DepartedWorkers()
    assert not gone.tick("away", 100.0)
    assert not gone.tick("away", 100.0 + VERDICT_VALIDITY - 0.1)
    assert gone.silent(["w2", "w3"]) == frozenset()
    assert gone.tick("away", 100.0 + VERDICT_VALIDITY)
    assert not gone.tick("still away", 200.0)
    assert gone.silent(["w2", "w3"]) == {"w2", "w3"}
    assert gone.tick(None, 201.0)
    assert gone.silent(["w2", "w3"]) == frozenset()


def test_a_substitute_verdict_counts_while_the_owner_is_departed() -> None:
    key = ("w1", "a")
    held = encode_registration("w1", (WEB,), [endpoint("a", "w1")])
    up = dict([encode_verdict("w2", key, Health.HEALTHY, kept=False, held_back=False)])
    down = dict([encode_verdict("w3", key, Health.UNHEALTHY, kept=False, held_back=False)])
    own = dict([encode_verdict("w1", key, Health.UNHEALTHY, kept=True, held_back=False)])
    assert build_view(held | up | down)[0].health == {key: Health.HEALTHY}
    assert build_view(held | down)[0].health == {key: Health.UNHEALTHY}
    back = build_view(held | up | own | encode_daemon("w1", "1", "x"))[0]
    assert back.health == {key: Health.UNHEALTHY}
    assert (back.kept, back.workers) == (frozenset({key}), frozenset({"w1"}))
