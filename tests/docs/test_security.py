"""SECURITY.md: each thing that a principal may not do is shown by tests, and the tests exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
CITED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| may not", "|---"))]
PRINCIPALS = (
    "author of a container",
    "process that is probed",
    "unprivileged user",
    "host of the network",
    "another worker",
    "token",
    "operator",
)
"""The rows of the design's threat table, in words of its headings."""


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the test functions in a file, those of its classes too."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


@pytest.mark.parametrize(("path", "name"), CITED)
def test_a_cited_test_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_each_row_names_a_test() -> None:
    assert len(ROWS) >= 25
    assert [row for row in ROWS if not re.search(r"`tests/[\w/]+\.py::\w+`", row)] == []
    assert len(re.findall(r"`tests/", TEXT)) == len(CITED), "each path of a test has the name of the test"


def test_each_principal_has_a_heading() -> None:
    headings = [line.lower() for line in TEXT.splitlines() if line.startswith("### ")]
    assert [who for who in PRINCIPALS if not any(who in heading for heading in headings)] == []


def test_it_says_how_to_report_and_invents_no_address() -> None:
    assert "private security advisory" in TEXT
    assert "@" not in TEXT
