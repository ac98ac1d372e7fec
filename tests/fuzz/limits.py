"""What no input may do: raise, leave an internal error behind, hold the event loop, or let the process grow."""

import asyncio
import base64
import gc
import logging
import os
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from mesh.util.bulkhead import INTERNAL_ERRORS

MAX_TURN = 0.1
"""Seconds of CPU time that one turn of the event loop, or one call of a parser, may take."""
MAX_GROWTH = 32 << 20
"""Bytes by which the process may grow after the first tenth of a run."""
WARM_UP = 0.1
"""The part of a run after which growth counts: until then caches fill."""
_REPEATS = 8
"""How often an input that took too long is tried: other work on the machine, and garbage of earlier inputs, are no
failure of it.
"""
_EVERY = 64
"""Inputs between two looks at the size of the process."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class TurnSelector(selectors.DefaultSelector):
    """Measures each turn of the event loop that it serves: the CPU time between two waits."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        """CPU seconds of the longest turn since it was set to 0."""
        self._began = time.thread_time()

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.longest = max(self.longest, time.thread_time() - self._began)
        found = super().select(timeout)
        self._began = time.thread_time()
        return found


class CaughtErrors(logging.Handler):
    """Keeps what bulkheads log, so that an input that leaves an internal error behind fails with its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._counted = sum(INTERNAL_ERRORS.counts().values())
        self._last: BaseException | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            self._last = record.exc_info[1]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Receive what is logged, which is written nowhere else while the block runs."""
        logger = logging.getLogger("vipmesh")
        propagates, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = propagates

    def check(self) -> None:
        """Raise AssertionError if there were internal errors since the last call."""
        counted, last = sum(INTERNAL_ERRORS.counts().values()), self._last
        new = counted - self._counted
        self._counted, self._last = counted, None
        if new:
            text = "; ".join(str(problem) for problem in INTERNAL_ERRORS.problems())
            INTERNAL_ERRORS.forget()
            raise AssertionError(f"{new} internal errors: {text}") from last
        if last is not None:
            raise AssertionError("an exception was logged") from last


class InputLimits:
    """Runs a target on one input after another, and raises AssertionError when a limit is passed."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds` is the length of the run."""
        self._clock = clock
        self._began = clock()
        self._seconds = seconds
        self._size: int | None = None
        """Bytes of the process at the end of the first tenth; None before."""
        self.inputs = 0
        """The number of inputs so far."""
        self.growth = 0
        """Bytes by which the process has grown after the first tenth."""
        self.longest = 0.0
        """CPU seconds of the longest turn."""

    def run(self, check: Callable[[bytes], float], data: bytes) -> None:
        """Run one input. `check` returns the CPU seconds of its longest turn. What it raises has the input in it."""
        try:
            took = check(data)
            for _ in range(_REPEATS - 1):
                if took <= MAX_TURN:
                    break
                gc.collect()
                took = min(took, check(data))
            assert took <= MAX_TURN, f"a turn of {took:.3f} s of CPU time"
            self.longest = max(self.longest, took)
            self.inputs += 1
            if self.inputs % _EVERY == 0:
                self._check_growth()
        except BaseException as error:
            error.add_note(f"the input, in base64: {base64.b64encode(data).decode()}")
            raise

    def is_over(self) -> bool:
        """Whether the time of the run is over."""
        return self._clock() - self._began >= self._seconds

    def figures(self) -> dict[str, float]:
        """Return the counts of the run: inputs, growth in bytes, the longest turn in CPU seconds."""
        return {"inputs": self.inputs, "growth": self.growth, "longest": round(self.longest, 4)}

    def _check_growth(self) -> None:
        if self._clock() - self._began < self._seconds * WARM_UP:
            return
        size = resident_bytes()
        if self._size is None:
            gc.collect()
            self._size = resident_bytes()
        elif size - self._size > MAX_GROWTH:
            gc.collect()
            size = resident_bytes()
            assert size - self._size <= MAX_GROWTH, f"the process has grown by {(size - self._size) >> 20} MiB"
        self.growth = size - self._size


def measured(check: Callable[[bytes], None]) -> Callable[[bytes], float]:
    """Return a function that runs a parser and returns the CPU seconds that it took."""

    def measure(data: bytes) -> float:
        began = time.thread_time()
        check(data)
        return time.thread_time() - began

    return measure


def measured_loop(selector: TurnSelector) -> asyncio.AbstractEventLoop:
    """Return an event loop whose turns are measured."""
    return asyncio.SelectorEventLoop(selector)


def resident_bytes() -> int:
    """Return the resident size of this process: proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
