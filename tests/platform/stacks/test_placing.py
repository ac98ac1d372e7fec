"""Labels of workers for affinities, zones that must be there, and rebalancing."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.platform.fleet.protocol import (
    FleetAvailability,
    FleetContainer,
    FleetResources,
    FleetService,
    FleetSpec,
    FleetTask,
    FleetWorker,
)
from mesh.platform.stacks.affinity import runs_label
from mesh.platform.stacks.placing import (
    RebalanceLoad,
    plan_move,
    plan_rebalance,
    rebalance_step,
    worker_labels,
    zone_problems,
)
from tests.platform.stacks.stacks import desired_of, service_text


def worker(name: str, labels: Mapping[str, str] | None = None, *, is_ready: bool = True) -> FleetWorker:
    return FleetWorker(
        f"id-{name}",
        1,
        name,
        is_ready,
        FleetAvailability.ACTIVE,
        "",
        labels or {},
        {},
        "worker",
        False,
        FleetResources(),
    )


def engine_service(
    name: str, *constraints: str, labels: Mapping[str, str] | None = None, instances: int = 1
) -> FleetService:
    spec = FleetSpec(
        f"shop_{name}--1",
        FleetContainer("x", labels=labels or {}),
        {"mesh.stack": "shop", "mesh.service": f"shop/{name}"},
        instances,
        constraints=constraints,
    )
    return FleetService(f"id-{name}", 1, spec, 0, 0)


def task(service: str, on: str, state: str = "running", desired: str = "running") -> FleetTask:
    return FleetTask(f"{service}-{on}", f"id-{service}", 1, f"id-{on}" if on else "", desired, state, "", "", None, 0)


AVOIDS_DB = engine_service("web", "node.labels.mesh.runs.shop.db!=true")
DB = engine_service("db", labels={"a": "b"})


@pytest.mark.parametrize(
    ("before", "tasks", "changed"),
    [
        ({}, [task("db", "w1")], {"mesh.runs.shop.db": "true"}),
        ({"az": "1"}, [task("db", "w1")], {"az": "1", "mesh.runs.shop.db": "true"}),
        ({"mesh.runs.shop.db": "true"}, [task("db", "w1")], None),
        ({"mesh.runs.shop.db": "true", "az": "1"}, [], {"az": "1"}),
        ({"mesh.runs.shop.old": "true"}, [task("db", "w1")], {"mesh.runs.shop.db": "true"}),
        ({}, [task("web", "w1")], None),
        ({}, [task("db", "w1", desired="shutdown")], None),
        ({}, [task("db", "w1", state="failed")], None),
        ({}, [task("db", "", state="pending")], None),
        ({}, [task("db", "w1", state="preparing")], {"mesh.runs.shop.db": "true"}),
    ],
)
def test_a_worker_has_the_label_of_what_it_runs_if_a_constraint_compares_it(
    before: dict[str, str], tasks: list[FleetTask], changed: dict[str, str] | None
) -> None:
    found = worker_labels([worker("w1", before)], [AVOIDS_DB, DB], tasks)
    assert found == ({} if changed is None else {"id-w1": changed})


def test_a_worker_has_the_label_of_a_container_label() -> None:
    label = runs_label("a", "b")
    beside = engine_service("web", f"node.labels.{label}==true")
    assert worker_labels([worker("w1")], [beside, DB], [task("db", "w1")]) == {"id-w1": {label: "true"}}


def test_labels_that_are_kept_are_left_alone() -> None:
    workers = [worker("w1"), worker("w2")]
    services, tasks = [AVOIDS_DB, DB], [task("db", "w1"), task("web", "w2")]
    changed = worker_labels(workers, services, tasks)
    after = [worker(each.name, changed.get(each.id, each.labels)) for each in workers]
    assert worker_labels(after, services, tasks) == {}


@pytest.mark.parametrize(
    ("zones", "scale", "entry", "is_refused"),
    [
        ("abc", 3, "==3", False),
        ("abc", 2, "==3", True),
        ("aab", 3, "==3", True),
        ("aab", 2, "==2", False),
        ("aab", 1, "==2", True),
        ("abc", 2, "==2", False),
        ("aab", 1, "==~3", False),
        ("ab-", 2, "==2", True),
        ("ab-", 3, "==2", False),
        ("", 3, "==1", True),
    ],
)
def test_hard_zones_are_checked_before_anything_is_made(
    zones: str, scale: int, entry: str, *, is_refused: bool
) -> None:
    desired = desired_of(service_text(f"scale: {scale}\nenvironment: ['availability:az{entry}']"))
    workers = [worker(f"w{n}", {"az": zone} if zone != "-" else {}) for n, zone in enumerate(zones)]
    assert [problem.code for problem in zone_problems(desired, workers)] == ([Code.STACK_ZONES] if is_refused else [])


def test_a_worker_that_is_down_or_does_not_fit_is_no_zone() -> None:
    desired = desired_of(service_text("scale: 2\nenvironment: ['availability:az==2', 'constraint:disk==ssd']"))
    first, second = {"az": "a", "disk": "ssd"}, {"az": "b", "disk": "SSD"}
    assert zone_problems(desired, [worker("w1", first), worker("w2", second)]) == ()
    assert zone_problems(desired, [worker("w1", first), worker("w2", second, is_ready=False)])
    assert zone_problems(desired, [worker("w1", first), worker("w2", {"az": "b"})])


def load(counts: list[int], zones: list[str] | None = None, most: int = 0) -> RebalanceLoad:
    names = [f"w{n}" for n in range(len(counts))]
    values = zones or [""] * len(counts)
    below = {name: (value,) if zones else () for name, value in zip(names, values, strict=True)}
    return RebalanceLoad(dict(zip(names, counts, strict=True)), below, most)


def moved(before: RebalanceLoad) -> list[int]:
    for move in plan_rebalance(before):
        before = before.changed(move.target, 1).changed(move.source, -1)
    return list(before.counts.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [([3, 3, 0], [2, 2, 2]), ([6, 0, 0], [2, 2, 2]), ([2, 2, 1], [2, 2, 1]), ([1], [1]), ([], []), ([0, 0], [0, 0])],
)
def test_a_load_is_made_even(before: list[int], after: list[int]) -> None:
    assert moved(load(before)) == after


def test_zones_are_even_first() -> None:
    assert moved(load([4, 1, 1], ["a", "b", "b"])) == [3, 2, 1]
    assert plan_rebalance(load([3, 2, 1], ["a", "b", "b"])) == ()


COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(COUNTS)
def test_a_rebalanced_load_differs_by_at_most_one_and_is_left_alone(counts: list[int]) -> None:
    before = load(counts)
    moves = plan_rebalance(before)
    after = moved(before)
    assert sum(after) == sum(counts)
    assert max(after) - min(after) <= 1
    assert plan_rebalance(load(after)) == ()
    assert len(moves) <= sum(counts)


@given(
    COUNTS.flatmap(
        lambda counts: st.tuples(
            st.just(counts), st.lists(st.sampled_from("abc"), min_size=len(counts), max_size=len(counts))
        )
    ),
    st.integers(0, 5),
)
def test_a_rebalancing_over_zones_ends_and_is_then_left_alone(both: tuple[list[int], list[str]], most: int) -> None:
    counts, zones = both
    after = moved(load(counts, zones, most))
    assert sum(after) == sum(counts)
    assert plan_move(load(after, zones, most)) is None


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_steps_of_a_rebalancing_never_go_below_the_number_and_end(counts: list[int]) -> None:
    """The engine places and takes instances by its own rules, one at each step."""
    wanted = sum(counts)
    workers = [worker(f"w{n}") for n in range(len(counts))]
    now = load(counts)
    instances = wanted
    for _ in range(2 * wanted + 1):
        tasks = [task("web", name) for name, count in now.counts.items() for _ in range(count)]
        step = rebalance_step(engine_service("web", instances=instances), workers, tasks, wanted)
        if step is None:
            break
        assert wanted <= step <= wanted + 1
        chosen = now.next_worker() if step > instances else now.fullest_worker()
        assert chosen is not None
        now = now.changed(chosen, step - instances)
        instances = step
    else:
        pytest.fail("it does not end")
    assert instances == wanted
    assert wanted == 0 or max(now.counts.values()) - min(now.counts.values()) <= 1


def test_a_worker_that_cannot_have_an_instance_is_no_place_for_one() -> None:
    service = engine_service("web", "node.labels.disk==ssd", instances=2)
    workers = [worker("w1", {"disk": "ssd"}), worker("w2")]
    assert rebalance_step(service, workers, [task("web", "w1"), task("web", "w1")], 2) is None


def test_global_services_and_those_with_data_are_left_alone() -> None:
    workers, tasks = [worker("w1"), worker("w2")], [task("web", "w1"), task("web", "w1")]
    spec = engine_service("web", instances=2).spec
    assert rebalance_step(engine_service("web", instances=2), workers, tasks, 2) == 3
    staying = FleetSpec(spec.name, spec.container, {**spec.labels, "mesh.moves": "false"}, 2)
    every = FleetSpec(spec.name, spec.container, spec.labels, None)
    for other in (staying, every):
        assert rebalance_step(FleetService("id-web", 1, other, 0, 0), workers, tasks, 2) is None
