"""Values from outside are constructed at the gate alone; inside, they are copied by the model's own functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUARDED = frozenset({"Service", "Endpoint", "Probe", "Route", "PortPublication", "HostPort", "Instance"})
"""Values that containers, other workers or an engine have a say in."""
AT_THE_GATE = (
    "mesh/model/",
    "mesh/config/labels/",
    "mesh/sources/compose/source.py",
    "mesh/sources/docker/instances.py",
    "mesh/cluster/registration.py",
)
"""What they construct passes the gate: labels and instances in `register_instances`."""
DECODED_AT_THE_GATE = ("mesh/cluster/records/decode.py",)
"""What is decoded there passes the gate at once."""
LEFT_OUT = ("mesh/cli/", "mesh/testing/")
COPIES = frozenset({"endpoint", "instance", "service", "probe", "route"})
"""Names of variables that hold such values."""


def constructions(source: str) -> Iterator[tuple[int, str]]:
    """Each place that constructs, copies or decodes a guarded value."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in GUARDED:
            yield node.lineno, f"{name}(...)"
        elif name == "replace" and isinstance(node.func, ast.Name) and node.args:
            copied = node.args[0]
            of = copied.id if isinstance(copied, ast.Name) else getattr(copied, "attr", "")
            if of in COPIES:
                yield node.lineno, f"replace({of}, ...)"
        elif name in ("decode", "convert", "_read"):
            named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            if found := named & GUARDED:
                yield node.lineno, f"decode {min(found)}"


def test_values_are_constructed_at_the_gate_alone() -> None:
    found = [
        f"{name}:{line}: {what}"
        for path in sorted((ROOT / "mesh").rglob("*.py"))
        if not (name := str(path.relative_to(ROOT))).startswith((*LEFT_OUT, *AT_THE_GATE))
        for line, what in constructions(path.read_text())
        if not (what.startswith("decode") and name in DECODED_AT_THE_GATE)
    ]
    assert found == []


@pytest.mark.parametrize("name", [*AT_THE_GATE[2:], *DECODED_AT_THE_GATE])
def test_each_exception_is_needed(name: str) -> None:
    assert list(constructions((ROOT / name).read_text()))


@pytest.mark.parametrize(
    "source",
    ["Endpoint(1, 2)", "service.Probe(x)", "replace(endpoint, weight=1)", "msgspec.json.decode(x, type=Service)"],
)
def test_what_is_found(source: str) -> None:
    assert list(constructions(source))
