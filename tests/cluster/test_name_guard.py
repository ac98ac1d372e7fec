"""A second daemon with the name of this worker: which of the two is newer, and when it is gone."""

import pytest

from mesh.cluster.name_guard import NameGuard
from mesh.cluster.records.encode import encode_daemon
from mesh.control.conditions import LoopConditions

OWN, OTHER = (encode_daemon("w1", "0.1.0", session) for session in ("own", "other"))
OLDER_VERSION = encode_daemon("w1", "0.0.9", "own")


@pytest.fixture
def journal() -> LoopConditions:
    return LoopConditions()


@pytest.fixture
def guard(journal: LoopConditions) -> NameGuard:
    return NameGuard("w1", OWN, journal)


def test_a_record_older_than_the_own_one_is_of_an_older_daemon(guard: NameGuard, journal: LoopConditions) -> None:
    guard.follow(OTHER)
    assert not guard.is_contested
    assert not journal.problems.get("name")


def test_a_record_that_replaces_the_own_one_is_of_a_newer_daemon_until_it_is_gone(
    guard: NameGuard, journal: LoopConditions
) -> None:
    contested, problems = [], []
    for records in (OWN, OTHER, {}):
        guard.follow(records)
        contested.append(guard.is_contested)
        problems.append(len(journal.problems.get("name", ())))
    assert contested == [False, True, False]
    assert problems == [0, 1, 0]


@pytest.mark.parametrize("record", [OLDER_VERSION, {}, dict.fromkeys(OWN, b"x")])
def test_only_the_record_of_another_run_contests_the_name(guard: NameGuard, record: dict[str, bytes]) -> None:
    guard.follow(OWN)
    guard.follow(record)
    assert not guard.is_contested


def test_a_record_in_a_restored_store_is_of_an_older_daemon(guard: NameGuard) -> None:
    guard.follow(OWN)
    guard.store_was_lost()
    guard.follow(OTHER)
    assert not guard.is_contested
