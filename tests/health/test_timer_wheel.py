"""The timer wheel against a plain list of due times, and the arithmetic of the interval."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.health.timer_wheel import TimerWheel, first_due, next_due

SLOT = 0.1
KEYS = st.sampled_from("abcdefgh")
TIMES = st.floats(0, 50, allow_nan=False)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS, TIMES),
        st.tuples(st.just("remove"), KEYS, st.just(0.0)),
        st.tuples(st.just("wait"), st.just(""), st.floats(0, 5)),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_key_fires_once_not_early_and_at_most_a_slot_late(steps: list[tuple[str, str, float]]) -> None:
    wheel: TimerWheel[str] = TimerWheel(SLOT)
    listed, now = dict[str, float](), 0.0
    for verb, key, value in steps:
        if verb == "add":
            wheel.add(key, value)
            listed[key] = value
        elif verb == "remove":
            wheel.remove(key)
            listed.pop(key, None)
        else:
            now += value
            fired = wheel.due(now)
            assert len(fired) == len(set(fired))
            assert all(listed.pop(expired) <= now + 1e-6 for expired in fired)
            assert all(due > now - SLOT - 1e-6 for due in listed.values())
        assert len(wheel) == len(listed)
        assert all((letter in wheel) == (letter in listed) for letter in "abcdefgh")
        upcoming = wheel.next_due()
        if upcoming is None:
            assert not listed
        else:
            assert -1e-6 <= upcoming - min(listed.values()) <= SLOT + 1e-6


@given(st.lists(TIMES, min_size=1))
def test_next_due_is_when_due_returns_something(dues: list[float]) -> None:
    wheel: TimerWheel[str] = TimerWheel(SLOT)
    for number, due in enumerate(dues):
        wheel.add(str(number), due)
    returned = 0
    while (when := wheel.next_due()) is not None:
        assert wheel.due(when - 0.001) == []
        keys = wheel.due(when)
        assert keys
        returned += len(keys)
    assert returned == len(dues)


def test_after_a_suspension_each_key_fires_once_in_order() -> None:
    wheel: TimerWheel[str] = TimerWheel(SLOT)
    for key, due in (("late", 3.0), ("early", 0.2), ("later", 900.0), ("not yet", 5000.0)):
        wheel.add(key, due)
    assert wheel.due(4000.0) == ["early", "late", "later"]
    assert wheel.due(4000.0) == []
    assert wheel.next_due() == pytest.approx(5000.0)


def test_a_key_that_is_added_again_has_moved() -> None:
    wheel: TimerWheel[str] = TimerWheel(SLOT)
    wheel.add("a", 1.0)
    wheel.add("a", 2.0)
    assert wheel.due(1.5) == []
    assert wheel.due(2.0) == ["a"]


@pytest.mark.parametrize("due", [0.1, 0.1 + 0.2, 2.9, 4.3, 7.1, 1_000_000.1, 1_000_000.0 + 0.1 * 3])
def test_a_time_on_the_grid_is_its_own_slot(due: float) -> None:
    wheel: TimerWheel[str] = TimerWheel(SLOT)
    wheel.add("a", due)
    assert wheel.next_due() == pytest.approx(due, abs=1e-6)
    assert wheel.due(due) == ["a"]


@given(st.floats(0, 1e6), st.floats(0.05, 3600), st.floats(-100, 1e5))
def test_the_interval_is_kept_and_missed_times_are_skipped(due: float, interval: float, late: float) -> None:
    now = due + late
    after = next_due(due, interval, now)
    grain = 1e-6 * interval
    assert after > now - grain
    assert after <= max(now, due) + interval + grain
    steps = (after - due) / interval
    assert math.isclose(steps, round(steps), abs_tol=1e-4)
    assert round(steps) >= 1


def test_the_first_check_is_spread_over_a_tenth_of_the_interval() -> None:
    dues = [first_due(f"demo/server/{number}", 100.0, 3.0, 10.0) for number in range(1000)]
    assert all(103.0 <= due < 104.0 for due in dues)
    assert dues == [first_due(f"demo/server/{number}", 100.0, 3.0, 10.0) for number in range(1000)]
    wheel: TimerWheel[str] = TimerWheel(SLOT)
    for number, due in enumerate(dues):
        wheel.add(str(number), due)
    sizes = [len(wheel.due(103.0 + slot * SLOT)) for slot in range(1, 11)]
    assert sum(sizes) == 1000
    assert max(sizes) < 150  # 100 each, were it quite even
