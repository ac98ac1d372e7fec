"""Problems: what others wrote never makes them long."""

from mesh.model.codes import Code
from mesh.model.problem import MAX_PROBLEM_TEXT, Problem, Severity


def test_each_text_of_a_problem_is_cut() -> None:
    problem = Problem(Code.WRITTEN_TWICE, Severity.ERROR, "s" * 100_000, "r" * 100_000, "m" * 100_000)
    assert [len(text) for text in (problem.subject, problem.reason, problem.remedy)] == [MAX_PROBLEM_TEXT] * 3
    assert problem.reason.endswith("...")


def test_a_text_that_fits_stays_whole() -> None:
    text = "r" * MAX_PROBLEM_TEXT
    assert Problem(Code.WRITTEN_TWICE, Severity.ERROR, "s", text, "m").reason == text
