"""Rounds of a rollout: from any state to the wanted one, within the bounds of its strategy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.fleet.protocol import FleetService, FleetTask
from mesh.platform.stacks.model import DesiredService, StackStrategy
from mesh.platform.stacks.rollout import CreateStep, RemoveStep, ScaleStep, StackStep, next_round
from mesh.platform.stacks.running import RunningRelease
from tests.platform.stacks.builders import desired_service


def desired(
    image: str,
    instances: int | None = 2,
    *,
    strategy: StackStrategy = StackStrategy.ROLLING,
    parallelism: int = 1,
    release: str = "",
) -> DesiredService:
    return desired_service("web", image, instances, strategy=strategy, parallelism=parallelism, release=release)


def running(
    target: DesiredService, instances: int | None, ready: int, created: float = 1.0, live: int = 0
) -> RunningRelease:
    spec = replace(target.spec, instances=instances)
    tasks = tuple(
        FleetTask(f"{target.release}.{n}", target.release, n, "w", "running", "running", "", "c", None, 0)
        for n in range(live)
    )
    engine = FleetService(target.release, 1, spec, created, created)
    return RunningRelease("web", target.release, target.digest, target.digest, engine, tasks, ready)


OLD, NEW = desired("web:1"), desired("web:2")


def shown(steps: tuple[StackStep, ...]) -> list[tuple[str, str, int | None]]:
    found: list[tuple[str, str, int | None]] = []
    for step in steps:
        image = (step.spec if isinstance(step, CreateStep) else step.engine.spec).container.image
        match step:
            case CreateStep():
                found.append(("create", image, step.spec.instances))
            case ScaleStep():
                found.append(("scale", image, step.instances))
            case RemoveStep():
                found.append(("remove", image, None))
    return found


@pytest.mark.parametrize(
    ("before", "steps"),
    [
        ([], [("create", "web:2", 2)]),
        ([running(NEW, 2, 2)], []),
        ([running(NEW, 2, 1)], []),
        ([running(NEW, 5, 5)], [("scale", "web:2", 2)]),
        ([running(NEW, 1, 1)], [("scale", "web:2", 2)]),
        ([running(OLD, 2, 2)], [("create", "web:2", 1)]),
        ([running(OLD, 2, 2), running(NEW, 1, 0)], []),
        ([running(OLD, 2, 2), running(NEW, 1, 1)], [("scale", "web:1", 1), ("scale", "web:2", 2)]),
        ([running(OLD, 1, 1), running(NEW, 2, 1)], []),
        ([running(OLD, 1, 1), running(NEW, 2, 2)], [("remove", "web:1", None)]),
        ([running(OLD, 2, 0)], [("create", "web:2", 1)]),
    ],
    ids=str,
)
def test_rolling_replaces_one_after_the_other(
    before: list[RunningRelease], steps: list[tuple[str, str, int | None]]
) -> None:
    assert shown(next_round(NEW, before).steps) == steps


@pytest.mark.parametrize(
    ("before", "steps"),
    [
        ([running(OLD, 2, 2, live=2)], [("scale", "web:1", 0)]),
        ([running(OLD, 0, 0, live=1)], []),
        ([running(OLD, 0, 0)], [("remove", "web:1", None), ("create", "web:2", 2)]),
        ([running(NEW, 2, 2)], []),
    ],
    ids=str,
)
def test_replace_starts_nothing_before_the_old_ones_have_ended(
    before: list[RunningRelease], steps: list[tuple[str, str, int | None]]
) -> None:
    assert shown(next_round(replace(NEW, strategy=StackStrategy.REPLACE), before).steps) == steps


def test_one_on_each_worker_runs_beside_the_old_ones_until_all_serve() -> None:
    old, new = desired("web:1", None), desired("web:2", None)
    assert shown(next_round(new, [running(old, None, 3, live=3)]).steps) == [("create", "web:2", None)]
    assert not next_round(new, [running(old, None, 3, live=3), running(new, None, 2, live=3)]).steps
    ready = next_round(new, [running(old, None, 3, live=3), running(new, None, 3, live=3)])
    assert shown(ready.steps) == [("remove", "web:1", None)]


def test_a_release_that_keeps_its_name_gets_a_free_one_in_the_engine() -> None:
    old, new = desired("web:1", release="v1"), desired("web:2", release="v1")
    (step,) = next_round(new, [running(old, 2, 2)], {"shop_web--v1"}).steps
    assert isinstance(step, CreateStep)
    assert step.spec.name not in ("shop_web--v1", "")
    (again,) = next_round(new, [running(old, 2, 2)], {"shop_web--v1", step.spec.name}).steps
    assert isinstance(again, CreateStep)
    assert again.spec.name not in ("shop_web--v1", step.spec.name)


def test_what_was_changed_outside_is_not_the_release_any_more() -> None:
    changed = replace(running(NEW, 2, 2), actual_digest="0" * 64)
    assert shown(next_round(NEW, [changed]).steps) == [("create", "web:2", 1)]


@given(
    wanted=st.integers(0, 6),
    parallelism=st.integers(1, 4),
    olds=st.lists(st.integers(0, 6), max_size=3),
    started=st.integers(0, 6),
    data=st.data(),
)
def test_rolling_converges_from_any_state_within_its_bounds(
    wanted: int, parallelism: int, olds: list[int], started: int, data: st.DataObject
) -> None:
    """Old instances serve; new ones begin to serve at any time after their start."""
    target = desired("new", wanted, parallelism=parallelism)
    known = {each.release: each for each in (target, *(desired(f"old{n}") for n in range(len(olds))))}
    counts = {desired(f"old{n}").release: each for n, each in enumerate(olds)}
    if started:
        counts[target.release] = started
    ready = min(started, data.draw(st.integers(0, 6)))
    total, serving = sum(counts.values()), sum(olds) + ready
    for _ in range(100):
        found = next_round(
            target,
            [
                running(known[release], number, ready if release == target.release else number, created=position)
                for position, (release, number) in enumerate(counts.items())
            ],
        )
        if found.is_done:
            break
        for step in found.steps:
            apply(step, counts)
            ready = min(ready, counts.get(target.release, 0))
            assert sum(counts.values()) <= max(total, wanted + parallelism)
            kept = sum(number for release, number in counts.items() if release != target.release) + ready
            assert kept >= min(serving, wanted)
        if not found.steps:
            assert ready < counts[target.release], "it waits for nothing"
            ready = data.draw(st.integers(ready + 1, counts[target.release]))
    assert counts == {target.release: wanted}


def apply(step: StackStep, counts: dict[str, int]) -> None:
    match step:
        case CreateStep():
            counts[step.release] = step.spec.instances or 0
        case ScaleStep():
            counts[step.release] = step.instances
        case RemoveStep():
            del counts[step.release]
