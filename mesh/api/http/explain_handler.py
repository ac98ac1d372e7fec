"""`GET /v1/explain?of=NAME`: the way of a request."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from mesh.api.explain.document import Explanation
from mesh.api.http.auth import refused

Explain = Callable[[str], Awaitable[Explanation]]
"""The way of a request to what is asked: a name, VIP, port or container."""

LONGEST = 300
"""Characters of a question: a DNS name has 253, and a URL may have a path."""


async def get_explanation(explain: Explain, request: web.Request) -> web.Response:
    """The explanation; what is not found has one, too."""
    asked = request.query.get("of", "")
    if not 0 < len(asked) <= LONGEST:
        return refused(400, f"ask /v1/explain?of=NAME, with up to {LONGEST} characters")
    return web.Response(body=msgspec.json.encode(await explain(asked)), content_type="application/json")
