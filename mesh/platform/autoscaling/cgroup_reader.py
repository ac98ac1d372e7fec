"""Reads the cgroup files of containers. The methods block for some tens of microseconds per container."""

import os
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from mesh.platform.autoscaling.cgroup_files import (
    CgroupLimits,
    CgroupUsage,
    ContainerCgroup,
    locate_cgroup,
    parse_limits_v1,
    parse_limits_v2,
    parse_mounts,
    parse_usage_v1,
    parse_usage_v2,
)

_MAX_FILE = 1 << 14
"""Bytes of a file of a controller. memory.stat has some two thousand."""
_MAX_PROC = 1 << 18
"""Bytes of a file in /proc."""


class CgroupSource(Protocol):
    """The cgroup files of this host."""

    def find(self, container: str, pid: int) -> ContainerCgroup | None:
        """Return where the files of a container are, by one of its processes; None if they cannot be seen here."""
        ...

    def usage(self, cgroup: ContainerCgroup) -> CgroupUsage | None:
        """Return what a container uses; None if it is gone or its files are unreadable."""
        ...

    def limits(self, cgroup: ContainerCgroup) -> CgroupLimits:
        """Return the limits of a container."""
        ...


class CgroupReader(CgroupSource):
    """Implements `CgroupSource` by proc(5) and the mounts that this process sees."""

    def __init__(self, proc: Path = Path("/proc"), root: str = "") -> None:
        """`proc`: where proc(5) is mounted. `root` is put before the paths of mount points."""
        self._proc = proc
        self._root = root
        self._mounts = parse_mounts(_read(f"{proc}/self/mountinfo", _MAX_PROC).decode("utf-8", "replace"))

    @override
    def find(self, container: str, pid: int) -> ContainerCgroup | None:
        text = _read(f"{self._proc}/{pid}/cgroup", _MAX_PROC)
        return locate_cgroup(container, text.decode("utf-8", "replace"), self._mounts)

    @override
    def usage(self, cgroup: ContainerCgroup) -> CgroupUsage | None:
        cpu, memory = self._root + cgroup.cpu, cgroup.memory
        if cgroup.version == 1:
            return parse_usage_v1(
                _read(f"{self._root}{cgroup.cpu_time}/cpuacct.usage"),
                _read(f"{cpu}/cpu.stat"),
                b"" if memory is None else _read(f"{self._root}{memory}/memory.usage_in_bytes"),
                b"" if memory is None else _read(f"{self._root}{memory}/memory.stat"),
            )
        return parse_usage_v2(_read(f"{cpu}/cpu.stat"), _read(f"{cpu}/memory.current"), _read(f"{cpu}/memory.stat"))

    @override
    def limits(self, cgroup: ContainerCgroup) -> CgroupLimits:
        cpu, memory = self._root + cgroup.cpu, cgroup.memory
        if cgroup.version == 1:
            return parse_limits_v1(
                _read(f"{cpu}/cpu.cfs_quota_us"),
                _read(f"{cpu}/cpu.cfs_period_us"),
                b"" if memory is None else _read(f"{self._root}{memory}/memory.limit_in_bytes"),
            )
        return parse_limits_v2(_read(f"{cpu}/cpu.max"), _read(f"{cpu}/memory.max"))


def _read(path: str, most: int = _MAX_FILE) -> bytes:
    """Return the bytes of a file; none if it cannot be read or is longer.

    The calls of the system alone take half as long as a file object does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):
        return b""
    try:
        data = os.read(descriptor, most + 1)
        while data and len(data) <= most and (more := os.read(descriptor, most + 1 - len(data))):
            data += more
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return data if len(data) <= most else b""
