"""Reads small files that users name: regular files up to a limit, without ever waiting for a writer.

A FIFO or a device in the place of settings, a token or a compose file would block whoever opens it, or never end.
"""

import errno
import os
import stat
from pathlib import Path

MAX_FILE_BYTES = 4 << 20
"""The most bytes of a file."""


def read_regular_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a regular file. Raises `OSError`, also for another kind of file, and if it is too large."""
    # Without O_NONBLOCK, opening a FIFO waits until another process writes to it: open(2).
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        parts, size = [], 0
        while part := os.read(file, limit + 1 - size):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
        return b"".join(parts)
    finally:
        os.close(file)
