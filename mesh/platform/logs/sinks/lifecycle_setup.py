"""Makes the templates and policies that documents need, before the first of them is stored.

What the store has already under their names is left as it is: the operator may have changed it.
"""

import time
from collections.abc import Callable, Sequence

from mesh.config.settings import LogLifecycle
from mesh.model.codes import Code
from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import LogSinkError
from mesh.platform.logs.sinks.http_client import LogStoreAnswer, LogStoreClient, LogStoreRequest
from mesh.platform.logs.sinks.log_lifecycle import StoreObject, place_of, store_objects

_MADE = (200, 201)
_FOUND, _MISSING, _CONFLICT = 200, 404, 409
_REMEDY = "grant manage_ilm and manage_index_templates (OpenSearch: the ISM policies), or set [ship] lifecycle to off"


class LifecycleSetup:
    """Knows which templates and policies are there."""

    def __init__(
        self, client: LogStoreClient, prefix: str, kind: LogLifecycle, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """`clock` is in nanoseconds since 1970."""
        self._client = client
        self._prefix = prefix
        self._kind = kind
        self._clock = clock
        self._ready: set[int | None] = set()
        """The times to live whose templates and policies are there, in days."""

    async def place(self, documents: Sequence[LogDocument]) -> list[str]:
        """Return the index of each document, once all of them are set up. Raises `LogSinkError`."""
        now = self._clock()
        places = [place_of(each, self._prefix, now) for each in documents]
        for ttl_days in dict.fromkeys(each.ttl_days for each in places):
            if ttl_days not in self._ready:
                for each in store_objects(self._kind, self._prefix, ttl_days):
                    await self._ensure(each)
                self._ready.add(ttl_days)
        return [each.index for each in places]

    async def _ensure(self, wanted: StoreObject) -> None:
        if (await self._ask("GET", wanted.path, b"", _FOUND, _MISSING)).status == _FOUND:
            return
        answer = await self._ask("PUT", wanted.path, wanted.body, *_MADE, 400, _CONFLICT)
        if answer.status == 400:
            raise _failed(f"{wanted.path}: status 400: {answer.text()}")

    async def _ask(self, method: str, path: str, body: bytes, *understood: int) -> LogStoreAnswer:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            return await self._client.ask(LogStoreRequest(method, path, body, headers, frozenset(understood)))
        except LogSinkError as error:
            raise _failed(f"{path}: {error}", error.pause) from error


def _failed(reason: str, pause: float = 0.0) -> LogSinkError:
    text = f"the lifecycle of collected logs cannot be set up: {reason}"
    return LogSinkError(text, _REMEDY, pause=pause, code=Code.LOG_LIFECYCLE)
