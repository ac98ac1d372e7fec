"""Finds the files of a container's labels in directories of the host, which the container fills as it likes.

Every directory is opened beneath the one above it, no link is followed, and names, directories and files have bounds.
"""

import errno
import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mesh.config.labels.log_files import is_compressed_name
from mesh.config.labels.logs import LogPathLabel
from mesh.platform.logs.beneath import NotRegularFileError, open_base, open_directory, open_file
from mesh.platform.logs.file_positions import FileKey
from mesh.platform.logs.locate import LogFileSource, Parts

MAX_ENTRIES = 4096
"""Names of one directory that are looked at."""
MAX_DIRECTORIES = 64
"""Directories of one container that are looked into: a path with * in its directories may mean many."""


@dataclass(slots=True)
class LogDirectory:
    """An open directory with files that are collected."""

    descriptor: int
    path: str
    """Inside of the container, without trailing slash."""
    modified: int
    """When a name in it changed last, in nanoseconds, before it was read."""


@dataclass(frozen=True, slots=True)
class LogFileEntry:
    """A name of a regular file."""

    directory: LogDirectory
    name: str
    key: FileKey
    size: int
    modified: int
    """In nanoseconds since 1970."""
    label: LogPathLabel
    is_meant: bool
    """Whether the label means it. Others are looked at because a rotation may have made them of one that it means."""

    @property
    def path(self) -> str:
        """Inside of the container."""
        return f"{self.directory.path}/{self.name}"

    def open(self) -> int:
        """Open it. Raises `NotRegularFileError` if it was replaced, and `OSError`."""
        return open_file(self.directory.descriptor, self.name)


@dataclass(slots=True)
class LogFileScan:
    """What there is now. Its directories stay open until it is closed."""

    directories: list[LogDirectory] = field(default_factory=list)
    entries: list[LogFileEntry] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Why a name is not read, by its path inside of the container."""
    excess: Counter[str] = field(default_factory=Counter)
    """How many names or directories were left out, by the path of the directory. At least so many."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why a directory of the host cannot be opened, by its path on the host."""

    def is_current(self) -> bool:
        """Return whether no name has changed since. It looks at the times of the directories alone."""
        return all(os.fstat(each.descriptor).st_mtime_ns == each.modified for each in self.directories)

    def close(self) -> None:
        """Close the directories."""
        while self.directories:
            os.close(self.directories.pop().descriptor)


def scan_sources(sources: Sequence[LogFileSource]) -> LogFileScan:
    """Look for the files of all sources. The first source that means a file has it."""
    scan = LogFileScan()
    for source in sources:
        try:
            _scan_source(source, scan)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                scan.unreadable[source.base] = error.strerror or str(error)
    _leave_one_entry_of_each(scan)
    return scan


def _scan_source(source: LogFileSource, scan: LogFileScan) -> None:
    base, parts = Path(source.base), source.parts
    try:
        descriptor = open_base(base if parts else base.parent)
    except FileNotFoundError:
        scan.unreadable[source.base] = "it is not there"
        return
    at = _path_inside(source, len(parts))
    if not parts and base.is_dir():  # a label without trailing slash may mean a directory
        os.close(descriptor)
        descriptor, parts = open_base(base), ("*",)
    elif not parts:
        at, parts = at.rpartition("/")[0], (base.name,)
    with _Walk(scan, source) as walk:
        walk.enter(descriptor, at, parts, ())


def _path_inside(source: LogFileSource, depth: int) -> str:
    parts = [part for part in source.label.parts if part]
    trailing = depth - (not source.label.parts[-1])
    return "".join(f"/{part}" for part in (parts[:-trailing] if trailing > 0 else parts))


class _Walk:
    """Goes through the directories of one source."""

    def __init__(self, scan: LogFileScan, source: LogFileSource) -> None:
        self._scan = scan
        self._source = source
        self._open: list[int] = []

    def __enter__(self) -> "_Walk":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def enter(self, descriptor: int, path: str, parts: Parts, beneath: Parts) -> None:
        """Go into a directory, which is closed in the end. `beneath` is where it is below the base."""
        if len(parts) == 1:
            modified = os.fstat(descriptor).st_mtime_ns
            directory = LogDirectory(descriptor, path, modified)
            self._scan.directories.append(directory)
            self._find_files(directory, parts[0], beneath)
            return
        self._open.append(descriptor)
        for name in self._names(descriptor, path, parts[0]):
            if (*beneath, name) not in self._source.hidden:
                self._descend(descriptor, path, name, parts[1:], beneath)

    def _descend(self, above: int, path: str, name: str, parts: Parts, beneath: Parts) -> None:
        inside = f"{path}/{name}"
        if len(self._scan.directories) + len(self._open) >= MAX_DIRECTORIES:
            self._scan.excess[inside] += 1
            return
        try:
            descriptor = open_directory(above, name)
        except NotRegularFileError as error:
            self._scan.refused[inside] = error.strerror or str(error)
        except FileNotFoundError:
            pass  # it is not there yet, or not any more
        else:
            self.enter(descriptor, inside, parts, (*beneath, name))

    def _names(self, descriptor: int, path: str, pattern: str) -> Iterator[str]:
        """Return the names of directories that a part of the path means."""
        if not _is_pattern(pattern):
            yield pattern
            return
        fits = re.compile(fnmatch.translate(pattern)).match
        for entry in self._entries(descriptor, path):
            if fits(entry.name) and entry.is_dir(follow_symlinks=False):
                yield entry.name

    def _entries(self, descriptor: int, path: str) -> list[os.DirEntry[str]]:
        with os.scandir(descriptor) as found:
            entries = list(islice(found, MAX_ENTRIES + 1))
        if len(entries) > MAX_ENTRIES:
            self._scan.excess[path] += 1
            entries.pop()
        return entries

    def _find_files(self, directory: LogDirectory, pattern: str, beneath: Parts) -> None:
        fits = re.compile(fnmatch.translate(pattern)).match
        for entry in self._entries(directory.descriptor, directory.path):
            is_meant = fits(entry.name) is not None
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if (*beneath, entry.name) in self._source.hidden:
                continue
            if stat.S_ISREG(status.st_mode):
                self._add(directory, entry.name, status, is_meant=is_meant)
            elif is_meant:
                self._special(directory, entry.name, status, pattern, beneath)

    def _add(self, directory: LogDirectory, name: str, status: os.stat_result, *, is_meant: bool) -> None:
        key = FileKey(status.st_dev, status.st_ino)
        is_meant = is_meant and not is_compressed_name(name)
        self._scan.entries.append(
            LogFileEntry(
                directory, name, key, status.st_size, status.st_mtime_ns, self._source.label, is_meant=is_meant
            )
        )

    def _special(
        self, directory: LogDirectory, name: str, status: os.stat_result, pattern: str, beneath: Parts
    ) -> None:
        if stat.S_ISDIR(status.st_mode):
            if not _is_pattern(pattern):  # a path that names a directory means its files
                self._descend(directory.descriptor, directory.path, name, ("*",), beneath)
            return
        if stat.S_ISCHR(status.st_mode) and not status.st_rdev:
            return  # the overlay marks a removed file so
        try:
            os.close(open_file(directory.descriptor, name))
        except NotRegularFileError as error:
            self._scan.refused[f"{directory.path}/{name}"] = error.strerror or str(error)
        except FileNotFoundError:
            pass


def _leave_one_entry_of_each(scan: LogFileScan) -> None:
    """Keep one entry of each file, rather one that a label means."""
    found: dict[FileKey, LogFileEntry] = {}
    for entry in scan.entries:
        if entry.key not in found or (entry.is_meant and not found[entry.key].is_meant):
            found[entry.key] = entry
    scan.entries = list(found.values())


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")
