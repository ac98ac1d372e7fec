"""Answers `GET /v1/logs/SERVICE`: the lines of a service on this worker, on all workers, or as they are written.

Each worker resolves the name by itself, among its own containers. No request makes one worker ask a third: another one
is asked for its own lines alone.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from mesh.api.channel.worker_channel import DEADLINE, ChannelError, WorkerChannel
from mesh.api.http.auth import describe_client, refusal_response
from mesh.api.http.log_stream import LogStream
from mesh.api.service_logs import (
    LogFollowing,
    UnknownLogServiceError,
    WorkerLogAnswer,
    answered,
    meant_service,
    merged_document,
    missing_lines,
    read_log_answer,
)
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.platform.logs.reading.query import LogQuery, parse_log_query
from mesh.platform.logs.reading.worker_reader import MAX_ANSWER_BYTES, ServiceLogSource
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute

bulkhead = Bulkhead(DaemonPart.ADMIN)

LOGS_DEADLINE = 4.0
"""Seconds until a question is answered; a worker that has not answered by then is named."""
ASKED_AT_ONCE = 4
"""The most workers that are asked at one time, since their answers are large."""
MAX_QUESTIONS = 8
"""The most questions that are answered at one time, each of which holds the answers of all workers."""
MAX_FOLLOWERS = 16
"""The most streams at one time."""
_INTERNAL = "an internal error; the log of the daemon has more about it"


class ServiceLogsHandler:
    """Answers with the lines of services."""

    def __init__(
        self,
        worker: Callable[[], str],
        reader: ServiceLogSource,
        channel: WorkerChannel | None,
        owner: Callable[[str], str],
    ) -> None:
        """`worker` returns the name of this worker, `owner` the service with a routing name. `channel` is None for a
        worker that has no others.
        """
        self._worker = worker
        self._reader = reader
        self._channel = channel
        self._owner = owner
        self._questions = 0
        self._streams: set[LogStream] = set()

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer with the lines, or with a stream of them; with status 400, 404 or 503 if that is not possible."""
        try:
            asked = request.match_info["service"]
            query = parse_log_query(self._owner(asked), request.query, time.time())
            others = request.query.get("workers")
            follow = request.query.get("follow", "false") == "true"
            if query.after is not None and (others or follow):
                raise ValueError("after is the cursor of one worker; leave out workers and follow")
            if follow:
                return await self._follow(request, query, self._asked(others))
            if self._questions >= MAX_QUESTIONS:
                return refusal_response(503, f"{MAX_QUESTIONS} questions for lines are being answered; ask again later")
            self._questions += 1
            try:
                return await self._answer(query, others)
            finally:
                self._questions -= 1
        except UnknownLogServiceError as error:
            return refusal_response(400 if error.is_ambiguous else 404, str(error), Code.LOG_SERVICE_UNKNOWN)
        except ChannelError as error:
            return refusal_response(404, str(error), error.code)
        except ValueError as error:
            return refusal_response(400, str(error))

    def close(self) -> None:
        """End all streams."""
        for stream in tuple(self._streams):
            stream.dismiss()

    async def _answer(self, query: LogQuery, others: str | None) -> web.Response:
        if others is None:
            found = (await self._own(query)).document
            body = await compute(0 if found is None else len(found.lines), partial(msgspec.json.encode, found))
            return web.Response(body=body, content_type="application/json")
        answers = await self.ask(self._asked(others), lambda _: query)
        meant_service(query.service, answers)
        size = sum(len(each.document.lines) for each in answers if each.document is not None)
        document = await compute(size, partial(merged_document, self._worker(), time.time(), query.lines, answers))
        body = await compute(len(document.lines), partial(msgspec.json.encode, document))
        return web.Response(body=body, content_type="application/json")

    async def _follow(self, request: web.Request, query: LogQuery, workers: Collection[str]) -> web.StreamResponse:
        if len(self._streams) >= MAX_FOLLOWERS:
            return refusal_response(503, f"{MAX_FOLLOWERS} streams of lines are open; close one of them")
        answers = await self.ask(workers, lambda _: query)
        service = meant_service(query.service, answers)
        following = LogFollowing(query if service is None else query._replace(service=service))

        async def more() -> Sequence[WorkerLogAnswer]:
            return await self.ask(workers, following.question)

        stream = LogStream(following, answers, more, describe_client(request))
        self._streams.add(stream)
        try:
            return await stream.respond(request)
        finally:
            self._streams.discard(stream)

    def _asked(self, others: str | None) -> Collection[str]:
        """Return the workers that are asked. Raises `ChannelError` if there is no worker of that name."""
        own, known = self._worker(), set() if self._channel is None else set(self._channel.others())
        if others is None or others == own:
            return (own,)
        if others == "all":
            return sorted({own, *known})
        if others not in known:
            names = ", ".join(sorted(known)[:10]) or "none"
            raise ChannelError(
                Code.CHANNEL_NO_ADDRESS,
                f"worker {others}: there is no other worker of that name; there are: {names}",
            )
        return (others,)

    async def ask(self, workers: Collection[str], question: Callable[[str], LogQuery]) -> Sequence[WorkerLogAnswer]:
        """Ask these workers, and return what came of each, in their order."""
        answers: dict[str, WorkerLogAnswer] = {}
        room, end = asyncio.Semaphore(ASKED_AT_ONCE), asyncio.get_running_loop().time() + LOGS_DEADLINE

        async def take(worker: str) -> None:
            query = question(worker)
            if worker == self._worker():
                answers[worker] = await self._own(query)
                return
            async with room:
                answers[worker] = await self._of_other(worker, query, end)

        async with asyncio.TaskGroup() as tasks:
            for worker in workers:
                tasks.create_task(bulkhead.run("lines of a worker", take, worker))
        return [answers.get(worker) or missing_lines(worker, _INTERNAL, Code.INTERNAL_ERROR) for worker in workers]

    async def _own(self, query: LogQuery) -> WorkerLogAnswer:
        found = await self._reader.read(query)
        return await compute(len(found.lines), partial(answered, self._worker(), query.service, found))

    async def _of_other(self, worker: str, query: LogQuery, end: float) -> WorkerLogAnswer:
        left = end - asyncio.get_running_loop().time()
        path = f"/v1/logs/{quote(query.service, safe='')}?{urlencode(query.parameters())}"
        try:
            if self._channel is None or left <= 0:
                raise ChannelError(
                    Code.CHANNEL_NO_ANSWER, f"worker {worker}: too many others do not answer; ask it alone (--worker)"
                )
            reply = await self._channel.ask(worker, path, deadline=min(DEADLINE, left), most=MAX_ANSWER_BYTES)
            return await compute(len(reply.body) // 100, partial(read_log_answer, worker, query.service, reply.body))
        except ChannelError as error:
            text = str(error)
            if error.status == 404:
                text = f"worker {worker}: it has no lines for others yet; update it"
            return missing_lines(worker, text, error.code)
        except ValueError as error:
            return missing_lines(worker, f"worker {worker}: its answer cannot be read: {error}", Code.CHANNEL_NO_ANSWER)
