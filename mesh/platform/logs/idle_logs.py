"""Says which logs are looked at in a turn: those in which something goes on, and a few of the others.

A log that has been quiet for a while is left alone until the kernel tells of it. Some file systems do not tell, so each
of these logs is looked at now and then all the same, a few in each turn.
"""

from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path

from mesh.platform.logs.file_watch import FileWatch
from mesh.platform.logs.reader import LogReader

QUIET_TIME = 1.0
"""Seconds in which nothing new was seen in a log before it is left alone."""
SWEEP_TIME = 5.0
"""Seconds in which each log that is left alone is looked at once."""


class IdleLogs:
    """Keeps apart the logs that are looked at in each turn. `watch` None: all of them are."""

    def __init__(self, watch: FileWatch | None) -> None:
        self._watch = watch
        self._asleep: dict[str, None] = {}
        """Keys of logs that are left alone; the one that was looked at longest ago is the first."""
        self._quiet: dict[str, float] = {}
        """Since when nothing new was seen in the others, in seconds of a monotonic clock."""
        self._swept = 0.0

    def wake_told(self) -> None:
        """Look again at what the kernel has told of. It costs one system call if that is nothing."""
        if self._asleep and self._watch is not None:
            self.wake(self._watch.told())

    def wake(self, keys: Collection[str]) -> None:
        """Look again at these logs in each turn."""
        for key in keys:
            self._asleep.pop(key, None)
            self._quiet.pop(key, None)

    def awake(self, logs: Mapping[str, LogReader]) -> list[tuple[str, LogReader]]:
        """Return the logs that are looked at in each turn, with their keys."""
        if len(self._asleep) == len(logs):
            return []
        return [(key, each) for key, each in logs.items() if key not in self._asleep]

    def due(self, logs: Mapping[str, LogReader], now: float) -> list[tuple[str, LogReader]]:
        """Return the others that are looked at in this turn."""
        count = int(min(1.0, (now - self._swept) / SWEEP_TIME) * len(self._asleep))
        if not count:
            return []
        self._swept = max(now - SWEEP_TIME, self._swept) + count * SWEEP_TIME / len(self._asleep)
        keys = list(islice(self._asleep, count))
        for key in keys:
            del self._asleep[key]
            if key in logs:
                self._asleep[key] = None
        return [(key, logs[key]) for key in keys if key in logs]

    def settle(self, looked_at: Collection[tuple[str, LogReader]], now: float) -> None:
        """Leave the logs alone in which nothing has gone on for a while, and wake those in which something does."""
        if self._watch is None:
            return
        for key, each in looked_at:
            path = each.quiet_path()
            if path is None:
                self.wake((key,))
            elif key not in self._asleep and now - self._quiet.setdefault(key, now) >= QUIET_TIME:
                self._ask(self._watch, key, each, path)

    def _ask(self, watch: FileWatch, key: str, each: LogReader, path: Path) -> None:
        # What became of the file before the kernel was asked is seen now, and what does later is told.
        if watch.ask(key, path) and each.quiet_path() == path:
            self._asleep[key] = None
            self._quiet.pop(key, None)
