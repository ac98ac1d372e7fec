"""The memory of the whole daemon, once it has programmed a large compose file."""

import sys
import time
from pathlib import Path

import ipvs_peers as peers

from harness import Row, running, scratch

PATIENCE = 240.0
"""Seconds until all is programmed; in an emulating virtual machine most of it is the interpreter."""
GOAL = 80.0


def resident(services: int) -> Row:
    """MB of the daemon before so many services with ten endpoints each."""
    with scratch() as directory:
        compose, settings = directory / "compose.yaml", directory / "vipmesh.toml"
        compose.write_text(_compose(services))
        settings.write_text(
            f'[vip]\npool = "10.112.0.0/12"\n[source.compose]\nfiles = ["{compose}"]\nendpoints = 100000\n'
            f'[dns]\nlisten = ["127.0.0.1:5353"]\nupstream = ["127.0.0.1:9"]\n[store]\nurl = "sqlite:///{directory}/store.db"\n'
            f'[admin]\nlisten = "unix://{directory}/admin.sock"\n[dataplane]\ndriver = "ipvs"\n'
        )
        command = [sys.executable, "-m", "mesh", "run", "-c", str(settings)]
        with running(*command, cwd=Path(__file__).parent.parent) as daemon:
            start = time.monotonic()
            while peers.real_servers() < services * 10:
                if daemon.poll() is not None or time.monotonic() > start + PATIENCE:
                    raise TimeoutError(f"{peers.real_servers()} of {services * 10} real servers are there")
                time.sleep(0.2)
            status = dict(line.split(":", 1) for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines())
    megabytes, most = (int(status[field].split()[0]) / 1024 for field in ("VmRSS", "VmHWM"))
    name = f"memory of the daemon before {services} services x 10"
    figure = f"{megabytes:.0f} MB (most: {most:.0f})"
    return Row(name, figure, "-", megabytes / GOAL, "-", "<= 80 MB", megabytes <= GOAL)


def _compose(services: int) -> str:
    lines = ["services:"]
    for number in range(services):
        endpoints = ", ".join(f'"10.{endpoint}.{number >> 8}.{number & 255}"' for endpoint in range(1, 11))
        lines += [
            f"  s{number}:",
            f"    labels: {{mesh.routing.port_80: s{number}.local}}",
            f"    x-endpoints: [{endpoints}]",
        ]
    return "\n".join(lines) + "\n"
