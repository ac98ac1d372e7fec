"""Requests of Loki's push API as bytes, and what its answers mean. Pure.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs

Labels are few and bounded, since each set of them is a stream of its own. The container is one of them: Loki refuses
lines that are an hour older than the newest of their stream, and after an outage the containers of one service catch up
at different speeds. Everything else is structured metadata of the line, which Loki has since 2.9.
"""

import re
from collections.abc import Sequence

import msgspec

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks.document_fields import DocumentFields, take_apart

PATH = "/loki/api/v1/push"
TENANT_HEADER = "X-Scope-OrgID"
_LABELS = ("worker", "stream")
"""Fields that are labels, beside project, service, store and container."""
_SWARM_TASK = re.compile(r"(.+)\.[a-z0-9]{25}", re.ASCII)
"""The name of a container of Swarm: `shop_web.1.<ID of the task>`. The ID is another one after each update."""
_SWITCHED_OFF = b"includes structured metadata, but this feature is disallowed"


def encode_push(documents: Sequence[LogDocument], read_at: int) -> bytes:
    """Return the body of a push of the documents; the lines of a stream keep their order.

    `read_at` is the time of documents without one, in nanoseconds since 1970.
    """
    streams: dict[tuple[tuple[str, str], ...], list[list[object]]] = {}
    for each in documents:
        fields = take_apart(each, read_at)
        labels = stream_labels(fields, each.store)
        told = set(labels)
        others = {key: value for key, value in fields.others.items() if value and (key, value) not in told}
        line: list[object] = [str(fields.time), fields.message, {**others, "id": each.id}]
        streams.setdefault(labels, []).append(line)
    return msgspec.json.encode(
        {"streams": [{"stream": dict(labels), "values": values} for labels, values in streams.items()]}
    )


def stream_labels(fields: DocumentFields, store: str) -> tuple[tuple[str, str], ...]:
    """Return the labels of the stream of a line."""
    container = fields.others.get("container", "")
    task = _SWARM_TASK.fullmatch(container)
    labels = {
        "project": fields.project,
        "service": fields.service,
        "store": store,
        "container": task[1] if task else container,
        **{name: fields.others.get(name, "") for name in _LABELS},
    }
    return tuple((name, value) for name, value in labels.items() if value)


def has_no_structured_metadata(answer: bytes) -> bool:
    """Return whether Loki refuses all lines because structured metadata is switched off."""
    return _SWITCHED_OFF in answer
