"""Who asks in the place of a worker that is gone, and what is remembered of it."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.departed import REMEMBERED, VALID, Gone, left_behind
from mesh.cluster.records.encode import daemon, registration, verdict, view
from mesh.health.takeover import TAKERS, taken, takers
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Endpoint, Health, Route, Service, Transport
from mesh.model.view import ClusterView

HTTP = Probe(ProbeKind.HTTP, 80)
WEB = Service("demo/web", "web.test", (Route("web.test", 80, Transport.TCP, 80),), probe=HTTP)
PLAIN = Service("demo/plain", "plain.test", (Route("plain.test", 80, Transport.TCP, 80),))
WORKERS = [f"w{number}" for number in range(10)]

names = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8)


def endpoint(id: str, worker: str, owner: str = "demo/web", address: str = "10.2.0.1") -> Endpoint:
    return Endpoint(id, owner, worker, address)


def records(worker: str, *endpoints: Endpoint) -> dict[str, bytes]:
    return registration(worker, (WEB, PLAIN), endpoints) | dict([daemon(worker, "1", worker)])


@given(names, st.text(), names)
def test_one_that_goes_moves_only_its_own(workers: set[str], id: str, gone: set[str]) -> None:
    before = takers(("x", id), workers)
    assert len(before) == min(TAKERS, len(workers)) == len(set(before))
    assert takers(("x", id), sorted(workers)) == before
    after = takers(("x", id), workers - gone)
    assert [one for one in before if one not in gone] == [one for one in after if one in before]


def test_everybody_gets_an_even_share() -> None:
    first = Counter(takers(("x", f"demo/web/{number}"), WORKERS)[0] for number in range(5000))
    both = Counter(one for number in range(5000) for one in takers(("x", f"demo/web/{number}"), WORKERS))
    assert all(400 <= first[worker] <= 600 for worker in WORKERS)
    assert all(850 <= both[worker] <= 1150 for worker in WORKERS)


def test_only_what_others_can_ask_is_taken() -> None:
    commands = replace(WEB, owner="demo/cmd", probe=Probe(ProbeKind.COMMAND, None, command="true"))
    seen = ClusterView(
        (WEB, PLAIN, commands),
        (
            endpoint("a", "w1"),
            endpoint("b", "w1", address="127.0.0.11"),
            endpoint("c", "w1", address="fe80::1"),
            endpoint("d", "w1", "demo/plain"),
            endpoint("e", "w1", "demo/cmd"),
            endpoint("f", "w2"),
            endpoint("g", "me"),
        ),
        workers=frozenset({"me", "w2"}),
        silent=frozenset({"w1"}),
    )
    assert [id for _, id in taken(seen, "me")] == ["a"]
    assert not taken(replace(seen, silent=frozenset()), "me")
    assert not taken(replace(seen, workers=frozenset({"w2", *WORKERS[2:]})), "w1")


def test_while_the_store_is_away_each_asks_for_itself() -> None:
    """All of the others are silent then, and nobody shares the work."""
    seen = ClusterView(
        (WEB,),
        tuple(endpoint(f"e{number}", f"w{number % 9}") for number in range(50)),
        workers=frozenset({"me", *WORKERS}),
        silent=frozenset(WORKERS),
    )
    assert len(taken(seen, "me")) == 50


def test_what_a_worker_leaves_behind_is_what_others_can_ask() -> None:
    left = left_behind("w1", records("w1", endpoint("a", "w1"), endpoint("b", "w1", "demo/plain")))
    seen, problems = view(left)
    assert not problems
    assert [one.key for one in seen.endpoints] == [("w1", "a")]
    assert seen.services == (WEB,)
    assert not seen.workers
    assert left_behind("w1", records("w1", endpoint("b", "w1", "demo/plain"))) == {}


def test_a_worker_that_is_gone_is_remembered_for_a_while() -> None:
    gone = Gone()
    both = records("w1", endpoint("a", "w1")) | records("w 2/x", endpoint("a", "w 2/x"))
    only = records("w1", endpoint("a", "w1"))
    gone.notice(both, only, "w1", 100.0)
    assert gone.silent(["w 2/x"]) == {"w 2/x"}
    assert [one.key for one in view(gone.records)[0].endpoints] == [("w 2/x", "a")]
    assert not gone.listen(None, 100.0 + REMEMBERED - 1)
    assert gone.listen(None, 100.0 + REMEMBERED)
    assert (gone.silent(["w 2/x"]), gone.records) == (frozenset(), {})


def test_a_worker_that_is_back_is_its_own_again() -> None:
    gone = Gone()
    both = records("w1", endpoint("a", "w1")) | records("w2", endpoint("a", "w2"))
    gone.notice(both, records("w1", endpoint("a", "w1")), "w1", 100.0)
    gone.notice(records("w1", endpoint("a", "w1")), both, "w1", 105.0)
    assert (gone.silent(["w2"]), gone.records) == (frozenset(), {})


def test_an_endpoint_that_its_worker_withdraws_is_not_remembered() -> None:
    gone = Gone()
    gone.notice(records("w2", endpoint("a", "w2"), endpoint("b", "w2")), records("w2", endpoint("a", "w2")), "w1", 0.0)
    assert gone.records == {}
    gone.notice(records("me", endpoint("a", "me")), {}, "me", 0.0)
    assert gone.records == {}


def test_words_lose_their_validity_while_the_store_is_away() -> None:
    gone = Gone()
    assert not gone.listen("away", 100.0)
    assert not gone.listen("away", 100.0 + VALID - 0.1)
    assert gone.silent(["w2", "w3"]) == frozenset()
    assert gone.listen("away", 100.0 + VALID)
    assert not gone.listen("still away", 200.0)
    assert gone.silent(["w2", "w3"]) == {"w2", "w3"}
    assert gone.listen(None, 201.0)
    assert gone.silent(["w2", "w3"]) == frozenset()


def test_a_verdict_in_the_place_of_another_counts_while_that_one_is_gone() -> None:
    key = ("w1", "a")
    held = registration("w1", (WEB,), [endpoint("a", "w1")])
    up = dict([verdict("w2", key, Health.HEALTHY, kept=False, held_back=False)])
    down = dict([verdict("w3", key, Health.UNHEALTHY, kept=False, held_back=False)])
    own = dict([verdict("w1", key, Health.UNHEALTHY, kept=True, held_back=False)])
    assert view(held | up | down)[0].health == {key: Health.HEALTHY}
    assert view(held | down)[0].health == {key: Health.UNHEALTHY}
    back = view(held | up | own | dict([daemon("w1", "1", "x")]))[0]
    assert back.health == {key: Health.UNHEALTHY}
    assert (back.kept, back.workers) == (frozenset({key}), frozenset({"w1"}))
