"""Requests and answers of Elasticsearch's bulk API, 7.x and 8.x, and of OpenSearch, as bytes. Pure.

https://www.elastic.co/guide/en/elasticsearch/reference/8.17/docs-bulk.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mesh.platform.logs.documents import LogDocument, PlainDocuments
from mesh.platform.logs.sinks import RefusedDocument

_CONFLICT = 409
"""`create` of an identifier that is there: the document is stored."""
_CREATED = b'"status":201'
_MAX_REASON = 500
"""Characters of the reason that are kept."""


class BulkItemResult(msgspec.Struct, frozen=True):
    """What became of one document."""

    status: int
    error: object = None
    """An object with `type` and `reason`, or a text."""


class BulkAnswer(msgspec.Struct, frozen=True):
    """The answer to a request."""

    items: list[Mapping[str, BulkItemResult]]
    """One for each document, in order, under the name of the operation."""


class BulkSummary(msgspec.Struct, frozen=True):
    """The part of an answer that says whether the items need be looked at."""

    errors: bool = True
    """Whether a document was not created, also because it is there."""


class MisunderstoodAnswerError(ValueError):
    """The answer is not one of the bulk API."""


@dataclass(frozen=True, slots=True)
class BulkVerdict:
    """What an answer means."""

    refused: tuple[RefusedDocument, ...]
    postponed: int = 0
    """How many documents the store has no room for now: 429 and 5xx."""
    reason: str = ""
    """Why the first of them is postponed."""


def encode_bulk(documents: Sequence[LogDocument], indices: Sequence[str]) -> bytes:
    """Return the body of a request that creates each document in its index."""
    parts: list[bytes] = []
    for (id, _, body), index in zip(documents, indices, strict=True):
        # The index and the identifier have only characters that JSON does not escape.
        parts += (f'{{"create":{{"_index":"{index}","_id":"{id}"}}}}\n'.encode(), body, b"\n")
    return b"".join(parts)


def encode_plain_bulk(documents: PlainDocuments, index: str) -> bytes:
    """Return the same for documents that all belong into one index, without making each of them."""
    head = f'{{"create":{{"_index":"{index}","_id":"{documents.prefix}-'
    parts: list[bytes] = []
    for start, time, message, rest in zip(*documents.columns, strict=True):
        parts += (f'{head}{start}"}}}}\n{{"@timestamp":"{time}","message":'.encode(), message, rest, b"\n")
    return b"".join(parts)


def judge_bulk(documents: Sequence[LogDocument], body: bytes) -> BulkVerdict:
    """Say what became of the documents. Raises `MisunderstoodAnswerError`."""
    if _are_all_created(len(documents), body):
        return BulkVerdict(())
    try:
        answer = msgspec.json.decode(body, type=BulkAnswer)
    except (ValueError, RecursionError) as error:
        raise MisunderstoodAnswerError(str(error)) from error
    if len(answer.items) != len(documents):
        raise MisunderstoodAnswerError(f"it has {len(answer.items)} items for {len(documents)} documents")
    refused, postponed, reason = [], 0, ""
    for document, item in zip(documents, answer.items, strict=True):
        result = item.get("create")
        if result is None:
            raise MisunderstoodAnswerError("an item has no result of `create`")
        if result.status < 300 or result.status == _CONFLICT:
            continue
        if result.status == 429 or result.status >= 500:
            postponed += 1
            reason = reason or _in_words(result)
        else:
            refused.append(RefusedDocument(document, _in_words(result)))
    return BulkVerdict(tuple(refused), postponed, reason)


def _are_all_created(count: int, body: bytes) -> bool:
    """Return whether the answer says that nothing failed, and that it created so many documents."""
    # Within a text of JSON the quotes would have backslashes.
    if body.count(_CREATED) != count:
        return False
    try:
        return not msgspec.json.decode(body, type=BulkSummary).errors
    except (ValueError, RecursionError):
        return False


def _in_words(result: BulkItemResult) -> str:
    error = result.error
    if isinstance(error, dict):
        error = f"{error.get('type', 'error')}: {error.get('reason', '')}"
    text = f"status {result.status}: {error}"[:_MAX_REASON]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
