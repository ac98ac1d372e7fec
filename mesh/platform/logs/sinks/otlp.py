"""A store of logs that speaks OTLP/HTTP, such as an OpenTelemetry collector, in the JSON encoding.

The protocol has no identifier that makes a repeat harmless: what is sent again after a lost answer may be stored twice.
Each record has `log.record.uid`, by which a store may remove the second one.
"""

import time
from collections.abc import Callable, Sequence

from typing_extensions import override

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument
from mesh.platform.logs.sinks.halves import RefusedRequest, deliver_by_halves
from mesh.platform.logs.sinks.http_client import LogStoreAccess, LogStoreClient, LogStoreRequest, printable
from mesh.platform.logs.sinks.otlp_logs import (
    PATH,
    MisunderstoodExportError,
    encode_export,
    judge_export,
    refusal_message,
)

_BAD_REQUEST, _TOO_LARGE = 400, 413
_UNDERSTOOD = frozenset({200, _BAD_REQUEST, _TOO_LARGE})
_HEADERS = {"Content-Type": "application/json"}


class OtlpSink(LogSink):
    """Exports documents to the first endpoint that takes them."""

    def __init__(
        self,
        access: LogStoreAccess,
        on_rejected: Callable[[int, str], None],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`on_rejected` gets the number of records that were rejected without being named, and the reason.

        `clock` is in nanoseconds since 1970. Raises `OSError` as TLS does.
        """
        self._client = LogStoreClient(access)
        self._on_rejected = on_rejected
        self._clock = clock

    @override
    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        return await deliver_by_halves(documents, self._export) if documents else ()

    @override
    async def close(self) -> None:
        await self._client.close()

    async def _export(self, documents: Sequence[LogDocument]) -> RefusedRequest | Sequence[RefusedDocument]:
        body = encode_export(documents, self._clock())
        answer = await self._client.ask(LogStoreRequest("POST", PATH, body, _HEADERS, _UNDERSTOOD))
        if answer.status == _TOO_LARGE:
            return RefusedRequest("status 413: it is too large", is_too_large=True)
        if answer.status == _BAD_REQUEST:
            # The specification forbids to send the same again. Nothing of the request was taken.
            reason = f"status 400: {printable(refusal_message(answer.body))}"
            return [RefusedDocument(each, reason) for each in documents]
        try:
            verdict = judge_export(answer.body, len(documents))
        except MisunderstoodExportError as error:
            text = f"the answer is not one of OTLP: {printable(str(error))[:200]}"
            raise LogSinkError(text, "check [ship] otlp") from error
        reason = f"rejected: {printable(verdict.reason)}"
        if verdict.rejected == len(documents):
            return [RefusedDocument(each, reason) for each in documents]
        if verdict.rejected:
            self._on_rejected(verdict.rejected, reason)
        return ()
