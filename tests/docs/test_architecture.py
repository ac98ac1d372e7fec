"""docs/architecture.md is complete: it has every package and module of the tree, and the layers of the contract."""

import re
from configparser import ConfigParser

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTIONS = dict(re.findall(r"^### `((?:mesh|dns)/\w+)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))


def on_disk(folder: str) -> set[str]:
    """The modules below a folder, by their dotted names within it."""
    paths = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")]
    return {".".join(path.with_suffix("").parts) for path in paths if path.name != "__init__.py"}


def test_every_package_has_a_section() -> None:
    packages = {f"mesh/{path.parent.name}" for path in (ROOT / "mesh").glob("*/__init__.py")}
    assert SECTIONS.keys() == packages | {"dns/meshdns"}


def test_every_module_is_described_in_the_section_of_its_package() -> None:
    for folder, section in SECTIONS.items():
        rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) or [section]
        named = [name for row in rows for name in re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)*)`", row)]
        assert sorted(named) == sorted(on_disk(folder)), folder


def test_the_layers_equal_those_of_the_import_contract() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:layers"]["layers"].split("\n")[1:]
    drawn = re.search(r"^    __main__\n(?:    .+\n)+", PAGE, re.MULTILINE)
    assert drawn is not None
    assert [re.split(r" {3,}", line.strip())[0] for line in drawn[0].splitlines()] == layers
