"""What changes something: each request leaves a line in the log when it comes, and one when it is over.

The lines begin with `audit:`, so that they can be kept apart and for longer: who asked, for what, and what came of it.
"""

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from mesh.api.http.auth import asker, refused, shown

log = logging.getLogger("vipmesh")

Verb = Callable[[str], Awaitable[str]]
"""Does something to the endpoint or container that is named; returns the endpoint's id. Raises `RefusalError`."""


class RefusalError(Exception):
    """A verb cannot be carried out: what, why and what to do."""


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


async def carry_out(called: str, verb: Verb, request: web.Request) -> web.Response:
    """The answer to `POST /v1/VERB`, when it is done."""
    who = asker(request)
    try:
        asked = msgspec.json.decode(await request.read(), type=_Asked)
    except (ValueError, RecursionError) as error:
        log.warning("audit: %s by %s refused: not understood: %s", called, who, shown(str(error)))
        return refused(400, f'{error}; send {{"name": "..."}}')
    what = f"{called} {shown(asked.name)} by {who}"
    log.info("audit: %s asked", what)
    began = time.monotonic()
    try:
        endpoint = await verb(asked.name)
    except RefusalError as refusal:
        log.warning("audit: %s refused: %s", what, shown(str(refusal)))
        return refused(409, str(refusal))
    except BaseException as error:
        log.warning("audit: %s not finished: %s", what, type(error).__name__)
        raise
    log.info("audit: %s done after %.1f s: %s", what, time.monotonic() - began, shown(endpoint))
    return web.json_response({"endpoint": endpoint})
