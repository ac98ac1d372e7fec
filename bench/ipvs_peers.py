"""The other programs for IPVS: `ipvsadm -R`, pyroute2's class, keepalived's start; and `ipvsadm -Ln` to read it."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPVS
from pyroute2.ipvs import IPVSDest, IPVSService

from harness import need, running, scratch
from mesh.model.table import Table

PROC = Path("/proc/net/ip_vs")
PATIENCE = 120.0
"""Seconds that keepalived gets."""

KEEPALIVED = """
global_defs {{
    checker_priority 0
}}
{servers}
"""


def real_servers() -> int:
    """How many are in this namespace's IPVS."""
    return PROC.read_text().count("\n  ->") - 1  # but for the heading


def flush() -> None:
    """Empty IPVS."""
    subprocess.run([need("ipvsadm", "ipvsadm"), "-C"], check=True)


def ipvsadm(table: Table) -> float:
    """Seconds of `ipvsadm -R` for the whole table."""
    lines = []
    for key, server in table.virtual_servers.items():
        lines.append(f"-A -t {key.address}:{key.port} -s {server.scheduler}")
        lines += [
            f"-a -t {key.address}:{key.port} -r {real} -m -w {settings.weight}"
            for real, settings in server.real_servers.items()
        ]
    return _timed([need("ipvsadm", "ipvsadm"), "-R"], "\n".join(lines) + "\n")


def ipvsadm_list() -> float:
    """Seconds of `ipvsadm -Ln`."""
    return _timed([need("ipvsadm", "ipvsadm"), "-Ln"])


def pyroute2(table: Table) -> float:
    """Seconds of pyroute2's synchronous class for the whole table; to be called in a thread without an event loop."""
    with IPVS() as ipvs:
        start = time.perf_counter()
        for key, server in table.virtual_servers.items():
            service = IPVSService(addr=key.address, port=key.port, protocol=6, sched_name=str(server.scheduler))
            ipvs.service("add", service=service)
            for real, settings in server.real_servers.items():
                dest = IPVSDest(addr=real.address, port=real.port, weight=settings.weight, fwd_method=0)
                ipvs.dest("add", service=service, dest=dest)
        return time.perf_counter() - start


def keepalived(table: Table) -> float:
    """Seconds from the start of keepalived, without checkers, until the last real server is there."""
    wanted = sum(len(server.real_servers) for server in table.virtual_servers.values())
    with scratch() as directory:
        config = directory / "keepalived.conf"
        config.write_text(KEEPALIVED.format(servers="\n".join(_keepalived_servers(table))))
        start = time.perf_counter()
        with _keepalived(directory, config):
            while real_servers() < wanted:
                if time.perf_counter() > start + PATIENCE:
                    raise TimeoutError(f"keepalived has set up {real_servers()} of {wanted} real servers")
                time.sleep(0.02)
            return time.perf_counter() - start


@contextmanager
def _keepalived(directory: Path, config: Path) -> Iterator[None]:
    pids = [f"--{name}={directory}/{name}" for name in ("pid", "checkers_pid")]
    with running(need("keepalived", "keepalived"), "-n", "-C", f"--use-file={config}", *pids):
        yield


def _keepalived_servers(table: Table) -> Iterator[str]:
    for key, server in table.virtual_servers.items():
        yield f"virtual_server {key.address} {key.port} {{"
        yield f" lvs_sched {server.scheduler}\n lvs_method NAT\n protocol TCP"
        for real, settings in server.real_servers.items():
            yield f" real_server {real.address} {real.port} {{\n  weight {settings.weight}\n }}"
        yield "}"


def _timed(command: list[str], given: str = "") -> float:
    start = time.perf_counter()
    subprocess.run(command, input=given, text=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
