"""`GET /v1/explain?of=NAME` and `GET /metrics`.

Metrics are written in a thread: at ten thousand services that takes a tenth of a second, in which the loop goes on.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from mesh.api.explain.document import Explanation, render_explanation
from mesh.api.http.auth import refusal_response
from mesh.api.metrics.families import MetricsInput, render_metrics
from mesh.api.metrics.text_format import CONTENT_TYPE
from mesh.model.problem import Notices
from mesh.util.offload import compute

ExplainFunction = Callable[[str], Awaitable[tuple[Explanation, Notices]]]
"""Explains what is asked: the request path to a name, VIP, port or container, and its messages with their codes."""

WORKS = "Vipmesh-Works"
"""The header that says whether the request gets somewhere: `true` or `false`."""

MeasureFunction = Callable[[], Awaitable[MetricsInput]]

MAX_QUESTION_LENGTH = 300
"""Characters of a question: a DNS name has 253, and a URL may have a path."""


async def get_explanation(explain: ExplainFunction, request: web.Request) -> web.Response:
    """The explanation, as JSON or as text; what is not found has one, too."""
    asked = request.query.get("of", "")
    if not 0 < len(asked) <= MAX_QUESTION_LENGTH:
        return refusal_response(400, f"ask /v1/explain?of=NAME, with up to {MAX_QUESTION_LENGTH} characters")
    explanation, notices = await explain(asked)
    headers = {WORKS: str(explanation.works).lower()}
    if request.headers.get("Accept") == "text/plain":  # `vipmesh explain`, which then need not load all of this
        return web.Response(text=f"{render_explanation(explanation, notices)}\n", headers=headers)
    body = msgspec.json.encode(explanation)
    return web.Response(body=body, content_type="application/json", headers=headers)


class MetricsHandler:
    """Answers scrapes with what `measure` gives."""

    def __init__(self, measure: MeasureFunction) -> None:
        """`measure` gives what nobody changes any more."""
        self._measure = measure
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def get(self, _: web.Request) -> web.Response:
        """The text."""
        measured = await self._measure()
        body = await compute(measured.observed.size, lambda: render_metrics(measured) + generate_latest(self._process))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
