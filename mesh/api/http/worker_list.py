"""Answers `GET /v1/workers`."""

from collections.abc import Callable

import msgspec
from aiohttp import web

from mesh.api.workers import workers_document
from mesh.control.snapshot import WorkerSnapshot
from mesh.util.offload import compute


class WorkerListHandler:
    """Answers with the workers of the cluster."""

    def __init__(self, observe: Callable[[], WorkerSnapshot]) -> None:
        self._observe = observe

    async def get(self, _: web.Request) -> web.Response:
        """Answer with all workers, those without endpoints too."""
        observed = self._observe()
        body = await compute(observed.size, lambda: msgspec.json.encode(workers_document(observed)))
        return web.Response(body=body, content_type="application/json")
