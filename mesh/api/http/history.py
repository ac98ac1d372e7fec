"""Takes the samples of the traffic history, and answers `GET /v1/history`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from mesh.api.events import EventInput, traffic_event
from mesh.api.http.auth import refusal_response
from mesh.api.traffic_history import INTERVAL, TrafficHistory, take_history_sample
from mesh.util.offload import compute

MAX_OWNER_LENGTH = 600
"""The most characters of an owner that is asked about."""


@dataclass(frozen=True, slots=True)
class HistoryHandler:
    """Answers with the history of one worker."""

    worker: Callable[[], str]
    """Returns the name of this worker."""
    history: TrafficHistory = field(default_factory=TrafficHistory)

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the series, those of one service with `of=OWNER`; with status 400 if the request is invalid."""
        owner = request.query.get("of")
        if owner is not None and not 0 < len(owner) <= MAX_OWNER_LENGTH:
            return refusal_response(400, f"of is empty or too long; send {MAX_OWNER_LENGTH} characters at most")
        body = msgspec.json.encode(self.history.document(self.worker(), owner))
        return web.Response(body=body, content_type="application/json")


class TrafficHistoryRecorder:
    """Adds a sample to the history in each interval, from the start of the daemon on. `run` runs until cancelled."""

    def __init__(self, history: TrafficHistory, look: Callable[[], Awaitable[EventInput]]) -> None:
        """`look` takes a snapshot of the worker."""
        self._history = history
        self._look = look
        self._before: EventInput | None = None
        """The snapshot of the last sample, from which rates are computed."""

    async def run(self) -> None:
        """Take samples until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await self.take()
            await asyncio.sleep(INTERVAL - clock() % INTERVAL)

    async def take(self) -> None:
        """Take one sample."""
        moment = await self._look()
        before, self._before = self._before, moment
        sample = await compute(
            moment.observed.size,
            lambda: take_history_sample(moment.observed, traffic_event(before, moment)),
        )
        self._history.record(int(moment.at // INTERVAL), time.time(), sample)
