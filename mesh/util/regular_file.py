"""Reads small files that users name: regular files up to a limit, without ever waiting for a writer.

A FIFO or a device in the place of settings, a token or a compose file would block whoever opens it, or never end.
"""

import errno
import os
import select
import stat
import time
from collections.abc import Iterable
from pathlib import Path

MAX_FILE_BYTES = 4 << 20
"""The most bytes of a file."""


def read_regular_file(path: Path, limit: int = MAX_FILE_BYTES, *, patience: float = 0.0) -> bytes:
    """Return the content of a regular file, or of a device such as /dev/null that never waits.

    `patience`: seconds that the writer of a pipe has, as in `vipmesh check <(program)`; 0 refuses pipes. Raises
    `OSError`, also for another kind of file, and if it is too large.
    """
    # Without O_NONBLOCK, opening a FIFO waits until another process writes to it: open(2).
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(file).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or (patience and stat.S_ISFIFO(mode))):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return _read(file, path, limit, time.monotonic() + patience)
    finally:
        os.close(file)


def world_readable(paths: Iterable[Path]) -> frozenset[Path]:
    """Return the files that every user of the host may read; a file that is not there is none."""
    return frozenset(path for path in paths if _mode(path) & stat.S_IROTH)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _read(file: int, path: Path, limit: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            part = os.read(file, limit + 1 - size)
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([file], [], [], left)[0]:
                raise OSError(errno.ETIMEDOUT, "nobody writes to it", str(path)) from None
            continue
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        if size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
