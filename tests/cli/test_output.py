"""What reaches a terminal is printable, whatever its source."""

import io
import json
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.output import complain, print_json, printable


@given(st.text())
def test_text_is_printable_but_for_line_ends(text: str) -> None:
    assert printable(text).replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ["web.test", "a b\nc", "größe", ""])
def test_ordinary_text_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("a\rb", "a\\rb"), ("\x9b2J", "\\x9b2J"), ("\u202e", "\\u202e"), ("a\x00", "a\\x00")],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.dictionaries(st.text(), st.text()))
def test_json_stays_json(value: dict[str, str]) -> None:
    written = io.StringIO()
    with redirect_stdout(written):
        print_json(value)
    assert written.getvalue().replace("\n", "").isprintable()
    assert json.loads(written.getvalue()) == value


def test_errors_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    complain("a\x1b[2Jb", "VM101")
    assert capsys.readouterr().err == "vipmesh: a\\x1b[2Jb [VM101]\n"
