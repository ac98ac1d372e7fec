"""Answers `GET /v1/stacks`, `/v1/stacks/PROJECT` and its `/history`, and `POST /v1/stacks/PROJECT/scale`.

What runs is the engine's to say. A worker whose engine is no manager of the swarm asks the other workers over the
channel, which may only read; a number of instances is changed by the worker that is asked, or by none.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec
from aiohttp import web

from mesh.api.channel.worker_channel import ChannelError, WorkerChannel
from mesh.api.http.actions import ActionsHandler
from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.api.http.connections import read_body
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError, MeshError
from mesh.model.part import DaemonPart
from mesh.model.validation import MAX_SECONDS, validate_number
from mesh.platform.fleet.errors import FleetUnavailableError
from mesh.platform.stacks.applier import StackOutcome
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.listing import bounded_document
from mesh.platform.stacks.operations import ScaleRequest
from mesh.platform.stacks.rows import DeployRow, ReleaseRow, StackHistoryDocument, StacksDocument
from mesh.platform.stacks.scaling import MOST_INSTANCES
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.ADMIN)

DEFAULT_WAIT = 60.0
"""Seconds without progress after which a scaling gives up, unless the request says otherwise."""
MAX_STACKS_BYTES = 16 << 20
"""The most bytes of the stacks of another worker: some 30,000 releases."""
STACKS_ASKED = 4
"""The most workers that are asked at one time."""
STACKS_DEADLINE = 5.0
"""Seconds until a worker has answered for the swarm."""
NOBODY_LASTS = 20.0
"""Seconds for which no worker is asked again after none has answered: a page asks every few seconds."""


class StackRequests(Protocol):
    """Lists and scales stacks. Its refusals are `MeshError`."""

    async def list(self) -> Sequence[ReleaseRow]:
        """Return what runs. Raises `FleetUnavailableError` if this worker's engine cannot be asked."""
        ...

    async def scale(self, request: ScaleRequest, by: str) -> StackOutcome:
        """Change a number of instances."""
        ...

    async def history(self, project: str) -> Sequence[DeployRow]:
        """Return the last deploys of a project."""
        ...


class _ScaleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: str
    instances: int
    wait: float = DEFAULT_WAIT

    def __post_init__(self) -> None:
        validate_number(self.instances, 0, MOST_INSTANCES, "instances")
        validate_number(self.wait, 0, MAX_SECONDS, "seconds")


class StacksHandler:
    """Answers the requests about stacks."""

    def __init__(
        self,
        service: StackRequests | None,
        worker: Callable[[], str],
        channel: WorkerChannel | None,
        actions: ActionsHandler,
    ) -> None:
        """`service` is None for a worker that has no stacks, `channel` for one that has no others."""
        self._service = service
        self._worker = worker
        self._actions = actions
        self._others = _OtherStacks(channel)

    async def get(self, request: web.Request) -> web.Response:
        """Answer with what runs, or with why that is not known; `?here=true` asks no other worker."""
        return _json(await self._listing(request))

    async def get_project(self, request: web.Request) -> web.Response:
        """Answer with what runs of one project."""
        project, found = request.match_info["project"], await self._listing(request)
        rows = tuple(row for row in found.services if row.project == project)
        if found.error is None and not rows:
            return refusal_response(404, f"nothing of project {project[:200]} was deployed", Code.STACK_UNKNOWN)
        return _json(replace(found, services=rows))

    async def get_history(self, request: web.Request) -> web.Response:
        """Answer with the last deploys of a project, which every worker knows."""
        project = request.match_info["project"]
        if self._service is None:
            return refusal_response(404, f"nothing of project {project[:200]} was deployed", Code.STACK_UNKNOWN)
        try:
            rows = await self._service.history(project)
        except MeshError as error:
            return refusal_response(404 if isinstance(error, StackRequestError) else 503, str(error), error.code)
        return _json(StackHistoryDocument(project, tuple(rows)))

    async def scale(self, request: web.Request) -> web.Response:
        """Change the number of instances of a service, and answer when they are ready or do not become so."""
        if (service := self._service) is None:
            return refusal_response(409, "this worker has no engine; ask another one", Code.STACK_NO_MANAGER)
        project = request.match_info["project"]
        try:
            asked = msgspec.json.decode(await read_body(request), type=_ScaleBody)
        except (ValueError, RecursionError) as error:
            return self._actions.refuse("scale", request, error, '{"service": "...", "instances": 3}')
        who = describe_client(request)

        async def act() -> tuple[web.Response, str]:
            try:
                outcome = await service.scale(ScaleRequest(project, asked.service, asked.instances, asked.wait), who)
            except FleetUnavailableError as error:
                raise ActionRefusedError(Code.STACK_NO_MANAGER, f"{error}; ask a worker on a manager") from error
            except MeshError as error:
                raise ActionRefusedError(error.code, str(error)) from error
            failures = [
                {"service": each.service, "ready": each.ready, "wanted": each.wanted, "reasons": each.reasons}
                for each in outcome.failures
            ]
            answer = {"project": project, "service": asked.service, "steps": outcome.steps, "failures": failures}
            return _json(answer), f"{len(outcome.steps)} steps, {len(failures)} not ready"

        what = f"scale {quote_untrusted(f'{project}/{asked.service}')} to {asked.instances} by {who}"
        return await self._actions.carry_out(what, act)

    async def _listing(self, request: web.Request) -> StacksDocument:
        """Return what runs, from the engine of this worker or else from another one's."""
        reason = "this worker has no engine"
        if self._service is not None:
            try:
                return StacksDocument(self._worker(), tuple(await self._service.list()))
            except FleetUnavailableError as error:
                reason = str(error)
            except MeshError as error:
                return StacksDocument(None, (), str(error), str(error.code))
        found = None if request.query.get("here") == "true" else await self._others.ask()
        if found is not None:
            return found
        told = f"{self._worker()}: {reason}; ask a worker whose engine is a manager of the swarm"
        return StacksDocument(None, (), told, str(Code.STACK_NO_MANAGER))


class _OtherStacks:
    """Asks the other workers until one answers for the swarm."""

    def __init__(self, channel: WorkerChannel | None) -> None:
        self._channel = channel
        self._last: str | None = None
        """The worker that has answered last, which is asked first."""
        self._nobody_until = 0.0
        """Until when nobody is asked, by the monotonic clock."""

    async def ask(self) -> StacksDocument | None:
        """Return what runs; None if no worker answers."""
        if self._channel is None or time.monotonic() < self._nobody_until:
            return None
        others = sorted(self._channel.others())
        found: list[StacksDocument] = []
        if self._last in others:  # most likely it is still the one
            found = await self._first([self._last])
        found = found or await self._first([name for name in others if name != self._last])
        self._last = found[0].worker if found else None
        if not found:
            self._nobody_until = time.monotonic() + NOBODY_LASTS
        return found[0] if found else None

    async def _first(self, names: Sequence[str]) -> list[StacksDocument]:
        """Return the first answer of these workers; none if none has come in time."""
        found: list[StacksDocument] = []
        room, asking = asyncio.Semaphore(STACKS_ASKED), list[asyncio.Task[None]]()

        async def take(worker: str) -> None:
            async with room:
                answer = await self._ask(worker)
            if answer is not None and not found:
                found.append(answer)
                for each in asking:
                    each.cancel()

        try:
            async with asyncio.timeout(STACKS_DEADLINE), asyncio.TaskGroup() as tasks:
                for name in names:
                    asking.append(tasks.create_task(bulkhead.run("stacks of another worker", take, name)))
        except TimeoutError:
            pass  # what has come by then counts
        return found

    async def _ask(self, worker: str) -> StacksDocument | None:
        """Return what one worker says; None if its engine is no manager, or it does not answer."""
        if self._channel is None:
            return None
        try:
            reply = await self._channel.ask(worker, "/v1/stacks?here=true", most=MAX_STACKS_BYTES)
            # Who has answered is what its certificate says.
            answer = await asyncio.to_thread(bounded_document, reply.body, worker)
        except (ChannelError, ValueError):
            return None  # an earlier version, or it is away
        return None if answer.error is not None else answer


def _json(document: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")
