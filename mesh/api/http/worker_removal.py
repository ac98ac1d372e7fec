"""Answers `POST /v1/workers/remove`, which leaves two audit lines."""

from typing import Protocol

import msgspec
from aiohttp import web

from mesh.api.http.actions import ActionsHandler
from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.api.http.connections import read_body
from mesh.cluster.worker_removal import RemovedWorker


class WorkerRemovalService(Protocol):
    """Removes workers. Its refusals are `ActionRefusedError`."""

    async def remove(self, worker: str, *, force: bool = False) -> RemovedWorker:
        """Delete the records of a worker; return what was removed."""
        ...


class _RemovalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    force: bool = False


class WorkerRemovalHandler:
    """Answers the requests to remove a worker."""

    def __init__(self, service: WorkerRemovalService | None, actions: ActionsHandler) -> None:
        """`service` is None on a worker that offers none: every request is refused."""
        self._service = service
        self._actions = actions

    async def post(self, request: web.Request) -> web.Response:
        """Remove the worker that the body names."""
        if (service := self._service) is None:
            return refusal_response(409, "this worker removes none; ask a daemon that `vipmesh run` started")
        try:
            asked = msgspec.json.decode(await read_body(request), type=_RemovalRequest)
        except (ValueError, RecursionError) as error:
            return self._actions.refuse("workers remove", request, error, '{"name": "..."}')

        async def act() -> tuple[web.Response, str]:
            removed = await service.remove(asked.name, force=asked.force)
            return web.json_response({"worker": removed.worker, "records": removed.records}), (
                f"{quote_untrusted(removed.worker)}, {removed.records} records"
            )

        force = " with force" if asked.force else ""
        what = f"workers remove {quote_untrusted(asked.name)}{force} by {describe_client(request)}"
        return await self._actions.carry_out(what, act)
