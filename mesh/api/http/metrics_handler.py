"""`GET /metrics`: the worker's own series, and those of its process, which the usual library knows how to read.

Written in a thread: at ten thousand services that takes a tenth of a second, in which the loop goes on.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from mesh.api.metrics.families import Measured, exposition
from mesh.api.metrics.text_format import CONTENT_TYPE
from mesh.util.offload import compute

Measure = Callable[[], Awaitable[Measured]]


class Metrics:
    """Answers scrapes with what `measure` gives."""

    def __init__(self, measure: Measure) -> None:
        """`measure` gives what nobody changes any more."""
        self._measure = measure
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def get(self, _: web.Request) -> web.Response:
        """The text."""
        measured = await self._measure()
        body = await compute(measured.observed.size, lambda: exposition(measured) + generate_latest(self._process))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
