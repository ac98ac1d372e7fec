"""Loki as a store of logs, by its push API in JSON.

What is pushed again after a lost answer has the same stream, time and text, and Loki keeps it once. Loki takes what it
can of a push and answers 400 if it refuses a line, too old or too long: the refused lines are found by halves.
"""

import time
from collections.abc import Callable, Sequence

from typing_extensions import override

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument
from mesh.platform.logs.sinks.halves import RefusedRequest, deliver_by_halves
from mesh.platform.logs.sinks.http_client import LogStoreAccess, LogStoreClient, LogStoreRequest
from mesh.platform.logs.sinks.loki_push import PATH, TENANT_HEADER, encode_push, has_no_structured_metadata

_TAKEN = (200, 204)
_TOO_LARGE = 413
_UNDERSTOOD = frozenset({*_TAKEN, 400, _TOO_LARGE})


class LokiSink(LogSink):
    """Pushes documents to the first endpoint that takes them."""

    def __init__(
        self, access: LogStoreAccess, tenant: str | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        """`clock` gives the time of documents without one, in nanoseconds since 1970. Raises `OSError` as TLS does."""
        self._client = LogStoreClient(access)
        self._headers = {"Content-Type": "application/json", **({} if tenant is None else {TENANT_HEADER: tenant})}
        self._clock = clock

    @override
    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        return await deliver_by_halves(documents, self._push) if documents else ()

    @override
    async def close(self) -> None:
        await self._client.close()

    async def _push(self, documents: Sequence[LogDocument]) -> RefusedRequest | Sequence[RefusedDocument]:
        body = encode_push(documents, self._clock())
        answer = await self._client.ask(LogStoreRequest("POST", PATH, body, self._headers, _UNDERSTOOD))
        if answer.status in _TAKEN:
            return ()
        if has_no_structured_metadata(answer.body):
            remedy = "set limits_config.allow_structured_metadata: true, with schema v13 and the store tsdb"
            raise LogSinkError("Loki does not take structured metadata", remedy)
        return RefusedRequest(f"status {answer.status}: {answer.text()}", answer.status == _TOO_LARGE)
