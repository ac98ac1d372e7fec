"""When work that comes in bursts is done: the first of it at once, the rest together.

A change that comes alone must not wait for company that never comes, and a thousand changes must not be a thousand
passes. So work that follows a quiet time is begun at once, and what arrives meanwhile waits until the worker has rested
for some times as long as the work took: the busier it is, the more changes one pass has, and the rest of the time is
left to others (the name server, the probes).
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class RunPacer:
    """Of one loop."""

    def __init__(self, rest: float, longest: float) -> None:
        """Rest for `rest` times as long as the work took, and never more than `longest` seconds."""
        self._rest = rest
        self._longest = longest
        self._rested = 0.0

    async def wait(self) -> None:
        """Until the loop has rested; what has happened by now in this turn of the event loop is one burst anyway."""
        await asyncio.sleep(max(0.0, self._rested - asyncio.get_running_loop().time()))

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is done inside is the work."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield
        finally:
            self._rested = clock() + min(self._longest, self._rest * (clock() - began))
