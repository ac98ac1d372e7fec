"""`GET /v1/events`: server-sent events, for the page and for programs that follow a worker."""

import asyncio
import logging

from aiohttp import ClientConnectionResetError, web

from mesh.api.http.auth import describe_client, refusal_response
from mesh.api.http.broadcaster import EventBroadcaster, EventWatcher, TooManyWatchersError
from mesh.model.codes import Code

log = logging.getLogger("vipmesh")

KEEPALIVE_INTERVAL = 15.0
"""Seconds of silence after which a comment is sent; proxies close connections that are silent for long."""
WRITE_TIMEOUT = 20.0
"""Seconds that a watcher has to read what was written."""

_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
"""`X-Accel-Buffering` keeps nginx from holding events back."""


async def stream_events(feed: EventBroadcaster, request: web.Request) -> web.StreamResponse:
    """Send events until the watcher leaves, reads too slowly, or the daemon stops."""
    try:
        watcher = feed.watch(describe_client(request))
    except TooManyWatchersError as error:
        return refusal_response(503, str(error))
    response = web.StreamResponse(headers=_HEADERS)
    try:
        await response.prepare(request)
        await _write(watcher, response)
    except (ClientConnectionResetError, ConnectionResetError):
        pass  # the watcher left
    except TimeoutError:
        feed.dropped += 1
        log.warning(
            "admin API: watcher %s has read nothing for %g s: disconnected",
            watcher.who,
            WRITE_TIMEOUT,
            extra=Code.WATCHER_DISCONNECTED.extra,
        )
        if request.transport is not None:
            request.transport.abort()
    finally:
        feed.leave(watcher)
    return response


async def _write(watcher: EventWatcher, response: web.StreamResponse) -> None:
    """Write events until the last one. Raises `TimeoutError` if the watcher does not read."""
    batch = b"retry: 2000\n\n"
    while batch:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await response.write(batch)
        try:
            async with asyncio.timeout(KEEPALIVE_INTERVAL):
                batch = await watcher.take()
        except TimeoutError:
            batch = b": still here\n\n"
    await response.write_eof()
