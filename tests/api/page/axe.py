"""axe-core, which checks a page for accessibility: https://github.com/dequelabs/axe-core.

npm installs the release of `npm/package-lock.json`, whose integrity it verifies, into a directory of the test run. No
part of it is in the product.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

LOCK = Path(__file__).with_name("npm")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def install_axe(directory: Path) -> str:
    """Install axe-core below a directory, and return its script."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm; `tests/install-packages` says what to install")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCK / name, directory)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.fail(f"npm cannot install axe-core: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text()


async def violations(page: Page, script: str) -> list[str]:
    """Return what axe-core finds on the page now: the rule, and the elements that break it."""
    # The debugger's own scripts do not count for the page's Content-Security-Policy.
    await page.evaluate(script)
    found: Any = await page.evaluate(
        "(tags) => axe.run(document, { runOnly: tags, resultTypes: ['violations'] })", TAGS
    )
    assert len(found["passes"]) > 10, "it has looked at something"
    return [
        f"{rule['id']}: {node['target']}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
