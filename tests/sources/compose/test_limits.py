"""The bounds of compose files and of the `.env` beside them: what is longer is refused, in linear time."""

from pathlib import Path

import pytest
from dotenv.variables import Literal, Variable, parse_variables
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.model.problem import Severity
from mesh.sources.compose.dotenv_file import parse_dotenv_value, resolve_dotenv
from mesh.sources.compose.interpolate import ExpansionError, interpolate
from mesh.sources.compose.model import ComposeLimits
from mesh.sources.compose.parse import read_compose_file
from mesh.sources.compose.source import load_compose_file

SERVICE = "services:\n  web:\n    labels:\n"


def broken_for(text: str, limits: ComposeLimits, **env: str) -> str:
    """Why the file is broken."""
    read = read_compose_file(text, "compose.yaml", env, limits)
    assert read.broken
    (error,) = (problem for problem in read.problems if problem.severity is Severity.ERROR)
    assert error.code is Code.COMPOSE_NOT_YAML
    assert "or raise [source.compose]" in error.remedy
    return error.reason


@pytest.mark.parametrize(
    "text",
    [
        "x: [" + "a, " * 100 + "]\n",
        "x: &a [b]\ny: [" + "*a, " * 100 + "]\n",
        "".join(f"k{n}: v\n" for n in range(60)),
        "x: [" + "[], " * 100 + "]\n",
    ],
    ids=["texts", "aliases", "keys", "lists"],
)
def test_a_file_with_too_many_values_is_broken(text: str) -> None:
    limits = ComposeLimits(values=110)
    assert broken_for(text * 1 + "services: {a: {labels: [x]}}\n", ComposeLimits(values=100)) == (
        "it has more than 100 keys and values"
    )
    assert not read_compose_file("services: {a: {labels: [x]}}\n", "compose.yaml", {}, limits).broken


def test_a_file_of_exactly_as_many_values_is_read() -> None:
    text = "services: {a: {labels: [x]}}\n"  # the document, its key, the services, a, its value, labels, the list, x
    assert not read_compose_file(text, "compose.yaml", {}, ComposeLimits(values=8)).broken
    assert broken_for(text, ComposeLimits(values=7)) == "it has more than 7 keys and values"


def test_one_long_text_that_many_aliases_repeat_is_refused() -> None:
    text = f'x: &a "{"y" * 1000}"\n' + SERVICE + "".join(f"      mesh.k{n}: *a\n" for n in range(100))
    limits = ComposeLimits(file_bytes=10_000)
    assert "more than 20000 characters with aliases and variables replaced" in broken_for(text, limits)


def test_variables_that_make_long_texts_are_refused() -> None:
    text = SERVICE + f"      mesh.k: {'${A}' * 100}\n"
    reason = broken_for(text, ComposeLimits(file_bytes=10_000), A="y" * 1000)
    assert "more than 20000 characters with aliases and variables replaced" in reason
    many = SERVICE + "".join(f"      mesh.k{n}: ${{A}}\n" for n in range(100))
    assert "more than 20000 characters" in broken_for(many, ComposeLimits(file_bytes=10_000), A="y" * 1000)


@pytest.mark.parametrize("text", ["$A$A$A", "${A}${A}${A}", "${B:-${A}${A}${A}}", "xyz$A$A", "${B?$A$A$A}"])
def test_an_expansion_has_a_bound(text: str) -> None:
    with pytest.raises(ExpansionError):
        interpolate(text, {"A": "y" * 10}, 22)


def test_problems_beyond_the_limit_are_counted_and_errors_are_kept_first() -> None:
    warnings = "".join(f"      mesh.w{n}: $UNSET{n}\n" for n in range(20))
    errors = "".join(f"      mesh.e{n}: [a]\n" for n in range(5))
    read = read_compose_file(SERVICE + warnings + errors, "compose.yaml", {}, ComposeLimits(problems=8))
    *kept, rest = read.problems
    assert [problem.severity for problem in kept] == [Severity.WARNING] * 3 + [Severity.ERROR] * 5
    assert [problem.where for problem in kept[:3]] == [f"compose.yaml:{n}" for n in (4, 5, 6)]
    assert (rest.code, rest.severity, rest.reason) == (
        Code.PROBLEMS_NOT_SHOWN,
        Severity.WARNING,
        "it has 17 more problems, which are not shown",
    )
    few = read_compose_file(SERVICE + errors * 1, "compose.yaml", {}, ComposeLimits(problems=5))
    assert [problem.code for problem in few.problems] == [Code.COMPOSE_STRUCTURE] * 5
    more = read_compose_file(SERVICE + errors, "compose.yaml", {}, ComposeLimits(problems=4))
    assert more.problems[-1].severity is Severity.ERROR
    assert more.problems[-1].reason.startswith("it has 1 more")


def test_the_error_that_breaks_a_file_is_shown_beside_any_number_of_problems() -> None:
    text = "a: 1\na: 2\nb: 1\nb: 2\nservices: 5\n"
    read = read_compose_file(text, "compose.yaml", {}, ComposeLimits(problems=1))
    assert [problem.reason for problem in read.problems][-1] == "services is not a mapping"


def test_a_dotenv_file_that_doubles_a_text_again_and_again_is_refused(tmp_path: Path) -> None:
    doubling = "".join(f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(60))
    (tmp_path / ".env").write_text("A0=xxxx\n" + doubling)
    (tmp_path / "compose.yaml").write_text(SERVICE + "      mesh.k: $A1\n")
    read = load_compose_file(tmp_path / "compose.yaml", {})
    assert read.broken
    (problem,) = read.problems
    assert problem.where == str(tmp_path / ".env")
    assert "its values have more than 8388608 characters" in problem.reason


def test_a_dotenv_file_with_too_many_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n" * 60)
    (tmp_path / "compose.yaml").write_text(SERVICE + "      mesh.k: $A\n")
    assert not load_compose_file(tmp_path / "compose.yaml", {}, ComposeLimits(values=60)).broken
    (problem,) = load_compose_file(tmp_path / "compose.yaml", {}, ComposeLimits(values=59)).problems
    assert (problem.where, problem.reason) == (str(tmp_path / ".env"), "it has more than 59 lines")


def test_openings_without_an_end_cost_linear_time(tmp_path: Path) -> None:
    """python-dotenv's own search takes hours for each of these."""
    for text in ("${" * 500_000, "${:" * 500_000 + "}", "${" * 500_000 + ":x}", "${a:-" * 500_000):
        assert resolve_dotenv([("A", text)], {}, 1 << 24)["A"] == text


PIECES = st.lists(st.sampled_from(["${", "}", ":", ":-", "$", "{", "-", "A", "b c"]), max_size=12).map("".join)


@given(PIECES)
def test_values_are_read_as_python_dotenv_reads_them(value: str) -> None:
    expected: list[tuple[str, str | None, str]] = []
    for atom in parse_variables(value):
        if isinstance(atom, Literal):
            expected.append((atom.value, None, ""))
        elif isinstance(atom, Variable):
            expected.append(("", atom.name, atom.default or ""))
    assert list(parse_dotenv_value(value)) == expected
