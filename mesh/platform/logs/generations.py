"""Opens the files of one rotated log: `NAME`, `NAME.1`, `NAME.2.gz`, and says which one is which.

A file is identified by the fingerprint of its first line, which has its time to the nanosecond. It is the same before
and after the file is renamed and compressed, and is not that of a file that gets the inode later.
"""

import errno
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

from typing_extensions import override

MAX_GENERATIONS = 1000
"""Files of one rotation that are looked for."""
FIRST_LINE = 256 * 1024
"""The most bytes of a first line that are read for the fingerprint."""
_SHORT_LINE = 4096


class LogGeneration:
    """One open file of a rotation. It can be read to its end after it was removed."""

    def __init__(self, descriptor: int, *, compressed: bool) -> None:
        """Takes the descriptor over."""
        self.descriptor = descriptor
        """It stays that of this object."""
        self.is_compressed = compressed
        self._packed = os.fdopen(os.dup(descriptor), "rb") if compressed else None
        self._stream = None if self._packed is None else gzip.GzipFile(fileobj=self._packed)
        self.inode = os.fstat(descriptor).st_ino
        self.fingerprint = ""
        """Empty until the first line is complete."""

    @override
    def __repr__(self) -> str:
        return f"LogGeneration({self.fingerprint or 'empty'})"

    def identify(self) -> bool:
        """Read the first line, and return whether it is complete. Raises `OSError`."""
        found = self._read_fingerprint()
        self.fingerprint = found or ""
        return found is not None

    def has_other_content(self) -> bool:
        """Return whether the first line is not the one that it was identified by: the file was cut, and written again.
        Raises `OSError`.
        """
        return not self.is_compressed and self._read_fingerprint() != self.fingerprint

    def _read_fingerprint(self) -> str | None:
        # Most first lines are short, and damage further on in a compressed file is found when it is read.
        first, feed, _ = self.read(0, _SHORT_LINE).partition(b"\n")
        if not feed:
            first, feed, _ = self.read(0, FIRST_LINE).partition(b"\n")
        if not feed and len(first) < FIRST_LINE:
            return None
        return hashlib.blake2b(first, digest_size=8).hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes; fewer at the end of the file alone. Raises `OSError`, also for damaged data."""
        if self._stream is None:
            return os.pread(self.descriptor, size, offset)
        try:
            if self._stream.tell() != offset:
                self._stream.seek(offset)
            return self._stream.read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(errno.EIO, f"its compressed data is damaged: {error}") from error

    def unread(self, offset: int) -> int:
        """Return how many bytes follow `offset`; 0 for a compressed file, whose length is not known. Negative if the
        file was cut.
        """
        return 0 if self.is_compressed else os.fstat(self.descriptor).st_size - offset

    def state(self) -> tuple[int, int]:
        """Return its size, compressed as it is, and when it was changed, in nanoseconds: what changes when it is
        written.
        """
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def is_removed(self) -> bool:
        """Return whether the file has no name any more."""
        return os.fstat(self.descriptor).st_nlink == 0

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
        if self._packed is not None:
            self._packed.close()  # `GzipFile` leaves it open
        os.close(self.descriptor)


def open_regular(path: Path, *, compressed: bool = False) -> LogGeneration:
    """Open a regular file, never through a link. Raises `OSError`."""
    # Without O_NONBLOCK, opening a FIFO waits until another process writes to it: open(2).
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return LogGeneration(descriptor, compressed=compressed)
    except BaseException:
        os.close(descriptor)
        raise


def open_generations(path: Path) -> Generator[LogGeneration, None, None]:
    """Open the files of a rotation, the newest first. Those whose first line is not complete are left out.

    The order matters: a rotation meanwhile makes files older, so that one is met twice and none is missed. The engine
    writes `NAME.1.gz` beside `NAME.1` and then removes the latter, which therefore comes first. Raises `OSError` if the
    newest file cannot be opened for another reason than that it is not there.
    """
    yield from _identified(path, compressed=False, required=True)
    for number in range(1, MAX_GENERATIONS):
        older = path.with_name(f"{path.name}.{number}")
        packed = older.with_name(f"{older.name}.gz")
        found = False
        for name, compressed in ((older, False), (packed, True)):
            if name.exists():
                found = True
                yield from _identified(name, compressed=compressed, required=False)
        if not found and number > 1:
            return  # the first one is missing for a moment while it is renamed


def _identified(path: Path, *, compressed: bool, required: bool) -> Iterator[LogGeneration]:
    try:
        generation = open_regular(path, compressed=compressed)
    except FileNotFoundError:
        return
    except OSError:
        if required:
            raise
        return
    try:
        is_complete = generation.identify()
    except OSError:
        is_complete = False
    if is_complete:
        yield generation
    else:
        generation.close()
