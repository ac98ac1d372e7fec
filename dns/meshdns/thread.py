"""A name server in a thread of its own, so that no other work of the process is in the way of an answer.

What the process does beside (planning, parsing, probing) takes milliseconds at a time; on the same event loop every
question would wait for the end of it. In another thread it waits for the interpreter's lock at most, which a working
thread gives away after `sys.getswitchinterval()`: the shorter, the better. And where it may, it goes before the others
on the processor too: it works in bursts of less than a millisecond, and who has work for seconds does not miss them.

The two sides share only immutable values, and hand them over by the loop.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from meshdns.forwarder import ForwardCounters
from meshdns.server import NameServer, QueryCounters
from meshdns.zone import Zone

NICE_INCREMENT = 10
"""How much nicer the others are: nice(1)."""


class ThreadedServer:
    """As `NameServer`, with `make` called in the thread: what it makes may belong to that thread's event loop."""

    def __init__(self, make: Callable[[], NameServer]) -> None:
        self._make = make
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="dns")
        self._running: asyncio.Future[None] | None = None
        self._started: Future[Callable[[], object]] = Future()
        """How to end it."""
        self._loop: asyncio.AbstractEventLoop
        self._server: NameServer

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where it listens."""
        return self._server.addresses

    @property
    def counters(self) -> QueryCounters:
        """What became of the questions, a moment ago."""
        return self._server.counters

    @property
    def forward_counters(self) -> ForwardCounters:
        """What became of the questions about other names, a moment ago."""
        return self._server.forward_counters

    async def start(self) -> None:
        """Bind every address. Raises `NameServerError`; then none is bound."""
        loop = asyncio.get_running_loop()
        # The same kind of loop as the caller's: uvloop in production.
        self._running = loop.run_in_executor(self._executor, self._run, type(loop))
        started = asyncio.wrap_future(self._started)
        try:
            await asyncio.wait((self._running, started), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.stop()
            raise
        if self._running.done():
            started.cancel()
            await self.stop()

    async def stop(self) -> None:
        """Close the sockets and end what is under way. Raises what the thread has ended with, if it has."""
        if self._running is None:
            return
        if not self._running.done():
            (await asyncio.wrap_future(self._started))()
        running, self._running = self._running, None
        try:
            await running
        finally:
            self._executor.shutdown()

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone from a moment later on; see `NameServer.replace`."""
        self._loop.call_soon_threadsafe(self._server.replace, zone, touched)

    def _run(self, kind: Callable[[], asyncio.AbstractEventLoop]) -> None:
        _go_ahead()
        with asyncio.Runner(loop_factory=kind) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        end = asyncio.Event()
        self._server = self._make()
        await self._server.start()
        self._started.set_result(lambda: self._loop.call_soon_threadsafe(end.set))
        try:
            await end.wait()
        finally:
            await self._server.stop()


def _go_ahead() -> None:
    """Of the calling thread alone, as Linux has it: setpriority(2). Needs CAP_SYS_NICE or RLIMIT_NICE."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) - NICE_INCREMENT)
