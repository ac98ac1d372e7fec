"""Runs pure functions over large views beside the event loop.

With ten thousand endpoints a plan takes tens of milliseconds, during which no DNS query would be answered. All input
and output is immutable, so a thread needs no lock, and the interpreter lets the event loop in between
(`sys.setswitchinterval`). Small views are handled at once: changing threads would cost more than the work.
"""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INLINE_LIMIT = 1000
"""Services, endpoints or records that are handled in about a millisecond."""


async def compute(size: int, function: Callable[[], T]) -> T:
    """Run a function and return its result, in a thread if it is large. Raises whatever the function raises.

    `size` is how many services, endpoints or records the function looks at.
    """
    return function() if size <= INLINE_LIMIT else await asyncio.to_thread(function)


def shorten_thread_switches() -> None:
    """Tune the whole process so that no thread delays others for long, the name server's least of all.

    A busy thread releases the GIL after half a millisecond instead of five. The garbage collector examines long-lived
    objects only rarely: with a thousand services that takes tens of milliseconds during which nothing is answered, and
    it finds nothing, since the large views have no cycles. Young objects are examined as before.
    """
    sys.setswitchinterval(0.0005)
    # The third threshold counts collections of the second generation; Python's default of 10 becomes 1000.
    gc.set_threshold(10_000, 20, 1000)
