"""Variables in the values of compose files."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.sources.compose.interpolate import InterpolationError, interpolate

ENV = {"A": "one", "B": "two", "EMPTY": "", "_x1": "under"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain }{ text", "plain }{ text"),
        ("$A", "one"),
        ("$A$B", "onetwo"),
        ("${A}-$_x1.", "one-under."),
        ("$$A", "$A"),
        ("$", "$"),
        ("cost: 5$, $1, $}", "cost: 5$, $1, $}"),
        ("$$$A", "$one"),
        ("${A:-x}", "one"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${NONE-x}", "x"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE:-${NONE2-${B}}}!", "two!"),
        ("${NONE:-{}}", "{}"),
        ("${NONE:-$${}", "${"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${NONE+x}", ""),
        ("${A:?needed}", "one"),
        ("${EMPTY?needed}", ""),
        ("${A:-${NONE?not looked at}}", "one"),
    ],
)
def test_forms(text: str, expected: str) -> None:
    assert interpolate(text, ENV) == (expected, ())


def test_unset_variables_count_as_empty_and_are_named_once() -> None:
    assert interpolate("<$X${Y}$X>", ENV) == ("<>", ("X", "Y"))


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("${A", "is not closed", "}"),
        ("${}", "is not a variable", "${VAR}"),
        ("${A!x}", "is not a variable", "${VAR}"),
        ("${NONE?}", "variable NONE is required", "set NONE"),
        ("${EMPTY:?say $A}", "variable EMPTY is required (say one)", "set EMPTY"),
        ("${N:-" * 20 + "}" * 20, "nested more than 16 deep", "fewer"),
    ],
)
def test_refusals(text: str, reason: str, remedy: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, ENV)
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


@given(st.text())
def test_an_escaped_text_survives_a_round_trip(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), ENV) == (text, ())


@given(st.lists(st.sampled_from(["$", "{", "}", "A", "NONE", ":", "-", "?", "+", "x"])).map("".join))
def test_any_text_is_interpolated_or_refused(text: str) -> None:
    with suppress(InterpolationError):
        filled, unset = interpolate(text, ENV)
        assert len(filled) <= 3 * len(text)
        assert set(unset).isdisjoint(ENV)
