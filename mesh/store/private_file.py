"""Keeps the files of the store from other users: they tell what runs where.

Version 0.1.0 wrote passwords into them.

Files have mode 0600. The directory has mode 0700 if nothing else is in it: the directory of other programs' files is
not ours to close.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_FILE, _DIRECTORY = 0o600, 0o700


def make_private(path: Path, suffixes: Iterable[str] = ()) -> None:
    """Close `path`, the files beside it with these suffixes, and its directory to other users.

    The directory is created if it is missing; a missing file is not. What belongs to another user is left as it is.
    Raises `OSError` if the directory cannot be created.
    """
    path.parent.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
    for file in (path, *(path.with_name(path.name + suffix) for suffix in suffixes)):
        _restrict(file, _FILE)
    with suppress(OSError):
        if all(other.name.startswith(path.name) for other in path.parent.iterdir()):
            _restrict(path.parent, _DIRECTORY)


def create_private(path: Path) -> int:
    """Open a file for writing that only this user may read, empty; return its descriptor. Raises `OSError`."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE)
    with suppress(OSError):
        os.fchmod(file, _FILE)  # it may have been there
    return file


def _restrict(path: Path, mode: int) -> None:
    """Take rights from other users; never give any."""
    with suppress(OSError):
        there = path.stat(follow_symlinks=False)
        # A link leads to the file of another program; a directory with the sticky bit is meant for all users.
        foreign = stat.S_ISLNK(there.st_mode) or there.st_mode & stat.S_ISVTX or there.st_uid != os.geteuid()
        if not foreign and there.st_mode & ~mode & 0o777:
            path.chmod(stat.S_IMODE(there.st_mode) & mode)
