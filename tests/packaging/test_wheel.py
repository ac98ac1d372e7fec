"""The wheel has what the tree has: every package, and the files that are not Python."""

import asyncio
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.system.e2e.programs import call

ROOT = Path(__file__).parents[2]
SOURCES = {"mesh": "mesh", "meshdns": "dns/meshdns"}
DATA = {
    "mesh/py.typed",
    "meshdns/py.typed",
    "mesh/api/openapi.yaml",
    *(f"mesh/api/http/static/{file.name}" for file in (ROOT / "mesh/api/http/static").iterdir()),
}
NEEDED = ("LICENSE", "README.md", "dns", "examples", "mesh", "pyproject.toml", "setup.cfg")


@pytest.fixture
async def wheel(tmp_path: Path) -> zipfile.ZipFile:
    """Built from a copy: a build leaves files beside its sources."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            await asyncio.to_thread(shutil.copytree, source, copy / name, ignore=ignored)
        else:
            shutil.copy(source, copy / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path))
    code, output = await call(sys.executable, "-m", "pip", "wheel", "--quiet", *options, str(copy))
    assert code == 0, output
    (built,) = tmp_path.glob("*.whl")
    return zipfile.ZipFile(built)


async def test_the_wheel_has_every_module_and_every_other_file(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.split("/")[0] in SOURCES}
    wheel.close()
    modules = {
        f"{package}/{file.relative_to(ROOT / folder)}"
        for package, folder in SOURCES.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert packed == modules | DATA
