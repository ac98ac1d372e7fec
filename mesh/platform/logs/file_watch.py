"""Has the kernel tell when something becomes of a file, so that a log that nobody writes to costs nothing: inotify(7).

Each file is watched for one event. So a busy log has no watch, and whoever writes to it pays nothing for it.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from asyncinotify import Inotify, Mask
from typing_extensions import override

log = logging.getLogger("vipmesh")

_MASK = Mask.MODIFY | Mask.ATTRIB | Mask.MOVE_SELF | Mask.DELETE_SELF | Mask.DONT_FOLLOW | Mask.ONESHOT
"""ATTRIB is also that a file has lost its name while it is held open."""


class FileWatch(Protocol):
    """Tells once for each file that was asked for."""

    def ask(self, key: str, path: Path) -> bool:
        """Tell of `key` once the file was written, cut, renamed or removed. Return False if that cannot be told."""

    def told(self) -> set[str]:
        """Return the keys of the files that something became of since the last call. Never waits."""

    def close(self) -> None:
        """End all watches."""


class KernelFileWatch(FileWatch):
    """Uses one inotify instance. Where there is none to be had, nothing can be told."""

    def __init__(self) -> None:
        self._keys: dict[int, set[str]] = {}
        """By the number of the watch: two paths may be of one file."""
        self._inotify: Inotify | None = None
        try:
            self._inotify = Inotify()
            os.set_blocking(self._inotify.fd, False)  # asyncinotify 4.4 does not, though it means to
        except OSError as error:  # fs.inotify.max_user_instances
            log.debug("logs that nobody writes to are looked at again and again: inotify: %s", error)

    @override
    def ask(self, key: str, path: Path) -> bool:
        if self._inotify is None:
            return False
        try:
            watch = self._inotify.add_watch(path, _MASK)
        except OSError:  # it is not there, or fs.inotify.max_user_watches
            return False
        self._keys.setdefault(watch.wd, set()).add(key)
        return True

    @override
    def told(self) -> set[str]:
        found: set[str] = set()
        if self._inotify is None:
            return found
        with suppress(BlockingIOError):  # there is nothing more
            while (event := self._inotify.sync_get()) is not None:
                if event.mask & Mask.Q_OVERFLOW:
                    found.update(*self._keys.values())
                    self._keys.clear()
                elif event.watch is not None:
                    found |= self._keys.pop(event.watch.wd, set())
        return found

    @override
    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
