"""Pauses between attempts: bounded, longer after each failure, reset by a success."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.util.backoff import Backoff

SECONDS = st.floats(0.001, 60)
SHARE = st.floats(0, 1)
FAILURES = st.integers(1, 5000)


@given(SECONDS, SECONDS, SHARE, st.lists(SHARE, min_size=1))
def test_no_pause_exceeds_the_longest_nor_loses_more_than_the_jitter(
    first: float, longest: float, jitter: float, chances: list[float]
) -> None:
    drawn = iter(chances)
    backoff, exact = Backoff(first, longest, jitter=jitter, random=lambda: next(drawn)), Backoff(first, longest)
    for _ in chances:
        pause, unshortened = backoff.next_pause(), exact.next_pause()
        assert unshortened * (1 - jitter) <= pause <= unshortened <= longest


@given(SECONDS, SECONDS, FAILURES)
def test_a_pause_is_twice_as_long_as_the_last_until_it_is_the_longest(
    first: float, longest: float, failures: int
) -> None:
    backoff = Backoff(first, longest)
    pauses = [backoff.next_pause() for _ in range(failures)]
    assert pauses[0] == min(first, longest)
    assert all(after == min(2 * before, longest) for before, after in pairwise(pauses))


@given(SECONDS, SECONDS, FAILURES, FAILURES)
def test_a_success_resets_the_pauses(first: float, longest: float, before: int, after: int) -> None:
    backoff, new = Backoff(first, longest), Backoff(first, longest)
    for _ in range(before):
        backoff.next_pause()
    backoff.reset()
    assert [backoff.next_pause() for _ in range(after)] == [new.next_pause() for _ in range(after)]


def test_without_a_maximum_all_pauses_are_equal() -> None:
    backoff = Backoff(0.2)
    assert {backoff.next_pause() for _ in range(8)} == {0.2}


def test_the_pauses_for_the_docker_engine() -> None:
    backoff = Backoff(0.1, 5.0)
    assert [backoff.next_pause() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
