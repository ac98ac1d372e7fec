"""Parses files of cgroups, version 1 and 2: where those of a container are, and what they say of its usage. Pure.

The texts are of /proc/PID/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)), and of the controllers: cpuacct, cpu
and memory of version 1 (the kernel's Documentation/admin-guide/cgroup-v1), cpu and memory of version 2
(Documentation/admin-guide/cgroup-v2.rst). A container can change few of them, and whatever they say is bounded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_NUMBER = 1 << 62
"""The largest number that is read. Version 1 writes a memory limit that is none as a number of this size."""
_DIGITS = 19
_MICROSECOND = 1000
_UNIFIED = ""
"""The key of version 2 among the controllers, as in the line `0::/path`."""
_MAX_LINES = 4096
_ESCAPE = re.compile(r"\\([0-7]{3})", re.ASCII)
_NUMBER = re.compile(rb"\s*([0-9]{1,%d})\s*" % _DIGITS)
_QUOTA = re.compile(rb"\s*([0-9]{1,%d})\s+([0-9]{1,%d})\s*" % (_DIGITS, _DIGITS))


def _line(key: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"^%s ([0-9]{1,%d})$" % (key, _DIGITS), re.MULTILINE)


_USAGE, _PERIODS, _THROTTLED = _line(b"usage_usec"), _line(b"nr_periods"), _line(b"nr_throttled")
_INACTIVE_V1, _INACTIVE_V2 = _line(b"total_inactive_file"), _line(b"inactive_file")


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """Where a hierarchy of cgroups is mounted."""

    root: str
    """The cgroup that is seen at the mount point: `/`, or another one in a container."""
    point: str

    def directory(self, cgroup: str) -> str | None:
        """Return the directory of a cgroup; None if it is not below this mount."""
        if ".." in cgroup.split("/") or not cgroup.startswith("/"):
            return None
        if self.root == "/":
            return self.point + cgroup
        if cgroup == self.root or cgroup.startswith(f"{self.root}/"):
            return self.point + cgroup[len(self.root) :]
        return None


@dataclass(frozen=True, slots=True)
class ContainerCgroup:
    """The directories that have the files of one container."""

    version: int
    """1 or 2."""
    cpu: str
    """The controller cpu: periods and limits."""
    cpu_time: str
    """The controller cpuacct; the same directory as `cpu` in version 2."""
    memory: str | None
    """None if the kernel does not count memory."""


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """What a container has used so far, and the memory that it uses now."""

    cpu_ns: int
    """Nanoseconds of CPU time since the container began."""
    periods: int = 0
    """Periods in which it ran with a limit of CPU; 0 without a limit."""
    throttled: int = 0
    """Periods of these in which it had to wait since its limit was used up."""
    memory: int | None = None
    """Bytes without those of files that were not used lately; None if the kernel does not count them."""


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The limits of a container; None: it has none."""

    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes."""


def parse_mounts(mountinfo: str) -> Mapping[str, CgroupMount]:
    """Return where the cgroups are mounted, by controller; that of version 2 has the key "".

    Of several mounts of a controller the first counts whose root is `/`, else the first.
    """
    found: dict[str, CgroupMount] = {}
    for line in mountinfo.splitlines()[:_MAX_LINES]:
        before, mark, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if not mark or len(fields) < 5 or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        mount = CgroupMount(_unescape(fields[3]), _unescape(fields[4]))
        controllers = [_UNIFIED] if kinds[0] == "cgroup2" else kinds[-1].split(",")
        for controller in controllers:
            if controller not in found or (mount.root == "/" and found[controller].root != "/"):
                found[controller] = mount
    return found


def locate_cgroup(container: str, text: str, mounts: Mapping[str, CgroupMount]) -> ContainerCgroup | None:
    """Return the directories of a container from the text of /proc/PID/cgroup of one of its processes.

    `container` is its ID. None if the process is not in a cgroup of this container, or its files are not mounted here.
    """
    paths = _container_paths(container, text)
    cpu_time = _directory("cpuacct", paths, mounts)
    if cpu_time is not None:
        cpu = _directory("cpu", paths, mounts)
        return ContainerCgroup(1, cpu or cpu_time, cpu_time, _directory("memory", paths, mounts))
    if "cpuacct" in paths:
        return None
    unified = _directory(_UNIFIED, paths, mounts)
    return None if unified is None else ContainerCgroup(2, unified, unified, unified)


def parse_usage_v1(
    cpuacct_usage: bytes, cpu_stat: bytes, memory_usage: bytes, memory_stat: bytes
) -> CgroupUsage | None:
    """Return the usage from cpuacct.usage, cpu.stat, memory.usage_in_bytes and memory.stat; None if it is unreadable.

    The last three may be empty.
    """
    cpu = _whole(cpuacct_usage)
    if cpu is None:
        return None
    memory = _working_set(_whole(memory_usage), _INACTIVE_V1.search(memory_stat))
    return CgroupUsage(cpu, *_throttling(cpu_stat), memory)


def parse_usage_v2(cpu_stat: bytes, memory_current: bytes, memory_stat: bytes) -> CgroupUsage | None:
    """Return the usage from cpu.stat, memory.current and memory.stat; None if it is unreadable.

    The last two may be empty.
    """
    used = _USAGE.search(cpu_stat)
    if used is None:
        return None
    memory = _working_set(_whole(memory_current), _INACTIVE_V2.search(memory_stat))
    return CgroupUsage(min(int(used[1]) * _MICROSECOND, MAX_NUMBER), *_throttling(cpu_stat), memory)


def parse_limits_v1(quota: bytes, period: bytes, memory: bytes) -> CgroupLimits:
    """Return the limits from cpu.cfs_quota_us, cpu.cfs_period_us and memory.limit_in_bytes; each may be empty."""
    return CgroupLimits(_cores(_whole(quota), _whole(period)), _limit(_whole(memory)))


def parse_limits_v2(cpu_max: bytes, memory_max: bytes) -> CgroupLimits:
    """Return the limits from cpu.max and memory.max; each may be empty."""
    match = _QUOTA.fullmatch(cpu_max)
    cores = None if match is None else _cores(int(match[1]), int(match[2]))
    return CgroupLimits(cores, _limit(_whole(memory_max)))


def _container_paths(container: str, text: str) -> dict[str, str]:
    """Return the cgroup of the container itself in each hierarchy, by controller.

    A container may have cgroups of its own below it, with any name, and its first process may be in one of them.
    """
    found: dict[str, str] = {}
    if not container:
        return found
    for line in text.splitlines()[:_MAX_LINES]:
        _, mark, rest = line.partition(":")
        controllers, mark, path = rest.partition(":")
        if not mark:
            continue
        parts = path.split("/")
        at = next((at for at, part in enumerate(parts) if _is_of(container, part)), None)
        if at is not None:
            found |= dict.fromkeys(controllers.split(","), "/".join(parts[: at + 1]))
    return found


def _is_of(container: str, part: str) -> bool:
    """Return whether a part of a path is the cgroup of a container: ID, docker-ID.scope, libpod-ID.scope, libpod-ID."""
    name = part.removesuffix(".scope")
    return name == container or name.rpartition("-")[2] == container


def _directory(controller: str, paths: Mapping[str, str], mounts: Mapping[str, CgroupMount]) -> str | None:
    if controller not in paths or controller not in mounts:
        return None
    return mounts[controller].directory(paths[controller])


def _whole(data: bytes) -> int | None:
    match = _NUMBER.fullmatch(data)
    return None if match is None else min(int(match[1]), MAX_NUMBER)


def _throttling(cpu_stat: bytes) -> tuple[int, int]:
    periods, throttled = _PERIODS.search(cpu_stat), _THROTTLED.search(cpu_stat)
    if periods is None or throttled is None:
        return 0, 0
    return int(periods[1]), int(throttled[1])


def _working_set(used: int | None, inactive: re.Match[bytes] | None) -> int | None:
    """Return the memory that the kernel cannot take back at once. The two files are read one after the other."""
    if used is None:
        return None
    return max(0, used - (0 if inactive is None else int(inactive[1])))


def _cores(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period else None


def _limit(memory: int | None) -> int | None:
    return None if memory is None or memory >= MAX_NUMBER else memory


def _unescape(text: str) -> str:
    """Return a path of mountinfo: spaces and the like are written as octal numbers there."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
