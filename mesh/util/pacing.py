"""Paces bursts of work: the first change is handled at once, and the changes that follow are handled together.

A single change must not be delayed for others that may never come, and a thousand changes must not cause a thousand
passes. So work after a quiet time begins at once. Changes that arrive meanwhile wait until the loop has rested for a
multiple of the time that the work took: the busier the loop is, the more changes one pass handles, and the rest of the
time is left to others (the name server, the probes).
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class RunPacer:
    """Limits how large a part of its time one loop works."""

    def __init__(self, rest: float, longest: float) -> None:
        """After work, rest for `rest` times as long as the work took, but for at most `longest` seconds."""
        self._rest = rest
        self._longest = longest
        self._rested = 0.0
        """The loop time, in seconds, at which the rest is over."""

    async def wait(self) -> None:
        """Wait until the loop has rested.

        It yields to the event loop at least once, so that all changes of one turn of the event loop end up in one pass.
        """
        await asyncio.sleep(max(0.0, self._rested - asyncio.get_running_loop().time()))

    @contextmanager
    def work(self) -> Iterator[None]:
        """Measure the work done inside the context; it determines the next rest."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield
        finally:
            self._rested = clock() + min(self._longest, self._rest * (clock() - began))


class PacedSignal:
    """Wakes one loop when there is work for it, at its pace. Any number of `set` before the loop looks are one.

    The loop is `await signal.wait()`, then `with signal.work(): ...`.
    """

    def __init__(self, rest: float, longest: float) -> None:
        """The loop rests as `RunPacer` says."""
        self._pace = RunPacer(rest, longest)
        self._is_set = asyncio.Event()

    def set(self) -> None:
        """There is something to do, or there may be."""
        self._is_set.set()

    async def wait(self) -> None:
        """Return when there is something to do and the loop has rested; clears the signal."""
        await self._is_set.wait()
        await self._pace.wait()
        # After the rest: what came during it is part of this burst.
        self._is_set.clear()

    def work(self) -> AbstractContextManager[None]:
        """A context; the time spent in it is the work that the loop rests from."""
        return self._pace.work()
