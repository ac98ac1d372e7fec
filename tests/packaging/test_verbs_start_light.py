"""The imports of `status` and `check`, which people and scripts run often and wait for."""

import json
import sys
from pathlib import Path

import pytest

from tests.system.e2e.programs import call

SCRIPT = """
import ast, contextlib, io, json, sys
from importlib.metadata import packages_distributions
known, before = set(packages_distributions()), set(sys.modules)
from mesh.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(sys.argv[1:])
found = set(sys.modules) - before

def has_code(name):
    return len(ast.parse(open(sys.modules[name].__file__).read()).body) > 1  # more than its docstring

ours = sorted(name for name in found if name.split(".")[0] in ("mesh", "meshdns") and has_code(name))
print(json.dumps([ours, sorted({name.split(".")[0] for name in found} & known - {"mesh", "meshdns"})]))
"""

THIRD_PARTIES = {"status": set[str](), "check": {"_yaml", "yaml"}}
"""Top-level packages that a verb may import."""
MODULES = {"status": 11, "check": 43}
"""How many modules of ours with code in them, at most: as many as before there were packages, and those of the name
policy, of regular files, of the steps in which compose files are read, and of their bounds.
"""
STACK = 'services: {web: {labels: {mesh.routing.port_80: "web.test"}, x-endpoints: [127.0.0.21]}}'


@pytest.mark.parametrize("verb", ["status", "check"])
async def test_a_verb_imports_no_more_than_it_needs(verb: str, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(STACK)
    arguments = {"status": ("--admin", f"unix://{tmp_path}/nobody.sock"), "check": (str(file),)}[verb]
    code, output = await call(sys.executable, "-c", SCRIPT, verb, *arguments)
    assert code == 0, output
    ours, others = json.loads(output)
    assert set(others) <= THIRD_PARTIES[verb]
    assert len(ours) <= MODULES[verb], ours
