"""IPVS where it cannot be used: the reason is one line with a remedy. Runs on any kernel, in a child without rights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import asyncio, json, os
from ipaddress import ip_network
from mesh.dataplane import DataPlaneError
from mesh.dataplane.ipvs.plane import IpvsDataPlane, unavailable_reason
from mesh.host.vip_interface import LoopbackAddresses

async def main():
    plane = IpvsDataPlane(ip_network("127.0.0.0/8"), LoopbackAddresses())
    read = None
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no finding
    try:
        await plane.read()
    except DataPlaneError as error:
        read = str(error)
    print(json.dumps([await unavailable_reason(), list(await plane.apply(())), read]))
    await plane.close()

if os.getuid() == 0:
    os.setuid(65534)  # takes the capabilities away too
{run}
"""


@pytest.mark.parametrize(
    "run",
    [pytest.param("asyncio.run(main())", id="asyncio"), pytest.param("import uvloop; uvloop.run(main())", id="uvloop")],
)
def test_missing_rights_or_ipvs_are_reported(run: str) -> None:
    repository = Path(__file__).parents[3]
    child = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", ASK.format(run=run)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert child.returncode == 0, child.stderr
    assert child.stderr == ""  # the reason is told once, by the answer
    reason, failures, read = json.loads(child.stdout)
    assert "CAP_NET_ADMIN" in reason or "modprobe ip_vs" in reason
    assert "\n" not in reason
    assert read == reason
    assert failures == []
