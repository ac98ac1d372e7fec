"""Which check is admitted next when more checks are due than may run at once."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.health.admission import AdmissionQueue


def test_slow_checks_get_at_most_half_of_the_capacity() -> None:
    turns: AdmissionQueue[str] = AdmissionQueue(4)
    for number in range(5):
        turns.wait(f"slow {number}", slow=True)
    assert [turns.next(), turns.next(), turns.next()] == [("slow 0", True), ("slow 1", True), None]
    for number in range(3):
        turns.wait(f"quick {number}", slow=False)
    assert [turns.next(), turns.next(), turns.next()] == [("quick 0", False), ("quick 1", False), None]
    turns.leave(slow=False)
    assert turns.next() == ("quick 2", False)
    turns.leave(slow=True)
    assert turns.next() == ("slow 2", True)
    assert len(turns) == 2


def test_quick_and_slow_checks_alternate_while_both_wait() -> None:
    turns: AdmissionQueue[int] = AdmissionQueue(100)
    for number in range(3):
        turns.wait(number, slow=False)
        turns.wait(number + 10, slow=True)
    assert [turn[0] for _ in range(6) if (turn := turns.next())] == [0, 10, 1, 11, 2, 12]


@given(st.integers(1, 6), st.lists(st.sampled_from(["quick", "slow", "next", "leave"]), max_size=80))
def test_capacity_is_never_exceeded_and_every_waiting_check_is_admitted(room: int, steps: list[str]) -> None:
    turns: AdmissionQueue[int] = AdmissionQueue(room)
    inside: list[bool] = []
    waiting = {True: list[int](), False: list[int]()}
    for number, step in enumerate(steps):
        if step in ("quick", "slow"):
            turns.wait(number, slow=step == "slow")
            waiting[step == "slow"].append(number)
        elif step == "leave" and inside:
            turns.leave(slow=inside.pop())
        elif step == "next":
            turn = turns.next()
            slow_may = sum(inside) < max(1, room // 2)
            if turn is None:
                assert len(inside) == room or not (waiting[False] or (waiting[True] and slow_may))
            else:
                item, slow = turn
                assert waiting[slow].pop(0) == item
                inside.append(slow)
        assert len(inside) <= room
        assert sum(inside) <= max(1, room // 2)
        assert len(turns) == len(waiting[True]) + len(waiting[False])
