"""Answers `GET /v1/status`: as JSON, or as text for people who ask without `vipmesh`, and for its older versions."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from mesh.api.events import EventInput, connections_by_server
from mesh.api.status import StatusDetail, notices, render_status, worker_status
from mesh.control.endpoint_totals import traffic_by_server
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from mesh.util.offload import compute

CONNECTIONS_TIMEOUT = 1.0
"""Seconds that the data plane may take to count connections; after that the status is without them."""


class StatusHandler:
    """Answers with the status of a snapshot."""

    def __init__(self, observe: Callable[[], WorkerSnapshot], look: Callable[[], Awaitable[EventInput]]) -> None:
        """`observe` takes a snapshot; `look` takes one with the traffic of the data plane."""
        self._observe = observe
        self._look = look

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the status; `?verdicts=false` leaves out what only programs read."""
        observed = self._observe()
        if request.headers.get("Accept") == "text/plain":
            text = await compute(observed.size, lambda: render_status(worker_status(observed), notices(observed)))
            return web.Response(text=f"{text}\n")
        detail = StatusDetail.TABLE if request.query.get("verdicts") == "false" else StatusDetail.FULL
        connections = None
        traffic: Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]] = {}
        try:
            # A data plane that hangs must not keep the status from being told.
            async with asyncio.timeout(CONNECTIONS_TIMEOUT):
                counted = await self._look()
            observed, connections = counted.observed, counted.connections
            traffic = traffic_by_server(counted.endpoint_traffic)
        except TimeoutError:
            pass
        counts = None if connections is None else connections_by_server(connections)
        body = await compute(
            observed.size, lambda: msgspec.json.encode(worker_status(observed, detail, counts, traffic))
        )
        return web.Response(body=body, content_type="application/json")
