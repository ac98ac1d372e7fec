"""Answers `GET /v1/events/past`: the past events that this worker has kept, or those of all workers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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
ALL_EVENTS = 1 << 30
"""No limit."""
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


class PastEventsQuery(NamedTuple):
    """Which events are asked for."""

    of: str | None
    """A name; None for all events."""
    since: float
    """Seconds since 1970, or negative: seconds before now."""
    after: int
    """Only events with a higher number."""
    last: int = ALL_EVENTS
    """How many of the newest events are wanted."""


def parse_query(query: Mapping[str, str]) -> PastEventsQuery:
    """Parse the query of a URL. Raises `ValueError` with the reason in words."""
    asked = query.get("of")
    if asked is not None and not 0 < len(asked) <= MAX_NAME_LENGTH:
        raise ValueError(f"of is empty or too long; send {MAX_NAME_LENGTH} characters at most")
    try:
        since, after = float(query.get("since", "0")), int(query.get("after", "0"))
        last = int(query.get("last", str(ALL_EVENTS)))
    except ValueError as error:
        raise ValueError(_WRONG) from error
    if not (-1e12 < since < 1e12 and 0 <= after < 1 << 62 and 0 < last <= ALL_EVENTS):  # also refuses NaN
        raise ValueError(_WRONG)
    return PastEventsQuery(asked, since, after, last)


@dataclass(frozen=True, slots=True)
class PastEventsHandler:
    """Answers with the events of one worker."""

    worker: Callable[[], str]
    """Returns the name of this worker."""
    domain: Name = ""
    """Completes a bare name."""
    reader: PastEventReader = field(default_factory=NoPastEvents)

    async def read(self, query: PastEventsQuery) -> PastEventsDocument:
        """Return the events. Raises `MeshError` if they cannot be read."""
        asked, now = query.of, time.time()
        since = query.since if query.since >= 0 else now + query.since
        events = await self.reader.read(after=query.after, since=since)
        if asked is not None:
            events = await compute(len(events), lambda: events_about(asked, events, self.domain))
        return PastEventsDocument(self.worker(), now, events[-query.last :])

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the events, with status 400 if the request is invalid, or 503 if events cannot be read."""
        try:
            document = await self.read(parse_query(request.query))
        except ValueError as error:
            return refusal_response(400, str(error))
        except MeshError as error:
            return refusal_response(503, str(error), error.code)
        body = await compute(len(document.events), lambda: msgspec.json.encode(document))
        return web.Response(body=body, content_type="application/json")
