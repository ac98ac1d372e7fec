"""How many connections the processes of a container have accepted, from wherever they come.

A worker sees in its own data plane only what comes through it. Connections through other workers arrive at a published
port or at the container's address, so they are counted where they end: in /proc/PID/net of the container (proc(5)),
which anyone may read.
"""

from contextlib import suppress
from pathlib import Path

from mesh.sources.docker.process_facts import count_accepted, parse_cgroup

_MAX_TABLE_BYTES = 4 << 20
"""The most bytes that are read of one table: some 28,000 connections."""
PROC = Path("/proc")


def accepted_connections(container: str, pid: int, proc: Path = PROC) -> int | None:
    """Return the connections of a container, given by its ID and its first process.

    None if they are not known: the process is another container's, or not visible from here.
    """
    if pid <= 0:
        return None
    try:
        if parse_cgroup((proc / str(pid) / "cgroup").read_text()) != container:
            return None
        tables = [_read(proc / str(pid) / "net" / "tcp")]
    except OSError:
        return None
    with suppress(OSError):  # a kernel without IPv6 has none
        tables.append(_read(proc / str(pid) / "net" / "tcp6"))
    return count_accepted(tables)


def _read(table: Path) -> str:
    with table.open(encoding="ascii", errors="replace") as file:
        return file.read(_MAX_TABLE_BYTES)
