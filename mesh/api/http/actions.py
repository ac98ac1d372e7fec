"""Requests that change something. Each leaves one line when it arrives and one when it ends.

The lines begin with `audit:`, so that they can be filtered and kept for longer. They say who requested what, and the
outcome. An action whose first line can be written nowhere is refused.
"""

import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from typing_extensions import override

from mesh.api.http.action_progress import ActionProgress
from mesh.api.http.audit import AuditError, AuditLine, AuditTrail
from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.api.http.connections import read_body
from mesh.api.http.refusals import RefusalLog
from mesh.control.drain_requests import REQUESTER
from mesh.control.endpoint_actions import ActionHandler, EndpointAction
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.validation import MAX_WEIGHT, validate_number

MAX_TOGETHER = 1000
"""The most endpoints that are requested at once."""


class _EndpointRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    worker: str
    endpoint: str


class _ActionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class _DrainRequest(_ActionRequest, frozen=True, forbid_unknown_fields=True):
    force: bool = False
    together: tuple[_EndpointRequest, ...] = ()

    def __post_init__(self) -> None:
        if len(self.together) > MAX_TOGETHER:
            raise ValueError(f"more than {MAX_TOGETHER} endpoints at once")


class _WeightRequest(_DrainRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    weight: int | None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight is not None:
            validate_number(self.weight, 0, MAX_WEIGHT, "a weight")


_REQUESTS: dict[str, tuple[type[_ActionRequest], str]] = {
    "undrain": (_ActionRequest, '{"name": "..."}'),
    "weight": (_WeightRequest, '{"name": "...", "weight": 3}'),
}
_DRAIN = (_DrainRequest, '{"name": "..."}')


class ActionsHandler:
    """Carries out actions and leaves the lines that say so."""

    def __init__(self, audit: AuditTrail, refusals: RefusalLog) -> None:
        """`refusals` gets the requests that are refused before they become an action."""
        self._audit = audit
        self._refusals = refusals

    async def post(self, called: str, verb: ActionHandler, request: web.Request) -> web.StreamResponse:
        """Answer `POST /v1/VERB` after the action has ended.

        The status is 200 if it succeeded, 400 if the request is invalid, and 409 if the action was refused. A client
        that accepts `application/x-ndjson` gets status 200 and a line now and then while it lasts.
        """
        who = describe_client(request)
        kind, example = _REQUESTS.get(called, _DRAIN)
        try:
            asked = msgspec.json.decode(await read_body(request), type=kind)
        except (ValueError, RecursionError) as error:
            return self.refuse(called, request, error, example)
        progress = ActionProgress(request)
        action = _action(asked, progress.each_pass)

        async def act() -> tuple[web.Response, str]:
            requester = REQUESTER.set(who)
            try:
                progress.begin()
                endpoint = await verb(action)
            finally:
                REQUESTER.reset(requester)
            return web.json_response({"endpoint": endpoint}), quote_untrusted(endpoint)

        what = f"{called} {quote_untrusted(asked.name)}{_details(asked)} by {who}"
        return await progress.answer(self.carry_out(what, act))

    def refuse(self, called: str, request: web.Request, error: Exception, wanted: str) -> web.Response:
        """Return the response to a request whose body is not what is wanted, and leave a line about it."""
        reason = f"the request is invalid: {quote_untrusted(str(error))}"
        self._refusals.note(request, f"audit: {called} by {describe_client(request)} refused: {reason}")
        return refusal_response(400, f"the request is invalid: {error}; send {wanted}")

    async def carry_out(self, what: str, act: Callable[[], Awaitable[tuple[web.Response, str]]]) -> web.Response:
        """Return the response of `act`, which also returns its outcome, between the two lines about `what`."""
        try:
            await self._audit.begin(AuditLine(f"{what} requested"))
        except AuditError as error:
            return refusal_response(409, str(error), error.code)
        began = time.monotonic()
        end = AuditLine(f"{what} not finished: Exception", Code.REQUEST_REFUSED)
        try:
            response, outcome = await act()
            end = AuditLine(f"{what} done after {time.monotonic() - began:.1f} s: {outcome}")
        except ActionRefusedError as refusal:
            end = AuditLine(f"{what} refused: {quote_untrusted(str(refusal))}", Code.REQUEST_REFUSED)
            response = refusal_response(409, str(refusal), refusal.code)
        # The client left or the daemon stops: the request has its line, so its end must have one, too.
        except BaseException as error:
            end = AuditLine(f"{what} not finished: {type(error).__name__}", Code.REQUEST_REFUSED)
            raise
        finally:
            await self._audit.end(end)
        return response


def _action(asked: _ActionRequest, each_pass: Callable[[int | None], None]) -> EndpointAction:
    if not isinstance(asked, _DrainRequest):
        return EndpointAction(asked.name, each_pass=each_pass)
    together = tuple((each.worker, each.endpoint) for each in asked.together)
    weight = asked.weight if isinstance(asked, _WeightRequest) else None
    return EndpointAction(asked.name, asked.force, together, weight, each_pass)


def _details(asked: _ActionRequest) -> str:
    """Return what the audit lines say of a request beside its name."""
    words = ""
    if isinstance(asked, _WeightRequest):
        words += " reset" if asked.weight is None else f" to {asked.weight}"
    if isinstance(asked, _DrainRequest) and asked.force:
        words += " with force"
    return words
