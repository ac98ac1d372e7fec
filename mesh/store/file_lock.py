"""A lock file that keeps a second daemon out of a file which only one may write."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from mesh.model.codes import Code
from mesh.store import StoreError


def acquire_lock(path: Path, remedy: str) -> int:
    """Take the lock beside `path` and return its file descriptor. Closing it releases the lock.

    The directory is created if it is missing. Raises `StoreError` with `remedy` if another process has the lock. The
    lock file may stay when the daemon is gone.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(file)
        raise StoreError(Code.STORE_IN_USE, f"store {path} is in use by process {pid}; {remedy}") from None
    # The number only helps to find the other daemon: a full disk must not keep this one from starting.
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file
