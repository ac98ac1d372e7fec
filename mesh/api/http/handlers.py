"""Answers `GET /v1/explain?of=NAME` and `GET /metrics`.

Metrics are formatted in a thread: with ten thousand services that takes a tenth of a second, during which the event
loop must go on.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from mesh.api.explain.document import Explanation, render_explanation
from mesh.api.http.auth import refusal_response
from mesh.api.http.refusals import RefusalLog
from mesh.api.metrics.families import MetricsInput, render_metrics
from mesh.api.metrics.text_format import CONTENT_TYPE
from mesh.model.problem import Notices
from mesh.util.offload import compute

ExplainFunction = Callable[[str], Awaitable[tuple[Explanation, Notices]]]
"""Explains a question: returns the explanation, and its messages with their codes."""

WORKS = "Vipmesh-Works"
"""The header that says whether the request reaches an endpoint: `true` or `false`."""

MeasureFunction = Callable[[], Awaitable[MetricsInput]]
"""Takes a snapshot for the metrics."""

MAX_QUESTION_LENGTH = 300
"""The most characters of a question: a DNS name has up to 253, and a URL may have a path."""


async def get_explanation(explain: ExplainFunction, request: web.Request) -> web.Response:
    """Answer with the explanation, as JSON or as text. A question that finds nothing has an explanation, too."""
    asked = request.query.get("of", "")
    if not 0 < len(asked) <= MAX_QUESTION_LENGTH:
        return refusal_response(
            400, f"NAME is missing or too long; ask /v1/explain?of=NAME, {MAX_QUESTION_LENGTH} characters at most"
        )
    explanation, notices = await explain(asked)
    headers = {WORKS: str(explanation.works).lower()}
    # `vipmesh explain` asks for text, so that it need not import what renders it.
    if request.headers.get("Accept") == "text/plain":
        return web.Response(text=f"{render_explanation(explanation, notices)}\n", headers=headers)
    body = msgspec.json.encode(explanation)
    return web.Response(body=body, content_type="application/json", headers=headers)


class MetricsHandler:
    """Answers scrapes with the metrics of a snapshot and of the process."""

    def __init__(self, measure: MeasureFunction, refusals: RefusalLog) -> None:
        """`measure` returns a snapshot that does not change any more, since it is read in a thread."""
        self._measure = measure
        self._refusals = refusals
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def get(self, _: web.Request) -> web.Response:
        """Answer with the text of all metrics."""
        measured = replace(await self._measure(), refused_requests=self._refusals.counts())
        body = await compute(measured.observed.size, lambda: render_metrics(measured) + generate_latest(self._process))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
