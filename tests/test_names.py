"""One word, one meaning: no class of mesh/ or dns/meshdns has the name of another one."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_class_name_exists_once() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for package in (ROOT / "mesh", ROOT / "dns" / "meshdns"):
        for file in sorted(package.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name.lstrip("_")].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert len(places) > 300, "the packages were not found"
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
