"""Mass failures: which endpoints stay in traffic, as scenarios and as properties."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.health.correlation import FailureGroup, FailureGroupKind, failure_window
from mesh.health.panic import (
    FailureSuspicion,
    PanicState,
    ProbeEvidence,
    panic_overrides,
    resume_panic_state,
    update_panic_state,
)
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health, Route, Service, Transport
from mesh.model.view import ClusterView
from tests.health import panic_oracle as floor_oracle

PROBE = Probe(ProbeKind.TCP, 80)  # 5 s, 3 failures: a window of 27 s
UP, DOWN, STARTING = Health.HEALTHY, Health.UNHEALTHY, Health.STARTING


def view(services: Mapping[str, str], probe: Probe = PROBE, drains: str = "") -> ClusterView:
    """`{"shop": "aab"}`: endpoints shop0 and shop1 on worker a, shop2 on worker b."""
    declared = [Service(f"demo/{name}", f"{name}.local", (route(name),), probe=probe) for name in services]
    endpoints = [
        Endpoint(
            f"{name}{number}",
            f"demo/{name}",
            worker,
            f"10.0.0.{number + 1}",
            drain=DrainReason.ASKED if f"{name}{number}" in drains.split() else None,
        )
        for name, workers in services.items()
        for number, worker in enumerate(workers)
    ]
    return ClusterView(tuple(declared), tuple(endpoints))


def route(name: str) -> Route:
    return Route(f"{name}.local", 80, Transport.TCP, 80)


class Story:
    """One look after the other over the same endpoints, all healthy at first."""

    def __init__(self, seen: ClusterView, floor: int = 50) -> None:
        self.view = seen
        self.keys = {endpoint.id: endpoint.key for endpoint in seen.endpoints}
        self.health = dict.fromkeys(self.keys.values(), UP)
        self.percent = floor
        self.floor = update_panic_state(
            PanicState(), replace(seen, health=self.health), ProbeEvidence(), floor=floor, now=0.0
        )

    def at(self, now: float, down: str = "", up: str = "", failing: str = "") -> str:
        """What is in traffic after these have fallen and those have come back."""
        self.health |= {self.keys[id]: DOWN for id in down.split()} | {self.keys[id]: UP for id in up.split()}
        seen = replace(self.view, health=dict(self.health))
        asked = ProbeEvidence(frozenset(self.keys[id] for id in failing.split()))
        self.floor = update_panic_state(self.floor, seen, asked, floor=self.percent, now=now)
        traffic = seen.judged(panic_overrides(seen, self.floor.kept, frozenset())).health
        return " ".join(id for id, key in self.keys.items() if traffic[key] is UP)


def test_a_single_failed_endpoint_is_removed() -> None:
    story = Story(view({"shop": "aaab"}))
    assert story.at(1, down="shop0") == "shop1 shop2 shop3"
    assert not story.floor.suspicions


def test_half_of_the_endpoints_stay_when_most_fail_at_once() -> None:
    story = Story(view({"shop": "abcd"}))
    assert story.at(1, down="shop0 shop1") == "shop2 shop3"
    assert not story.floor.suspicions
    assert story.at(3, down="shop2") == "shop0 shop3"  # whichever fell first: they fell at once
    assert story.floor.suspicions == (FailureSuspicion(FailureGroup(FailureGroupKind.SERVICE, "demo/shop"), 3, 4, 1),)
    assert story.at(4, down="shop3") == "shop0 shop1"
    assert story.at(4000) == "shop0 shop1"  # however long it lasts
    assert story.at(4001, up="shop0") == "shop0 shop1"
    assert story.at(4002, up="shop1") == "shop0 shop1"
    assert not story.floor.suspicions


def test_gradual_failures_are_not_treated_as_mass_failure() -> None:
    story = Story(view({"shop": "abcd"}))
    assert story.at(0, down="shop0") == "shop1 shop2 shop3"
    assert story.at(100, down="shop1") == "shop2 shop3"
    assert story.at(200, down="shop2") == "shop3"
    assert story.at(300, down="shop3") == ""


def test_the_only_endpoint_of_a_service_is_removed_unless_its_worker_is_suspected() -> None:
    story = Story(view({"a": "w", "b": "w", "c": "w", "d": "v"}))
    assert story.at(0, down="a0") == "b0 c0 d0"
    assert story.at(2, down="b0") == "a0 b0 c0 d0"  # two of three: the first comes back
    assert story.floor.suspicions == (FailureSuspicion(FailureGroup(FailureGroupKind.WORKER, "w"), 2, 3, 2),)
    assert story.at(3, down="d0") == "a0 b0 c0"  # another worker's
    assert story.at(99, up="c0 b0") == "b0 c0"


def test_failing_checks_are_evidence_before_other_endpoints_become_unhealthy() -> None:
    story = Story(view({"a": "w", "b": "w", "c": "w"}))
    assert story.at(0, down="a0", failing="a0 b0 c0") == "a0 b0 c0"
    story = Story(view({"a": "w", "b": "w", "c": "w"}))
    assert story.at(0, down="a0", failing="a0 b0") == "a0 b0 c0"
    assert story.at(5, failing="a0") == "b0 c0"  # it was nothing: the others answer
    story = Story(view({"a": "w", "b": "w", "c": "w"}))
    assert story.at(0, failing="a0 b0 c0") == "a0 b0 c0"
    assert not story.floor.suspicions  # nobody is to be taken out yet


def test_endpoints_of_other_workers_replace_those_of_a_worker_that_is_cut_off() -> None:
    story = Story(view({"shop": "aaabbb"}))
    assert story.at(0, down="shop0 shop1 shop2") == "shop3 shop4 shop5"
    assert [one.group for one in story.floor.suspicions] == [FailureGroup(FailureGroupKind.WORKER, "a")]


@pytest.mark.parametrize(("percent", "left"), [(0, 0), (1, 1), (34, 4), (50, 5), (100, 10)])
def test_the_floor_comes_from_the_label_or_the_settings(percent: int, left: int) -> None:
    everybody = " ".join(f"shop{number}" for number in range(10))
    by_label = Story(view({"shop": "a" * 10}, Probe(ProbeKind.TCP, 80, floor=percent)))
    by_settings = Story(view({"shop": "a" * 10}), floor=percent)
    for story in (by_label, by_settings):
        assert len(story.at(1, down=everybody).split()) == left


def test_draining_endpoints_are_not_counted() -> None:
    story = Story(view({"shop": "abcd"}, drains="shop2 shop3"))
    story.at(1, down="shop0 shop1")
    assert len(story.floor.kept) == 1


def test_removed_endpoints_are_not_counted_and_new_ones_are() -> None:
    story = Story(view({"shop": "abcd"}))
    story.at(1, down="shop0 shop1 shop2 shop3")
    assert len(story.floor.kept) == 2
    story.view = view({"shop": "ab"})
    story.at(2)
    assert len(story.floor.kept) == 1
    story.view = view({"shop": "abcdef"})
    story.keys |= {endpoint.id: endpoint.key for endpoint in story.view.endpoints}
    story.at(3, up="shop4 shop5")
    assert not story.floor.kept


def test_after_a_restart_only_unhealthy_endpoints_in_traffic_are_kept() -> None:
    seen = view({"shop": "abcd"})
    keys = [endpoint.key for endpoint in seen.endpoints]
    down = replace(seen, health=dict.fromkeys(keys, DOWN))
    assert not update_panic_state(PanicState(), down, ProbeEvidence(), floor=50, now=0.0).kept
    adopted = resume_panic_state(seen, keys[2:], frozenset(), 0.0)
    assert update_panic_state(adopted, down, ProbeEvidence(), floor=50, now=0.0).kept == {keys[2]}


def test_a_held_back_endpoint_serves_if_its_service_has_no_other() -> None:
    seen = view({"shop": "ab", "bar": "ab"})
    (shop0, shop1, bar0, bar1) = (endpoint.key for endpoint in seen.endpoints)
    health = {shop0: DOWN, shop1: DOWN, bar0: DOWN, bar1: UP}
    seen = replace(seen, health=health)
    assert panic_overrides(seen, frozenset(), frozenset({shop0, bar0})) == {shop0: UP}
    assert panic_overrides(seen, frozenset({shop1}), frozenset({shop0})) == {shop1: UP}


services = st.dictionaries(
    st.sampled_from(["shop", "bar", "web"]), st.text("abc", min_size=1, max_size=6), min_size=1, max_size=3
)


@given(services, st.data())
def test_a_network_partition_leaves_each_service_half_of_its_endpoints(
    groups: dict[str, str], data: st.DataObject
) -> None:
    """All endpoints of some workers fall, in any order, spread over one interval and the time-out."""
    story = Story(view(groups))
    cut = data.draw(st.sets(st.sampled_from("abc"), min_size=1))
    falling = data.draw(st.permutations([key for key in story.keys.values() if key[0] in cut]))
    down: set[EndpointKey] = set()
    for number, key in enumerate(falling):
        down.add(key)
        failing = " ".join(id for _, id in falling[: number + 1]) if data.draw(st.booleans()) else ""
        serving = story.at(number * 7 / len(falling), down=key[1], failing=failing).split()
        for name, workers in groups.items():
            left = sum(id.startswith(name) for id in serving)
            fell = sum(id.startswith(name) for _, id in down)
            if fell == 1 and len(workers) == 1:
                continue  # the first of all may be believed; see below
            assert 2 * left >= len(workers), (name, serving)
    alone = [key for key in falling if len(groups[key[1].rstrip("0123456789")]) == 1]
    for worker in {worker for worker, _ in alone}:
        if sum(key[0] == worker for key in falling) > 1:
            assert all(key in story.floor.kept for key in alone if key[0] == worker)


steps = st.lists(
    st.tuples(st.integers(0, 17), st.sampled_from([UP, DOWN, STARTING]), st.sampled_from([0.0, 1.0, 10.0, 60.0])),
    max_size=40,
)


@given(services, steps, st.integers(0, 100))
def test_invariants_hold_for_any_sequence_of_verdicts(
    groups: dict[str, str], steps: list[tuple[int, Health, float]], percent: int
) -> None:
    seen = view(groups)
    keys = [endpoint.key for endpoint in seen.endpoints]
    health, floor, now = dict.fromkeys(keys, UP), PanicState(), 0.0
    fell_at: dict[EndpointKey, float] = {}
    for number, becomes, pause in [(0, UP, 0.0), *steps]:
        now += pause
        key = keys[number % len(keys)]
        if becomes is DOWN and health[key] is UP:
            fell_at[key] = now
        health = health | {key: becomes}
        seen = seen.judged({key: becomes}) if number else replace(seen, health=health)
        before, floor = floor, update_panic_state(floor, seen, ProbeEvidence(), floor=percent, now=now)
        assert all(health[key] is DOWN for key in floor.kept)
        assert not floor.kept or percent
        assert not floor.kept or floor.suspicions
        for one in floor.suspicions:
            assert 2 * (one.of - one.failing) < one.of
            assert one.failing >= 2 or one.group in before.groups
        for name, workers in groups.items():
            up = sum(health[key] is UP for key in keys if key[1].startswith(name))
            kept = sum(key[1].startswith(name) for key in floor.kept)
            assert not kept or up + kept <= math.ceil(len(workers) * percent / 100)
        again = update_panic_state(floor, seen, ProbeEvidence(), floor=percent, now=now)
        assert (again.kept, again.suspicions) == (floor.kept, floor.suspicions)
        fallen = {key for of in floor.fallen.values() for key in of.since}
        assert fallen <= {key for key in keys if health[key] is DOWN}
        assert all(now - fell_at[key] <= failure_window(PROBE) or before.groups for key in fallen)


moves = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 17), st.sampled_from([UP, DOWN, DOWN, STARTING, None]), max_size=4),
        st.sets(st.integers(0, 17), max_size=4),
        st.sampled_from([0.0, 1.0, 10.0, 27.0, 60.0]),
        st.sampled_from(["nothing", "nothing", "nothing", "drain", "probe", "silence", "others"]),
    ),
    max_size=25,
)


@given(services, services, moves, st.integers(0, 100))
def test_incremental_updates_equal_a_full_computation(
    groups: dict[str, str],
    others: dict[str, str],
    moves: list[tuple[dict[int, Health | None], set[int], float, str]],
    percent: int,
) -> None:
    """Whatever changes: verdicts, failing checks, drains, the floors of labels, who asks, and what there is at all."""
    seen = view(groups).judged({endpoint.key: UP for endpoint in view(groups).endpoints})
    known, floor, now = floor_oracle.Known(), PanicState(), 0.0
    asked = ProbeEvidence()
    for verdicts, failing, pause, event in [({}, set[int](), 0.0, "nothing"), *moves]:
        now += pause
        match event:
            case "drain":
                first = replace(seen.endpoints[0], drain=None if seen.endpoints[0].drain else DrainReason.ASKED)
                seen = replace(seen, endpoints=(first, *seen.endpoints[1:]))
            case "probe":
                other = replace(PROBE, floor=None if seen.services[0].probe != PROBE else 34, interval=1.0)
                seen = replace(seen, services=(replace(seen.services[0], probe=other), *seen.services[1:]))
            case "silence":
                judges = {endpoint.key: "b" for endpoint in seen.endpoints if endpoint.worker == "a"}
                asked = ProbeEvidence(probers={} if asked.probers else judges)
            case "others":
                there = view(others)
                seen = ClusterView(there.services, there.endpoints, health=seen.health)
        keys = [endpoint.key for endpoint in seen.endpoints]
        seen = seen.judged({keys[number % len(keys)]: said for number, said in verdicts.items()})
        asked = replace(asked, failing=frozenset(keys[number % len(keys)] for number in failing))
        known = floor_oracle.look(known, seen, asked, floor=percent, now=now)
        floor = update_panic_state(floor, seen, asked, floor=percent, now=now)
        assert (floor.kept, floor.suspicions) == (known.kept, known.suspicions)
        assert {key: at for of in floor.fallen.values() for key, at in of.since.items()} == known.fallen


def test_workers_that_see_failures_in_another_order_keep_the_same_endpoints() -> None:
    """Each learns of its own endpoints first, and of the others' when they have told."""
    one, other = Story(view({"shop": "abcd"})), Story(view({"shop": "abcd"}))
    for story, order in ((one, "0123"), (other, "3120")):
        for moment, number in enumerate(order):
            story.at(1 + moment / 10, down=f"shop{number}")
    assert one.floor.kept == other.floor.kept
    assert len(one.floor.kept) == 2
