"""Conditions are logged once, and a flood of them is bounded."""

import logging
import time

import pytest

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.util.conditions import MAX_PROBLEMS, Conditions


def problem(number: int) -> Problem:
    return Problem(Code.RECORD_UNREADABLE, Severity.ERROR, f"record {number}", "it cannot be read", "delete it")


def test_a_problem_is_logged_once_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions()
    for problems in ([problem(1)], [problem(1), problem(2)], [problem(2)], [problem(2), problem(1)]):
        conditions.found("store", problems)
    shown = [record.getMessage().split(":")[1] for record in caplog.records]
    assert shown == [" record 1", " record 2", " record 1"]
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def test_a_flood_of_problems_is_counted_and_costs_little() -> None:
    conditions = Conditions()
    flood = tuple(problem(number) for number in range(100_000))
    conditions.found("store", flood)
    began = time.process_time()
    conditions.found("store", (*flood, problem(-1)))
    assert time.process_time() - began < 0.1
    kept = conditions.problems["store"]
    assert kept[:MAX_PROBLEMS] == flood[:MAX_PROBLEMS]
    assert kept[-1].reason == f"{100_001 - MAX_PROBLEMS} more problems are not shown"
    assert len(kept) == MAX_PROBLEMS + 1
