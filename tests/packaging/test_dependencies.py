"""setup.cfg requires what the code imports, and nothing else."""

import ast
import re
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package in a lock file."""
    text = (ROOT / name).read_text()
    entries = re.findall(
        r"^([\w.-]+)==(\S+)(?: ;[^\\\n]*[^\\\n ])?((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", text, re.MULTILINE
    )
    assert len(entries) == len(re.findall(r"^\w", text, re.MULTILINE)), "each line that is no comment is an entry"
    return {package: (version, hashes.count("--hash")) for package, version, hashes in entries}


def needed(requirements: Iterable[str]) -> set[str]:
    """The packages that these requirements install in this environment, with what those need."""
    found = set[str]()
    for line in requirements:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found |= {name} | needed(distribution(name).requires or ())
    return found


def test_the_image_installs_what_setup_cfg_requires_and_every_package_with_its_hashes() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = [line for line in setup["options"]["install_requires"].splitlines() if line and line[0] != "#"]
    lock = locked("requirements.lock")
    assert min(count for _, count in lock.values()) >= 1
    assert needed(required) == lock.keys(), "make lock"
    for line in required:
        requirement = Requirement(line)
        assert lock[canonicalize_name(requirement.name)][0] in requirement.specifier, "make lock"
    assert locked("requirements-build.lock").keys() == {"setuptools"}
    assert (ROOT / "Dockerfile").read_text().count("--require-hashes -r requirements") == 2
