"""The real daemon, whose event loop says how long its turns are: FILE ARGUMENTS..., as of `vipmesh`.

A timer of the loop runs in each turn of a busy loop. The CPU time of the thread between two of its calls is the time of
the turns between them; the longest one goes to the file, as a double, which the reader may set to 0.
"""

import asyncio
import mmap
import struct
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import uvloop

from mesh.cli.main import main

T = TypeVar("T")
TICK = 0.001
_run = uvloop.run


async def watched(work: Coroutine[object, object, T], longest: mmap.mmap) -> T:
    """Await the work beside the timer."""
    loop = asyncio.get_running_loop()
    last = time.thread_time()

    def tick() -> None:
        nonlocal last
        now = time.thread_time()
        if now - last > struct.unpack("d", longest[:8])[0]:
            longest[:8] = struct.pack("d", now - last)
        last = now
        loop.call_later(TICK, tick)

    tick()
    return await work


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        uvloop.run = lambda work, **options: _run(watched(work, shared), **options)
        sys.exit(main(sys.argv[2:]))
