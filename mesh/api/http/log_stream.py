"""`GET /v1/logs/SERVICE?follow=true`: lines as they are written, as server-sent events.

`line` has one line, `worker` what is to be said of a worker: where its lines come from, or why they are missing.
Nothing is read ahead: the workers are asked again when the watcher has taken what there was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
from aiohttp import ClientConnectionResetError, web

from mesh.api.service_logs import FollowedLines, LogFollowing, WorkerLogAnswer
from mesh.model.codes import Code
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")

FOLLOW_INTERVAL = 1.0
"""Seconds between two questions."""
KEEPALIVE_INTERVAL = 15.0
"""Seconds of silence after which a comment is sent; proxies close connections that are silent for long."""
WRITE_TIMEOUT = 20.0
"""Seconds that a watcher has to read what was written."""
WRITE_BYTES = 64 << 10
"""The size in bytes at which events are written."""
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
"""`X-Accel-Buffering` keeps nginx from holding events back."""


class LogStream:
    """The stream of one watcher."""

    def __init__(
        self,
        following: LogFollowing,
        first: Sequence[WorkerLogAnswer],
        more: Callable[[], Awaitable[Sequence[WorkerLogAnswer]]],
        who: str,
    ) -> None:
        """`first` are the answers with which it begins, `more` asks for those that follow. `who` is the client."""
        self._following = following
        self._first = first
        self._more = more
        self._who = who
        self._over = asyncio.Event()

    def dismiss(self) -> None:
        """End the stream: the daemon stops."""
        self._over.set()

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """Send lines until the watcher leaves, reads too slowly, or the daemon stops."""
        response = web.StreamResponse(headers=_HEADERS)
        try:
            await response.prepare(request)
            await self._write_all(response)
        except (ClientConnectionResetError, ConnectionResetError):
            pass  # the watcher left
        except TimeoutError:
            log.warning(
                "admin API: %s follows lines and has read nothing for %g s: disconnected",
                self._who,
                WRITE_TIMEOUT,
                extra=Code.WATCHER_DISCONNECTED.extra,
            )
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _write_all(self, response: web.StreamResponse) -> None:
        """Write until the daemon stops. Raises `TimeoutError` if the watcher does not read."""
        clock = asyncio.get_running_loop().time
        answers, written = self._first, clock()
        await _write(response, b"retry: 2000\n\n")
        while not self._over.is_set():
            news = self._following.take(answers)
            batch = b""
            for event in await compute(len(news.lines), lambda: list(_events(news))):  # noqa: B023 -- awaited here
                batch += event
                if len(batch) > WRITE_BYTES:
                    await _write(response, batch)
                    batch, written = b"", clock()
            if not batch and clock() - written >= KEEPALIVE_INTERVAL:
                batch = b": still here\n\n"
            if batch:
                await _write(response, batch)
                written = clock()
            if not news.more:
                await self._pause()
            answers = await self._more()
        await response.write_eof()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(FOLLOW_INTERVAL):
                await self._over.wait()
        except TimeoutError:
            pass


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT):
        await response.write(data)


def _events(news: FollowedLines) -> Iterator[bytes]:
    for asked in news.workers:
        yield b"event: worker\ndata: " + msgspec.json.encode(asked) + b"\n\n"
    for line in news.lines:
        yield b"event: line\ndata: " + msgspec.json.encode(line) + b"\n\n"
