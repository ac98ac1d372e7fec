"""A class above the size limits has a reason for being one class."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ATTRIBUTES, PARAMETERS = 12, 7
REASON = re.compile(r"^\s*# .*\b(attributes|parameters|fields):", re.MULTILINE)


def assigned(node: ast.ClassDef) -> set[str]:
    """The attributes that the methods of a class assign to `self`."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


def parameters(node: ast.ClassDef) -> int:
    """How many parameters the constructor takes, `self` left out."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return len(each.args.args) - 1 + len(each.args.kwonlyargs)
    return 0


def large(source: str) -> Iterator[tuple[str, str]]:
    """The name and the text of each class over a limit."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and (len(assigned(node)) > ATTRIBUTES or parameters(node) > PARAMETERS):
            yield node.name, ast.get_source_segment(source, node) or ""


@pytest.mark.parametrize("folder", ["mesh", "dns/meshdns"])
def test_a_class_over_the_limits_has_its_reason_beside_it(folder: str) -> None:
    found = [
        (f"{path.relative_to(ROOT)}: {name}", REASON.search(text))
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, text in large(path.read_text())
    ]
    assert found, "the limits are met by all classes: then this test finds nothing"
    assert [where for where, reason in found if reason is None] == []


def test_which_members_are_counted() -> None:
    wide = "class A:\n    def __init__(self, a, b, *, c, d, e, f, g, h):\n        self.a = a\n"
    many = "class B:\n    def f(self):\n" + "".join(f"        self.x{n} = {n}\n" for n in range(ATTRIBUTES + 1))
    small = "class C:\n    def __init__(self, a):\n        self.a = self.b = a\n        self.a += 1\n"
    assert [name for name, _ in large(wide + many + small)] == ["A", "B"]
