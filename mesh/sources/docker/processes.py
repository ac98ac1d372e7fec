"""Finds the processes of containers in /proc, for the time in which their engine does not answer.

What stays private to the host, or is hidden from this user (hidepid of proc(5), `ProtectProc` of systemd, a container
without the host's PIDs), is not seen. A container of which this is known counts as before.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from mesh.sources.docker.process_facts import (
    ContainerProcess,
    Interface,
    ObservedContainer,
    parse_cgroup,
    parse_interfaces,
    parse_stat,
)

_MAX_TEXT = 1 << 16
"""Bytes of one file. A longer one is not read: it is not of a container as engines make them."""
_LOOKS = 12
"""Looks after which a process is in its cgroup for good. It begins in that of its parent."""
_FIRST_LOOKS = 4
"""As many looks at the processes that are there at the first look. There may be thousands, and most are old."""
_MAX_PROCESSES = 1 << 16


class ContainerProcesses(Protocol):
    """The processes of this host, as far as they are of containers. The methods block for some milliseconds."""

    def identify(self, container: str, pid: int) -> ContainerProcess | None:
        """Return a process that an engine names; None if it is not visible as one of this container."""
        ...

    def is_running(self, process: ContainerProcess) -> bool:
        """Return whether a process still runs."""
        ...

    def look(self, wanted: Collection[str]) -> Mapping[str, ObservedContainer]:
        """Return the first process of each of these containers that runs, by container ID."""
        ...

    def forget(self) -> None:
        """Drop what earlier looks have found: the next one looks at every process."""
        ...


class ProcContainerProcesses(ContainerProcesses):
    """Implements `ContainerProcesses` by proc(5)."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """`proc`: where proc(5) is mounted."""
        self._proc = proc
        self.forget()

    @override
    def forget(self) -> None:
        self._looks: dict[int, int] = {}
        """How often each process was looked at."""
        self._first = True
        self._found: dict[str, set[ContainerProcess]] = {}

    @override
    def identify(self, container: str, pid: int) -> ContainerProcess | None:
        if pid <= 0 or self._container(pid) != container:
            return None
        return self._process(pid)

    @override
    def is_running(self, process: ContainerProcess) -> bool:
        return self._process(process.pid) == process

    @override
    def look(self, wanted: Collection[str]) -> Mapping[str, ObservedContainer]:
        self._search(frozenset(wanted))
        seen = {}
        for container in self._found.keys() & set(wanted):
            # As it is now: the parent of a container's first process ends while it starts, and another one adopts it.
            running = {now for was in self._found[container] if (now := self._process(was.pid)) == was}
            self._found[container] = running
            if running and (observed := self._observe(min(running, key=lambda each: (each.began, each.pid)))):
                seen[container] = observed
        return seen

    def _search(self, wanted: frozenset[str]) -> None:
        """Find processes of these containers that earlier looks have not seen."""
        try:
            names = [path.name for path in self._proc.iterdir()]
        except OSError:
            return
        present = [int(name) for name in names if name.isascii() and name.isdecimal()]
        new, self._first = _LOOKS - _FIRST_LOOKS if self._first else 0, False
        looks = {}
        for pid in present[:_MAX_PROCESSES]:
            done = self._looks.get(pid, new)
            looks[pid] = done
            if done >= _LOOKS:
                continue
            looks[pid] = done + 1
            container = self._container(pid)
            if container in wanted and (process := self._process(pid)) is not None:
                self._found.setdefault(container, set()).add(process)
        self._looks = looks

    def _container(self, pid: int) -> str | None:
        text = self._read(pid, "cgroup")
        return None if text is None else parse_cgroup(text)

    def _process(self, pid: int) -> ContainerProcess | None:
        text = self._read(pid, "stat")
        return None if text is None else parse_stat(pid, text)

    def _observe(self, process: ContainerProcess) -> ObservedContainer | None:
        """Return the addresses of a process; None if they cannot be read.

        Its parent is the engine's. While it has the network of its parent, it is in no network of its own yet.
        """
        network, parents = self._network(process.pid), self._network(process.parent)
        if network is None or parents is None:
            return None
        interfaces: frozenset[Interface] = frozenset()
        if network not in (parents, self._network("self")):
            texts = [self._read(process.pid, f"net/{name}") for name in ("fib_trie", "route", "if_inet6")]
            try:
                interfaces = parse_interfaces(*(text or "" for text in texts))
            except ValueError:
                return None
        return ObservedContainer(process, interfaces) if self.is_running(process) else None

    def _read(self, pid: int, name: str) -> str | None:
        """Return the text of a file of a process; None if it is not visible, or too long."""
        try:
            with (self._proc / str(pid) / name).open("rb") as file:
                text = file.read(_MAX_TEXT + 1)
        except OSError:
            return None
        return text.decode("ascii", "replace") if len(text) <= _MAX_TEXT else None

    def _network(self, pid: int | str) -> int | None:
        """Return a number that processes in one network have in common; None if it is not visible.

        The link in /proc/PID/ns needs the right to trace the process, the inode of a file in /proc/PID/net does not.
        """
        try:
            return (self._proc / str(pid) / "net/dev").stat().st_ino
        except OSError:
            return None
