"""`GET /v1/explain?of=NAME` and `GET /metrics`.

Metrics are written in a thread: at ten thousand services that takes a tenth of a second, in which the loop goes on.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from mesh.api.explain.document import Explanation
from mesh.api.http.auth import refused
from mesh.api.metrics.families import Measured, exposition
from mesh.api.metrics.text_format import CONTENT_TYPE
from mesh.util.offload import compute

Explain = Callable[[str], Awaitable[Explanation]]
"""Explains what is asked: a name, VIP, port or container."""

Measure = Callable[[], Awaitable[Measured]]

LONGEST = 300
"""Characters of a question: a DNS name has 253, and a URL may have a path."""


async def get_explanation(explain: Explain, request: web.Request) -> web.Response:
    """The explanation; what is not found has one, too."""
    asked = request.query.get("of", "")
    if not 0 < len(asked) <= LONGEST:
        return refused(400, f"ask /v1/explain?of=NAME, with up to {LONGEST} characters")
    return web.Response(body=msgspec.json.encode(await explain(asked)), content_type="application/json")


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
