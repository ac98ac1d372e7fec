"""What changes something: each request leaves a line in the log when it comes, and one when it is over.

The lines begin with `audit:`, so that they can be kept apart and for longer: who asked, for what, and what came of it.
"""

import logging
import time

import msgspec
from aiohttp import web

from mesh.api.http.auth import describe_client, quote_untrusted, refusal_response
from mesh.control.graceful_stop import ActionHandler
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError

log = logging.getLogger("vipmesh")


class _ActionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


async def carry_out_action(called: str, verb: ActionHandler, request: web.Request) -> web.Response:
    """The answer to `POST /v1/VERB`, when it is done."""
    who = describe_client(request)
    try:
        asked = msgspec.json.decode(await request.read(), type=_ActionRequest)
    except (ValueError, RecursionError) as error:
        log.warning(
            "audit: %s by %s refused: not understood: %s",
            called,
            who,
            quote_untrusted(str(error)),
            extra=Code.REQUEST_REFUSED.extra,
        )
        return refusal_response(400, f'{error}; send {{"name": "..."}}')
    what = f"{called} {quote_untrusted(asked.name)} by {who}"
    log.info("audit: %s asked", what)
    began = time.monotonic()
    try:
        endpoint = await verb(asked.name)
    except ActionRefusedError as refusal:
        log.warning("audit: %s refused: %s", what, quote_untrusted(str(refusal)), extra=Code.REQUEST_REFUSED.extra)
        return refusal_response(409, str(refusal), refusal.code)
    except BaseException as error:
        log.warning("audit: %s not finished: %s", what, type(error).__name__, extra=Code.REQUEST_REFUSED.extra)
        raise
    log.info("audit: %s done after %.1f s: %s", what, time.monotonic() - began, quote_untrusted(endpoint))
    return web.json_response({"endpoint": endpoint})
