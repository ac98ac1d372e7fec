"""Targets for logs: what the engine's driver has written, and what stores of logs answer."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mesh.config.labels.logs import LogLabels
from mesh.config.settings import LogLifecycle
from mesh.platform.logs.documents import LogDocument, LogOrigin, make_documents, make_plain_documents
from mesh.platform.logs.json_file import MAX_TEXT, AssembledLines, LogPosition, StoredLine, assemble_lines
from mesh.platform.logs.plain_lines import LogBlock, read_plain_lines
from mesh.platform.logs.sinks.bulk import MisunderstoodAnswerError, encode_bulk, judge_bulk
from mesh.platform.logs.sinks.http_client import LONGEST_PAUSE, LogStoreAnswer, parse_pause, printable
from mesh.platform.logs.sinks.log_lifecycle import place_of, store_objects
from mesh.platform.logs.sinks.loki_push import encode_push, has_no_structured_metadata
from mesh.platform.logs.sinks.otlp_logs import MisunderstoodExportError, encode_export, judge_export, refusal_message
from mesh.platform.logs.tail import lines_of
from tests.fuzz.choices import ByteChoices

_NOW = 1_796_040_000_000_000_000
_ORIGIN = LogOrigin("f" * 64, "shop-web-1", "shop/web", "w1", "web:1", "v2")
_ENTRY = {"log": "a line\n", "stream": "stdout", "time": "2026-11-30T11:59:16.358097495Z"}
_ANSWERS: tuple[Any, ...] = (
    {"took": 1, "errors": True, "items": [{"create": {"status": 201}}, {"create": {"status": 429, "error": {}}}]},
    {"items": [{"create": {"status": 400, "error": {"type": "t", "reason": "r"}}}, {"create": {"status": 409}}]},
    {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "why"}},
    {"code": 3, "message": "bad", "details": []},
)
_PAUSES = ("7", "Tue, 01 Dec 2026 12:00:30 GMT", "-1", "")


def check_log_files(data: bytes) -> None:
    """Any bytes of a log are documents that lie before the position, and each sink can encode them."""
    choices = ByteChoices(data)
    stored: list[StoredLine] = []
    offset = 0
    for _ in range(1 + choices.number(6)):
        line = (choices.encoded(_ENTRY) if choices.flag() else choices.text().encode("utf-8", "replace")) + b"\n"
        stored.append(_stored(line, offset))
        offset += len(line)
    rest = choices.rest()
    for line in rest.split(b"\n"):
        stored.append(_stored(line + b"\n", offset))
        offset += len(line) + 1
    _check_plain(rest)
    _check_plain(b"".join(line.data + b"\n" for line in stored))
    for final in (False, True):
        found = assemble_lines(stored, final=final)
        _check_assembled(found, stored)
        _check_encoded(make_documents(found.lines, _ORIGIN, LogLabels("app", 7), "2026-11-30T12:00:00Z"))


def _check_plain(data: bytes) -> None:
    """A block that is read at once has the documents that it has line by line."""
    block = LogBlock("0" * 16, 0, data)
    plain = read_plain_lines(block)
    if plain is None:
        return
    found = assemble_lines(lines_of([block]), final=False)
    assert (found.end, found.unreadable) == (LogPosition("0" * 16, plain.end), 0)
    documents = make_plain_documents(plain, _ORIGIN, LogLabels("app", 7))
    assert tuple(documents) == make_documents(found.lines, _ORIGIN, LogLabels("app", 7), "")


def check_log_store_answers(data: bytes) -> None:
    """An answer of a store is a verdict or a misunderstanding, and what is shown of it is on one line."""
    choices = ByteChoices(data)
    body = choices.encoded(choices.pick(_ANSWERS)) if choices.flag() else choices.rest()
    documents = (LogDocument("a", "shop-app", b"{}"), LogDocument("b", "shop-app", b"{}"))
    shown = [LogStoreAnswer(400, body).text(), printable(refusal_message(body))]
    with suppress(MisunderstoodAnswerError):
        verdict = judge_bulk(documents, body)
        shown += [verdict.reason, *(each.reason for each in verdict.refused)]
        assert len(verdict.refused) + verdict.postponed <= len(documents)
    with suppress(MisunderstoodExportError):
        exported = judge_export(body, len(documents))
        assert 0 <= exported.rejected <= len(documents)
        shown.append(printable(exported.reason))
    has_no_structured_metadata(body)
    for text in shown:
        # A character that cannot be shown is written in up to ten.
        assert text.isprintable(), ascii(text[:300])
        assert len(text) <= 5000, ascii(text[:300])
    pause = choices.text() if choices.flag() else choices.pick(_PAUSES)
    assert 0.0 <= parse_pause(pause, datetime(2026, 12, 1, 12, tzinfo=UTC)) <= LONGEST_PAUSE


def _stored(line: bytes, offset: int) -> StoredLine:
    position = LogPosition("0" * 16, offset)
    return StoredLine(position, LogPosition("0" * 16, offset + len(line)), line.rstrip(b"\n"))


def _check_assembled(found: AssembledLines, stored: list[StoredLine]) -> None:
    ends = [each.end for each in stored]
    assert found.end is None or found.end in ends
    starts = [each.start for each in found.lines]
    assert starts == sorted(set(starts)), "in order, each once"
    assert all(found.end is not None and each < found.end for each in starts)
    assert all(len(each.text) <= MAX_TEXT or "\n" not in each.text for each in found.lines)


def _check_encoded(documents: tuple[LogDocument, ...]) -> None:
    if not documents:
        return
    assert not any(b"\n" in each.body for each in documents), "a document is on one line"
    places = [place_of(each, "vipmesh", _NOW) for each in documents]
    assert encode_bulk(documents, [each.index for each in places]).count(b"\n") == 2 * len(documents)
    list(store_objects(LogLifecycle.ILM, "vipmesh", places[0].ttl_days))
    pushed = json.loads(encode_push(documents, _NOW))
    assert sum(len(each["values"]) for each in pushed["streams"]) == len(documents)
    exported = json.loads(encode_export(documents, _NOW))["resourceLogs"]
    assert sum(len(each["scopeLogs"][0]["logRecords"]) for each in exported) == len(documents)
