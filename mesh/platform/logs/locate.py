"""Says where on the host the files are that a container's labels name: mounts, or the layer of the container. Pure.

Of the mounts that a path lies in the longest one counts, as in the container's mount namespace. What lies in none of
them is in the writable layer, of which the storage driver overlay2 has a directory on the host.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mesh.config.labels.logs import LogPathLabel
from mesh.sources.docker.container_files import TMPFS, ContainerFilesystem, ContainerMount

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogFileSource:
    """Files that are collected, as one pattern beneath one directory of the host."""

    label: LogPathLabel
    base: str
    """The directory of the host, or the file if `parts` is empty. A mount of a single file has one."""
    parts: Parts
    """The names or patterns of directories beneath it, and of the files. The last one is `*` for a directory."""
    hidden: frozenset[Parts] = field(default_factory=frozenset)
    """Directories beneath the base that the container does not see, since another mount covers them."""


@dataclass(frozen=True, slots=True)
class UnreachableLogPath:
    """A path whose files cannot be read on the host."""

    path: str
    reason: str
    remedy: str


def locate_sources(
    labels: Sequence[LogPathLabel], filesystem: ContainerFilesystem
) -> tuple[tuple[LogFileSource, ...], tuple[UnreachableLogPath, ...]]:
    """Return where the files of all labels are, and the paths that cannot be read."""
    mounts = {_parts(each.destination): each for each in filesystem.mounts}
    sources: list[LogFileSource] = []
    refused: list[UnreachableLogPath] = []
    for label in labels:
        for destination in _covering(label.parts, mounts):
            found = _source(label, destination, mounts, filesystem)
            if isinstance(found, LogFileSource):
                sources.append(found)
            else:
                refused.append(found)
    return tuple(sources), tuple(refused)


def _covering(pattern: Parts, mounts: Mapping[Parts, ContainerMount]) -> tuple[Parts, ...]:
    """Return the mounts in which files of the pattern may be; `()` is the layer."""
    fitting = [each for each in mounts if each and _fits(each, pattern)]
    # A part with * may mean several mounts; those above the longest one without are covered by it.
    literal = [each for each in fitting if each == _files(pattern)[: len(each)]]
    longest = max(literal, key=len, default=())
    return (longest, *sorted(each for each in fitting if each not in literal and each[: len(longest)] == longest))


def _fits(destination: Parts, pattern: Parts) -> bool:
    files = _files(pattern)
    return len(destination) <= len(files) and all(map(fnmatchcase, destination, files))


def _files(pattern: Parts) -> Parts:
    return pattern if pattern[-1] else (*pattern[:-1], "*")


def _source(
    label: LogPathLabel, destination: Parts, mounts: Mapping[Parts, ContainerMount], filesystem: ContainerFilesystem
) -> LogFileSource | UnreachableLogPath:
    directory = label.path.rstrip("/") if not label.parts[-1] else label.path.rpartition("/")[0] or label.path
    remedy = f"mount a volume at {directory}, and create the container again"
    mount = mounts.get(destination)
    if mount is None and not filesystem.upper:
        reason = f"the engine does not say where its layer is (storage driver {filesystem.driver or 'unknown'})"
        return UnreachableLogPath(label.path, reason, remedy)
    if mount is not None and mount.kind == TMPFS:
        reason = f"{mount.destination} is a tmpfs, which only the container has"
        return UnreachableLogPath(label.path, reason, remedy)
    if mount is not None and not mount.source.startswith("/"):
        reason = f"the host has no directory of the {mount.kind} at {mount.destination}"
        return UnreachableLogPath(label.path, reason, remedy)
    depth = len(destination)
    hidden = frozenset(each[depth:] for each in mounts if len(each) > depth and each[:depth] == destination)
    base = filesystem.upper if mount is None else mount.source
    return LogFileSource(label, base, _files(label.parts)[depth:], hidden)


def _parts(path: str) -> Parts:
    return tuple(part for part in path.split("/") if part)
