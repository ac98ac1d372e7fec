"""Logs the requests that the admin API refuses: a limited number for each client, and the count of the others."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from time import monotonic

from aiohttp import web

from mesh.api.http.connections import client_key
from mesh.model.codes import Code
from mesh.util.logging.rate_limit import LogRateLimit

log = logging.getLogger("vipmesh")

BURST = 20
"""Lines about one client that are logged at once."""
RATE = 0.2
"""Lines per second about one client that are logged after that."""


class RefusalKind(StrEnum):
    """Why a request is refused."""

    UNAUTHENTICATED = "unauthenticated"
    """It has no valid token: 401."""
    FORBIDDEN = "forbidden"
    """Its host, origin or token does not allow it: 403."""
    INVALID = "invalid"
    """It is no valid request: 400."""


_KINDS = {401: RefusalKind.UNAUTHENTICATED, 403: RefusalKind.FORBIDDEN}


class RefusalLog:
    """Logs and counts refused requests. One client cannot hide those of another one."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._limit = LogRateLimit(BURST, RATE)
        self._counts: Counter[RefusalKind] = Counter()

    def note(self, request: web.Request, line: str, status: int = 400) -> None:
        """Count a refused request, and log the line unless there were too many about its client."""
        self._counts[_KINDS.get(status, RefusalKind.INVALID)] += 1
        client = client_key(request.remote) if request.remote else "the socket"
        left_out = self._limit.left_out(client, self._clock())
        if left_out is None:
            return
        more = f" ({left_out} more of this client since the last line)" if left_out else ""
        log.warning("%s%s", line, more, extra=Code.REQUEST_REFUSED.extra)

    def counts(self) -> Mapping[str, int]:
        """Return how many requests were refused since the start, by reason."""
        return {kind.value: self._counts[kind] for kind in RefusalKind}
