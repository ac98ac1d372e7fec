"""Rows that fail each on their own, within a time for each and one for all: what was measured is never lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from harness import Row

_LONGEST = 160
"""The most characters of a reason."""
FAILURES: tuple[type[BaseException], ...] = (Exception, BaseExceptionGroup, pytest.fail.Exception)
"""What ends a row alone. The waits of the labs of tests fail as tests do, which is no `Exception`."""


class RowBudget:
    """Measures rows one after another."""

    def __init__(self, row: float, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`row`: seconds that each may take, its cleaning as many again; `total`: seconds of all, cleaning included."""
        self._row = row
        self._clock = clock
        self._end = clock() + total

    async def measure(
        self,
        bench: str,
        goal: str,
        work: Callable[[], Awaitable[Sequence[Row]]],
        clean: Callable[[], Awaitable[None]],
    ) -> Sequence[Row]:
        """Return what `work` has measured, or a row that says why not. `clean` runs after a row that has failed."""
        try:
            async with asyncio.timeout(self._seconds()):
                return await work()
        except FAILURES as error:
            reason = reason_of(error)
        try:
            async with asyncio.timeout(self._seconds()):
                await clean()
        except FAILURES as error:
            reason += f"; what it left was not removed: {reason_of(error)}"
        return [unmeasured(bench, goal, reason)]

    def _seconds(self) -> float:
        """Return the seconds that are left for a row. Raises `TimeoutError` if there are none."""
        left = min(self._row, self._end - self._clock())
        if left <= 0:
            raise TimeoutError("the time of all rows is over")
        return left


def unmeasured(bench: str, goal: str, reason: str) -> Row:
    """Return the row of what could not be measured: it does not meet its goal."""
    return Row(bench, f"not measured: {reason}", "-", 0.0, "-", goal, met=False)


def reason_of(error: BaseException) -> str:
    """Return one line about the first cause."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    words = " ".join(str(error).replace("|", "/").split())
    return f"{type(error).__name__}: {words}"[:_LONGEST] if words else type(error).__name__
