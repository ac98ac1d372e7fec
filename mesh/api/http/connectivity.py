"""Answers `GET /v1/test?of=NAME` with the plan of a connectivity test, and `POST /v1/test` with its report."""

from typing import Protocol

import msgspec
from aiohttp import web

from mesh.api.connectivity.plan import ConnectivityPlan
from mesh.api.connectivity.report import ConnectivityReport
from mesh.api.http.actions import ActionsHandler
from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.api.http.connections import read_body
from mesh.api.http.handlers import MAX_QUESTION_LENGTH


class ConnectivityService(Protocol):
    """Plans and runs connectivity tests."""

    async def plan(self, asked: str | None) -> ConnectivityPlan:
        """Return the plan for what is asked, None for all services."""
        ...

    async def run(self, asked: str | None) -> ConnectivityReport:
        """Run a test from this worker, and return what came back."""
        ...


class _TestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str | None = None


class ConnectivityHandler:
    """Answers the requests of connectivity tests."""

    def __init__(self, service: ConnectivityService, actions: ActionsHandler) -> None:
        self._service = service
        self._actions = actions

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the plan."""
        asked = request.query.get("of")
        if asked is not None and not 0 < len(asked) <= MAX_QUESTION_LENGTH:
            return _refused()
        return _json(await self._service.plan(asked))

    async def post(self, request: web.Request) -> web.Response:
        """Run the test and answer with its report. It sends packets to services of the mesh alone."""
        try:
            asked = msgspec.json.decode(await read_body(request) or b"{}", type=_TestRequest).name
        except (ValueError, RecursionError) as error:
            return refusal_response(400, f'the request is invalid: {error}; send {{}} or {{"name": "..."}}')
        if asked is not None and not 0 < len(asked) <= MAX_QUESTION_LENGTH:
            return _refused()

        async def act() -> tuple[web.Response, str]:
            report = await self._service.run(asked)
            return _json(report), "arrives" if report.works else "does not arrive"

        name = quote_untrusted(asked or "of all services")
        return await self._actions.carry_out(f"test {name} by {describe_client(request)}", act)


def _refused() -> web.Response:
    return refusal_response(400, f"NAME is empty or too long; send {MAX_QUESTION_LENGTH} characters at most")


def _json(document: ConnectivityPlan | ConnectivityReport) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")
