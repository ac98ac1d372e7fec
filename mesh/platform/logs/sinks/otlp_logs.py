"""Requests and answers of OTLP/HTTP for logs in their JSON encoding, as bytes. Pure.

https://opentelemetry.io/docs/specs/otlp/#otlphttp, and the semantic conventions for the attributes: service, container,
host, `log.iostream`, `log.record.uid`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks.document_fields import DocumentFields, take_apart

PATH = "/v1/logs"
_OF_RESOURCE = ("worker", "container", "container_id", "image", "release")
"""Fields that say what wrote a line: the same for all lines of a container."""
_STREAMS = ("stdout", "stderr")


class PartialSuccess(msgspec.Struct, frozen=True, rename="camel"):
    """`ExportLogsPartialSuccess`: a 64-bit number is a text in JSON, and a number is valid too."""

    rejected_log_records: int | str = 0
    error_message: str = ""


class ExportAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """`ExportLogsServiceResponse`."""

    partial_success: PartialSuccess | None = None


class StatusAnswer(msgspec.Struct, frozen=True):
    """`google.rpc.Status`, the body of a refusal."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class ExportVerdict:
    """What an answer with status 200 means."""

    rejected: int = 0
    """How many of the records were rejected for good. The protocol does not say which."""
    reason: str = ""
    """The store's words; a warning if nothing was rejected."""


class MisunderstoodExportError(ValueError):
    """The answer is not one of OTLP."""


def encode_export(documents: Sequence[LogDocument], read_at: int) -> bytes:
    """Return the body of a request. `read_at` is when the lines were collected, in nanoseconds since 1970."""
    resources: dict[tuple[str, ...], tuple[DocumentFields, str, list[object]]] = {}
    for each in documents:
        fields = take_apart(each, read_at)
        key = (each.store, fields.project, fields.service, *(fields.others.get(name, "") for name in _OF_RESOURCE))
        _, _, records = resources.setdefault(key, (fields, each.store, []))
        records.append(
            {
                "timeUnixNano": str(fields.time),
                "observedTimeUnixNano": str(read_at),
                "body": {"stringValue": fields.message},
                "attributes": _attributes(dict(_record_attributes(each.id, fields.others))),
            }
        )
    return msgspec.json.encode(
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": resource_attributes(fields, store)},
                    "scopeLogs": [{"scope": {"name": "vipmesh"}, "logRecords": records}],
                }
                for fields, store, records in resources.values()
            ]
        }
    )


def resource_attributes(fields: DocumentFields, store: str) -> list[object]:
    """Return the attributes of the container that wrote a line."""
    others = fields.others
    name, tag = split_image(others.get("image", ""))
    found = {
        "service.name": fields.service,
        "service.namespace": fields.project,
        "service.version": others.get("release", ""),
        "container.id": others.get("container_id", ""),
        "container.name": others.get("container", ""),
        "container.image.name": name,
        "host.name": others.get("worker", ""),
        "vipmesh.store": store,
    }
    tags = {"key": "container.image.tags", "value": {"arrayValue": {"values": [{"stringValue": tag}]}}}
    return [*_attributes(found), *([tags] if tag else [])]


def split_image(image: str) -> tuple[str, str]:
    """Split `registry:5000/web:1` into the name and the tag, which is empty if there is none."""
    whole, _, _ = image.partition("@")
    name, colon, tag = whole.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (whole, "")


def judge_export(body: bytes, count: int) -> ExportVerdict:
    """Say what an answer with status 200 means for a request of `count` records. Raises `MisunderstoodExportError`."""
    try:
        told = msgspec.json.decode(body, type=ExportAnswer).partial_success if body.strip() else None
        if told is None:
            return ExportVerdict()
        rejected = int(told.rejected_log_records)
    except (ValueError, RecursionError) as error:
        raise MisunderstoodExportError(str(error)) from error
    return ExportVerdict(min(max(rejected, 0), count), told.error_message)


def refusal_message(body: bytes) -> str:
    """Return the text of a refusal: of `google.rpc.Status`, else the body."""
    try:
        return msgspec.json.decode(body, type=StatusAnswer).message or body.decode(errors="replace")
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def _record_attributes(id: str, others: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "log.record.uid", id
    for name, value in others.items():
        if name == "stream" and value in _STREAMS:
            yield "log.iostream", value
        elif name == "file":
            yield "log.file.path", value
        elif name not in _OF_RESOURCE:
            yield f"vipmesh.{name}", value


def _attributes(values: Mapping[str, str]) -> list[object]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items() if value]
