"""Answers `GET /v1/claims`, `POST /v1/claims/free` and `POST /v1/claims/move`; each change leaves two audit lines."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec
from aiohttp import web

from mesh.api.http.actions import ActionsHandler
from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.api.http.connections import read_body
from mesh.cluster.claim_rows import ClaimRow
from mesh.model.errors import ActionRefusedError


class ClaimService(Protocol):
    """Lists and changes claims. Its refusals are `ActionRefusedError`."""

    async def list(self) -> Sequence[ClaimRow]:
        """Return all claims."""
        ...

    async def free(self, claim: str) -> str:
        """Delete a claim that no service declares; return it."""
        ...

    async def move(self, name: str, owner: str) -> str:
        """Give a routing name to another owner; return the name."""
        ...


class _FreeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class _MoveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    owner: str


class ClaimsHandler:
    """Answers the requests about claims."""

    def __init__(self, service: ClaimService | None, actions: ActionsHandler) -> None:
        """`service` is None on a worker that offers none: every request is refused."""
        self._service = service
        self._actions = actions

    async def get(self, _: web.Request) -> web.Response:
        """Answer with all claims."""
        if self._service is None:
            return _unavailable()
        try:
            rows = await self._service.list()
        except ActionRefusedError as refusal:
            return refusal_response(409, str(refusal), refusal.code)
        return web.Response(body=msgspec.json.encode({"claims": rows}), content_type="application/json")

    async def free(self, request: web.Request) -> web.Response:
        """Free the claim that the body names."""
        if (service := self._service) is None:
            return _unavailable()
        try:
            asked = msgspec.json.decode(await read_body(request), type=_FreeRequest)
        except (ValueError, RecursionError) as error:
            return self._actions.refuse("claims free", request, error, '{"name": "..."}')
        what = f"claims free {quote_untrusted(asked.name)} by {describe_client(request)}"
        return await self._carry_out(what, partial(service.free, asked.name))

    async def move(self, request: web.Request) -> web.Response:
        """Move the name that the body has to the owner that it has."""
        if (service := self._service) is None:
            return _unavailable()
        try:
            asked = msgspec.json.decode(await read_body(request), type=_MoveRequest)
        except (ValueError, RecursionError) as error:
            return self._actions.refuse("claims move", request, error, '{"name": "...", "owner": "PROJECT/SERVICE"}')
        what = (
            f"claims move {quote_untrusted(asked.name)} to {quote_untrusted(asked.owner)} by {describe_client(request)}"
        )
        return await self._carry_out(what, partial(service.move, asked.name, asked.owner))

    async def _carry_out(self, what: str, action: Callable[[], Awaitable[str]]) -> web.Response:
        async def act() -> tuple[web.Response, str]:
            claim = await action()
            return web.json_response({"claim": claim}), quote_untrusted(claim)

        return await self._actions.carry_out(what, act)


def _unavailable() -> web.Response:
    return refusal_response(409, "this worker offers no claims; ask a daemon that `vipmesh run` started")
