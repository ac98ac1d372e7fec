"""Answers `GET /v1/events/past`: the past events that this worker has kept."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from aiohttp import web
from typing_extensions import override

from mesh.api.http.auth import refusal_response
from mesh.api.past_events import PastEventsDocument, events_about
from mesh.model.errors import MeshError
from mesh.model.past_event import NumberedEvent
from mesh.model.service import Name
from mesh.util.offload import compute

MAX_NAME_LENGTH = 300
"""The most characters of a name that is asked about."""
_ALL = 1 << 30
_WRONG = (
    "since must be seconds since 1970, or negative: seconds before now; after must be the number of an event; last "
    "must be how many of the newest events are wanted"
)


class PastEventReader(Protocol):
    """Reads the events that were kept."""

    async def read(self, *, after: int = 0, since: float = 0.0) -> tuple[NumberedEvent, ...]:
        """Return events like `EventRing.read`. Raises `MeshError` if they cannot be read."""
        ...


class NoPastEvents(PastEventReader):
    """Reads no events, for a worker that keeps none."""

    @override
    async def read(self, *, after: int = 0, since: float = 0.0) -> tuple[NumberedEvent, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class PastEventsHandler:
    """Answers with the events of one worker."""

    worker: Callable[[], str]
    """Returns the name of this worker."""
    domain: Name = ""
    """Completes a bare name."""
    reader: PastEventReader = field(default_factory=NoPastEvents)

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the events, with status 400 if the request is invalid, or 503 if events cannot be read."""
        asked, now = request.query.get("of"), time.time()
        if asked is not None and not 0 < len(asked) <= MAX_NAME_LENGTH:
            return refusal_response(400, f"of is empty or too long; send {MAX_NAME_LENGTH} characters at most")
        try:
            since, after = float(request.query.get("since", "0")), int(request.query.get("after", "0"))
            last = int(request.query.get("last", str(_ALL)))
        except ValueError:
            return refusal_response(400, _WRONG)
        if not (-1e12 < since < 1e12 and 0 <= after < 1 << 62 and 0 < last <= _ALL):  # also refuses NaN
            return refusal_response(400, _WRONG)
        try:
            events = await self.reader.read(after=after, since=since if since >= 0 else now + since)
        except MeshError as error:
            return refusal_response(503, str(error), error.code)
        if asked is not None:
            events = await compute(len(events), lambda: events_about(asked, events, self.domain))
        document = PastEventsDocument(self.worker(), now, events[-last:])
        body = await compute(len(document.events), lambda: msgspec.json.encode(document))
        return web.Response(body=body, content_type="application/json")
