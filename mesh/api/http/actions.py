"""What changes something: each request leaves a line in the log when it comes, and one when it is over.

The lines begin with `audit:`, so that they can be kept apart and for longer: who asked, for what, and what came of it.
"""

import logging
import time

import msgspec
from aiohttp import web

from mesh.api.http.auth import asker, refused, shown
from mesh.control.graceful_stop import Verb
from mesh.model.codes import Code
from mesh.model.errors import RefusalError

log = logging.getLogger("vipmesh")


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


async def carry_out(called: str, verb: Verb, request: web.Request) -> web.Response:
    """The answer to `POST /v1/VERB`, when it is done."""
    who = asker(request)
    try:
        asked = msgspec.json.decode(await request.read(), type=_Asked)
    except (ValueError, RecursionError) as error:
        log.warning(
            "audit: %s by %s refused: not understood: %s",
            called,
            who,
            shown(str(error)),
            extra=Code.REQUEST_REFUSED.extra,
        )
        return refused(400, f'{error}; send {{"name": "..."}}')
    what = f"{called} {shown(asked.name)} by {who}"
    log.info("audit: %s asked", what)
    began = time.monotonic()
    try:
        endpoint = await verb(asked.name)
    except RefusalError as refusal:
        log.warning("audit: %s refused: %s", what, shown(str(refusal)), extra=Code.REQUEST_REFUSED.extra)
        return refused(409, str(refusal), refusal.code)
    except BaseException as error:
        log.warning("audit: %s not finished: %s", what, type(error).__name__, extra=Code.REQUEST_REFUSED.extra)
        raise
    log.info("audit: %s done after %.1f s: %s", what, time.monotonic() - began, shown(endpoint))
    return web.json_response({"endpoint": endpoint})
