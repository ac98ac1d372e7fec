"""Gives memory that was freed back to the system.

glibc keeps what was freed for the next allocation, in one heap for each thread, and its threshold for large blocks
grows with the largest block that was freed: after one large file a process stays as large as it was for good.
"""

import ctypes
import gc
from collections.abc import Callable

_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none


def release_free_memory() -> None:
    """Collect young garbage, and return free pages of all heaps: malloc_trim(3). It takes some milliseconds, so call it
    in a thread.
    """
    gc.collect(1)
    if _trim is not None:
        _trim(0)
