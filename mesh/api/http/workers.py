"""Answers `GET /v1/workers/NAME/...`: asks another worker and passes its answer on; and the events of all workers.

Only what a worker may read anyway is passed on, and only to the worker itself: no request makes one worker ask a third.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from mesh.api.channel.worker_channel import DEADLINE, ChannelError, WorkerChannel
from mesh.api.cluster_events import (
    AskedWorker,
    ClusterEventsDocument,
    KeptEvent,
    WorkerAnswer,
    cluster_document,
    merge_newest,
    missing,
    own_answer,
    read_answer,
)
from mesh.api.http.auth import refusal_response
from mesh.api.http.handlers import WORKS
from mesh.api.http.past_events import ALL_EVENTS, PastEventsHandler, PastEventsQuery, parse_query
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import INLINE_LIMIT, compute

bulkhead = Bulkhead(DaemonPart.ADMIN)

MAX_EVENT_BYTES = 16 << 20
"""The most bytes of the events of one worker: some 30,000 events."""
EVENTS_ASKED = 4
"""The most workers that are asked for events at one time, since their answers are large."""
EVENTS_DEADLINE = 10.0
"""Seconds until the events of all workers are answered; a worker that has not been asked by then is left out."""
MAX_QUERY_LENGTH = 2000
"""The most characters of a query that is passed on."""

LocalAnswer = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""Answers a path for this worker itself."""
_KNOWN = MappingProxyType(
    {
        "status": ("verdicts",),
        "explain": ("of",),
        "events/past": ("of", "since", "after", "last"),
    }
)
"""Paths below `/v1/` that are passed on, with the parameters of each."""
_STATUS = MappingProxyType({Code.CHANNEL_NO_ADDRESS: 404, Code.CHANNEL_WITHOUT_CERTIFICATE: 503})


class WorkersHandler:
    """Answers for other workers, which it asks over the channel."""

    def __init__(
        self, channel: WorkerChannel | None, past: PastEventsHandler, local: Mapping[str, LocalAnswer]
    ) -> None:
        """`channel` is None for a worker that has no others. `local` answers the paths for this worker itself."""
        self._channel = channel
        self._past = past
        self._local = local

    async def get(self, what: str, request: web.Request) -> web.StreamResponse:
        """Answer with what the worker answers at `/v1/WHAT`, or say why it cannot be asked."""
        worker = request.match_info["worker"]
        if worker == self._past.worker():
            return await self._local[what](request)
        query = urlencode({key: request.query[key] for key in _KNOWN[what] if key in request.query})
        if len(query) > MAX_QUERY_LENGTH:
            return refusal_response(400, f"the query is too long; send {MAX_QUERY_LENGTH} characters at most")
        accept = "text/plain" if request.headers.get("Accept") == "text/plain" else "application/json"
        try:
            answer = await self._ask(worker, f"/v1/{what}{'?' if query else ''}{query}", accept)
        except ChannelError as error:
            return _refused(error)
        return answer

    async def get_address(self, request: web.Request) -> web.Response:
        """Answer with where the admin API of another worker is, for a client with credentials of its own."""
        worker = request.match_info["worker"]
        try:
            if self._channel is None:
                raise _alone(worker)
            return web.json_response({"worker": worker, "address": str(self._channel.address(worker))})
        except ChannelError as error:
            return _refused(error)

    async def get_events(self, request: web.Request) -> web.Response:
        """Answer with past events of this worker, or of all of them with `?workers=all`."""
        asked = request.query.get("workers")
        if asked is None:
            return await self._past.get(request)
        try:
            query = parse_query(request.query)
            if asked != "all" or query.after:
                raise ValueError("workers must be all; the numbers of after are those of one worker, so leave it out")
            document = await self._all_events(query)
        except ValueError as error:
            return refusal_response(400, str(error))
        except MeshError as error:
            return refusal_response(503, str(error), error.code)
        body = await compute(len(document.events), lambda: msgspec.json.encode(document))
        return web.Response(body=body, content_type="application/json")

    async def _ask(self, worker: str, path: str, accept: str) -> web.Response:
        """Return the answer of another worker. Raises `ChannelError`."""
        if self._channel is None:
            raise _alone(worker)
        answer = await self._channel.ask(worker, path, accept=accept)
        works = answer.headers.get(WORKS.lower())
        headers = {WORKS: works} if works in ("true", "false") else {}
        # Its charset is not its own to choose: a text is UTF-8, as every worker sends it.
        charset = "utf-8" if accept == "text/plain" else None
        return web.Response(body=answer.body, content_type=answer.content_type, charset=charset, headers=headers)

    async def _all_events(self, query: PastEventsQuery) -> ClusterEventsDocument:
        """Return the events of this worker and of all others that answer. Raises `MeshError` without its own ones."""
        own = await self._past.read(query)
        kept: Sequence[KeptEvent] = own_answer(own).events
        workers: list[AskedWorker] = []
        total, room, end = len(kept), asyncio.Semaphore(EVENTS_ASKED), time.monotonic() + EVENTS_DEADLINE

        async def take(worker: str) -> None:
            nonlocal kept, total
            async with room:
                answer = await self._events_of(worker, query, end)
            workers.append(answer.asked)
            total += len(answer.events)
            kept = merge_newest(kept, answer.events)

        others = () if self._channel is None else tuple(self._channel.others())
        async with asyncio.TaskGroup() as tasks:
            for worker in others:
                tasks.create_task(bulkhead.run("events of another worker", take, worker))
        answered = {asked.worker for asked in workers}
        failed = "an internal error; the log of the daemon has more about it"
        workers += [missing(name, failed, Code.INTERNAL_ERROR).asked for name in others if name not in answered]
        dropped, kept = total - len(kept), merge_newest(kept, (), query.last)
        return await compute(len(kept), lambda: cluster_document(own, kept, workers, dropped))

    async def _events_of(self, worker: str, query: PastEventsQuery, end: float) -> WorkerAnswer:
        """Return the events of another worker, or why there are none."""
        left = end - time.monotonic()
        last = None if query.last == ALL_EVENTS else query.last
        parameters = (("of", query.of), ("since", query.since), ("last", last))
        asked = urlencode({key: value for key, value in parameters if value})
        path = f"/v1/events/past{'?' if asked else ''}{asked}"
        try:
            if self._channel is None:
                raise _alone(worker)
            if left <= 0:
                raise ChannelError(
                    Code.CHANNEL_NO_ANSWER, f"worker {worker}: too many others do not answer; ask it alone (--worker)"
                )
            sent = time.time()
            answer = await self._channel.ask(worker, path, deadline=min(DEADLINE, left), most=MAX_EVENT_BYTES)
            read = partial(read_answer, worker, answer.body, sent, time.time())
            # An event has some hundred bytes.
            return await compute(len(answer.body) // 100 if len(answer.body) > 100 * INLINE_LIMIT else 0, read)
        except ChannelError as error:
            return missing(worker, str(error), error.code)
        except ValueError as error:
            return missing(worker, f"worker {worker}: its answer cannot be read: {error}", Code.CHANNEL_NO_ANSWER)


def _alone(worker: str) -> ChannelError:
    return ChannelError(Code.CHANNEL_NO_ADDRESS, f"worker {worker}: there is no other worker; this one is alone")


def _refused(error: ChannelError) -> web.Response:
    """Return the refusal of the other worker, or else that it is not reached (RFC 9110, section 15.6.3)."""
    status = error.status if error.status in (400, 404) else _STATUS.get(error.code, 502)
    return refusal_response(status, str(error), error.code)
