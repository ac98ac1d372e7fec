"""Requests that change something. Each leaves one log line when it arrives and one when it ends.

The lines begin with `audit:`, so that they can be filtered and kept for longer. They say who requested what, and the
outcome.
"""

import logging
import time

import msgspec
from aiohttp import web

from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.control.drain_requests import REQUESTER
from mesh.control.graceful_stop import ActionHandler
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError

log = logging.getLogger("vipmesh")


class _ActionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


async def carry_out_action(called: str, verb: ActionHandler, request: web.Request) -> web.Response:
    """Answer `POST /v1/VERB` after the action has ended.

    The status is 200 if it succeeded, 400 if the request is invalid, and 409 if the action was refused.
    """
    who = describe_client(request)
    try:
        asked = msgspec.json.decode(await request.read(), type=_ActionRequest)
    except (ValueError, RecursionError) as error:
        log.warning(
            "audit: %s by %s refused: the request is invalid: %s",
            called,
            who,
            quote_untrusted(str(error)),
            extra=Code.REQUEST_REFUSED.extra,
        )
        return refusal_response(400, f'the request is invalid: {error}; send {{"name": "..."}}')
    what = f"{called} {quote_untrusted(asked.name)} by {who}"
    log.info("audit: %s requested", what)
    began = time.monotonic()
    requester = REQUESTER.set(who)
    try:
        endpoint = await verb(asked.name)
    except ActionRefusedError as refusal:
        log.warning("audit: %s refused: %s", what, quote_untrusted(str(refusal)), extra=Code.REQUEST_REFUSED.extra)
        return refusal_response(409, str(refusal), refusal.code)
    # The client left or the daemon stops: the request was logged, so its end must be, too.
    except BaseException as error:
        log.warning("audit: %s not finished: %s", what, type(error).__name__, extra=Code.REQUEST_REFUSED.extra)
        raise
    finally:
        REQUESTER.reset(requester)
    log.info("audit: %s done after %.1f s: %s", what, time.monotonic() - began, quote_untrusted(endpoint))
    return web.json_response({"endpoint": endpoint})
