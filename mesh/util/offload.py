"""Pure functions over large pictures run beside the event loop, not on it.

At ten thousand endpoints a plan takes tens of milliseconds, and in that time no query would be answered. What is
computed is immutable on both sides, so a thread needs no lock; the interpreter lets the loop in between
(`sys.setswitchinterval`). Small pictures are done at once: changing threads would cost more than the work.
"""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INLINE_LIMIT = 1000
"""Services, endpoints or records that are worked on in about a millisecond."""


async def compute(size: int, function: Callable[[], T]) -> T:
    """What the function returns; `size` is how many things it looks at. Raises what the function raises."""
    return function() if size <= INLINE_LIMIT else await asyncio.to_thread(function)


def shorten_thread_switches() -> None:
    """For the whole process: no thread keeps another one waiting for long, and least of all the name server's.

    A thread that works gives the interpreter away after half a millisecond instead of five. And the garbage collector
    looks through everything that lives only rarely: at a thousand services that takes tens of milliseconds, in which
    nothing is answered, and finds nothing, since the large pictures have no cycles; young objects are looked through as
    before.
    """
    sys.setswitchinterval(0.0005)
    gc.set_threshold(10_000, 20, 1000)
