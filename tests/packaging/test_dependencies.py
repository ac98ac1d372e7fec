"""setup.cfg requires what the code imports, and nothing else."""

import ast
import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported() -> set[str]:
    """Top-level names that a module of mesh or meshdns imports, at its top or inside a function."""
    names = set[str]()
    for folder in ("mesh", "dns/meshdns"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                match node:
                    case ast.Import(names=aliases):
                        names |= {alias.name.partition(".")[0] for alias in aliases}
                    case ast.ImportFrom(module=str(module), level=0):
                        names.add(module.partition(".")[0])
    return names


def test_requirements_equal_the_imports() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    required = {match[0].lower() for line in lines if (match := re.match(r"[\w-]+", line))}
    others = imported() - sys.stdlib_module_names - {"mesh", "meshdns"}
    distributions = packages_distributions()
    assert {distributions[name][0].lower().replace("_", "-") for name in others} == required
