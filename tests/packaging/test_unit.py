"""The unit for systemd: what `systemd-analyze security` counts against it has its reason in the file."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.system.e2e.programs import call

UNIT = Path(__file__).parents[2] / "deploy" / "vipmesh.service"


async def test_each_exposure_has_its_reason() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    code, output = await call("systemd-analyze", "security", "--offline=true", "--json=short", str(UNIT))
    assert code == 0, output
    counted = {each["name"] for each in json.loads(output) if not each["set"] and float(each["exposure"] or 0) > 0}
    assert "PrivateNetwork=" in counted, "a daemon of the host's network"
    reasons = " ".join(line for line in UNIT.read_text().splitlines() if line.startswith("#"))
    # `CapabilityBoundingSet=~CAP_NET_ADMIN` and `RootDirectory=/RootImage=` are named by their directives.
    unexplained = {name for name in counted if not re.search(rf"\b{re.escape(name.partition('=')[0])}=", reasons)}
    assert unexplained == set()
