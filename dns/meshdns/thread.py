"""Runs a name server in a thread of its own, so that no other work of the process delays a response.

Other work of the process (planning, parsing, probing) takes milliseconds at a time; on the same event loop every query
would wait for the end of it. In another thread a query waits at most for the GIL, which a busy thread releases after
`sys.getswitchinterval()`; the shorter that is, the better. Where permitted, the thread also gets a better scheduling
priority: it works in bursts of less than a millisecond, which threads that work for seconds do not miss.

The two sides share only immutable values, and pass them through the event loop.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from meshdns import bulkhead
from meshdns.forwarder import ForwardCounters
from meshdns.server import NameServer, QueryCounters
from meshdns.zone import Zone

NICE_INCREMENT = 10
"""How much lower than the process's nice value the thread's is; see nice(1)."""


class ThreadedServer:
    """Runs a `NameServer` in its own thread, with the interface of `NameServer`.

    `make` is called in that thread, so what it makes may use that thread's event loop.
    """

    def __init__(self, make: Callable[[], NameServer]) -> None:
        self._make = make
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="dns")
        self._running: asyncio.Future[None] | None = None
        """The thread's work while it runs, else None."""
        self._started: Future[Callable[[], object]] = Future()
        """Completed when every address is bound; its result is the function that ends the server."""
        self._loop: asyncio.AbstractEventLoop
        self._server: NameServer

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The addresses it listens on."""
        return self._server.addresses

    @property
    def counters(self) -> QueryCounters:
        """How queries were handled since the start. The values may be slightly out of date."""
        return self._server.counters

    @property
    def forward_counters(self) -> ForwardCounters:
        """How queries for other names were handled since the start. The values may be slightly out of date."""
        return self._server.forward_counters

    async def start(self) -> None:
        """Bind every address. Raises `NameServerError`, and then none is bound."""
        loop = asyncio.get_running_loop()
        # The thread's loop is of the same type as the caller's, which is uvloop in production.
        self._running = loop.run_in_executor(self._executor, self._run, type(loop))
        started = asyncio.wrap_future(self._started)
        try:
            await asyncio.wait((self._running, started), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.stop()
            raise
        # The thread ended before every address was bound: `stop` raises its exception.
        if self._running.done():
            started.cancel()
            await self.stop()

    async def stop(self) -> None:
        """Close the sockets and end whatever is under way.

        Raises the exception that the thread ended with, if there is one.
        """
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
        """Answer from this zone from the next turn of the thread's event loop on.

        `touched` is the lower-case wire names whose responses may differ; None if any may differ.
        """
        self._loop.call_soon_threadsafe(bulkhead.callback(self._server.replace, "a new zone"), zone, touched)

    def _run(self, kind: Callable[[], asyncio.AbstractEventLoop]) -> None:
        """Run an event loop in this thread until the server ends."""
        _go_ahead()
        with asyncio.Runner(loop_factory=kind) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(bulkhead.report_from_event_loop)
        end = asyncio.Event()
        self._server = self._make()
        await self._server.start()
        self._started.set_result(lambda: self._loop.call_soon_threadsafe(end.set))
        try:
            await end.wait()
        finally:
            await self._server.stop()


def _go_ahead() -> None:
    """Raise the scheduling priority of the calling thread by `NICE_INCREMENT`.

    On Linux, setpriority(2) with a thread ID affects that thread alone. Without CAP_SYS_NICE or RLIMIT_NICE, and on
    other systems, nothing changes.
    """
    if sys.platform == "linux":
        me = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) - NICE_INCREMENT)
