"""Elasticsearch and OpenSearch as a store of logs, by the bulk API.

Documents are created under their identifiers, so what is sent again after a lost answer is not stored twice.
"""

from collections.abc import Sequence

from typing_extensions import override

from mesh.config.settings import LogLifecycle
from mesh.platform.logs.documents import LogDocument, PlainDocuments
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument
from mesh.platform.logs.sinks.bulk import MisunderstoodAnswerError, encode_bulk, encode_plain_bulk, judge_bulk
from mesh.platform.logs.sinks.halves import RefusedRequest, deliver_by_halves
from mesh.platform.logs.sinks.http_client import LogStoreAccess, LogStoreClient, LogStoreRequest
from mesh.platform.logs.sinks.lifecycle_setup import LifecycleSetup

_TOO_LARGE = 413
_UNDERSTOOD = frozenset({200, _TOO_LARGE})
_HEADERS = {"Content-Type": "application/x-ndjson"}


class ElasticsearchSink(LogSink):
    """Sends documents to the first endpoint that takes them."""

    def __init__(self, access: LogStoreAccess, index: str, lifecycle: LogLifecycle = LogLifecycle.OFF) -> None:
        """`index` is what the name of each index begins with. Raises `OSError` as TLS does."""
        self._client = LogStoreClient(access)
        self._index = index
        self._setup = None if lifecycle is LogLifecycle.OFF else LifecycleSetup(self._client, index, lifecycle)

    @override
    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        if not documents:
            return ()
        return await deliver_by_halves(documents, self._bulk)

    @override
    async def close(self) -> None:
        await self._client.close()

    async def _bulk(self, documents: Sequence[LogDocument]) -> RefusedRequest | Sequence[RefusedDocument]:
        body = await self._encode(documents)
        answer = await self._client.ask(LogStoreRequest("POST", "/_bulk", body, _HEADERS, _UNDERSTOOD))
        if answer.status == _TOO_LARGE:
            return RefusedRequest("status 413: the document is too large", is_too_large=True)
        try:
            verdict = judge_bulk(documents, answer.body)
        except MisunderstoodAnswerError as error:
            text = f"the answer is not one of Elasticsearch: {str(error)[:200]}"
            raise LogSinkError(text, "check [ship] elasticsearch") from error
        if verdict.postponed:
            text = f"{verdict.postponed} of {len(documents)} documents are postponed, {verdict.reason}"
            raise LogSinkError(text, "look at the health of the cluster")
        return verdict.refused

    async def _encode(self, documents: Sequence[LogDocument]) -> bytes:
        if self._setup is not None:
            return encode_bulk(documents, await self._setup.place(documents))
        if isinstance(documents, PlainDocuments):
            return encode_plain_bulk(documents, f"{self._index}-{documents.store}")
        return encode_bulk(documents, [f"{self._index}-{each.store}" for each in documents])
