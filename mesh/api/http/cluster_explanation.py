"""Answers `GET /v1/explain?of=NAME` for this worker, and with `?workers=all` with what the others know besides."""

import asyncio
from urllib.parse import urlencode

from aiohttp import web

from mesh.api.channel.worker_channel import DEADLINE, ChannelError, WorkerChannel
from mesh.api.explain.document import Explanation
from mesh.api.explain.elsewhere import PeerAnswer, add_answers, read_explanation
from mesh.api.http.auth import refusal_response
from mesh.api.http.handlers import ExplainFunction, get_explanation
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.problem import Notices
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute

bulkhead = Bulkhead(DaemonPart.ADMIN)

MAX_EXPLANATION_BYTES = 1 << 20
"""The most bytes of the explanation of one worker."""
ASKED_AT_ONCE = 16
"""The most workers that are asked at one time."""
EXPLAIN_DEADLINE = 4.0
"""Seconds until the question is answered; a worker that has not answered by then is left out. The command line waits
for five.
"""


class ClusterExplanation:
    """Explains a question, and asks the other workers about it. Each of them answers for itself alone."""

    def __init__(self, explain: ExplainFunction, channel: WorkerChannel | None) -> None:
        """`channel` is None for a worker that has no others."""
        self._explain = explain
        self._channel = channel

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the explanation, with that of all workers if the request says `workers=all`."""
        asked = request.query.get("workers")
        if asked not in (None, "all"):
            return refusal_response(400, "workers must be all; leave it out to ask this worker alone")
        return await get_explanation(self._explain if asked is None else self.explain, request)

    async def explain(self, asked: str) -> tuple[Explanation, Notices]:
        """Return the explanation with what the other workers say, and the messages of this worker."""
        others = () if self._channel is None else tuple(self._channel.others())
        answers: dict[str, PeerAnswer] = {}
        room, end = asyncio.Semaphore(ASKED_AT_ONCE), asyncio.get_running_loop().time() + EXPLAIN_DEADLINE

        async def take(worker: str) -> None:
            async with room:
                answers[worker] = await self._answer_of(worker, asked, end)

        async with asyncio.TaskGroup() as tasks:
            for worker in others:
                tasks.create_task(bulkhead.run("explanation of another worker", take, worker))
        explanation, notices = await self._explain(asked)
        failed = "an internal error; the log of the daemon has more about it"
        for worker in others:
            answers.setdefault(worker, PeerAnswer(worker, error=failed, code=Code.INTERNAL_ERROR))
        return await compute(len(answers), lambda: add_answers(explanation, answers.values())), notices

    async def _answer_of(self, worker: str, asked: str, end: float) -> PeerAnswer:
        """Return what another worker explains, or why there is nothing of it."""
        left = end - asyncio.get_running_loop().time()
        path = f"/v1/explain?{urlencode({'of': asked})}"
        try:
            if self._channel is None or left <= 0:
                raise ChannelError(
                    Code.CHANNEL_NO_ANSWER, f"worker {worker}: too many others do not answer; ask it alone (--worker)"
                )
            answer = await self._channel.ask(worker, path, deadline=min(DEADLINE, left), most=MAX_EXPLANATION_BYTES)
            return read_explanation(worker, answer.body)
        except ChannelError as error:
            return PeerAnswer(worker, error=str(error), code=error.code)
        except ValueError as error:
            text = f"worker {worker}: its answer cannot be read: {error}"
            return PeerAnswer(worker, error=text, code=Code.CHANNEL_NO_ANSWER)
