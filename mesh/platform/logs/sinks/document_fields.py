"""The fields of documents again, for stores that keep some of them apart from the line. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from mesh.platform.logs.documents import LogDocument
from mesh.sources.docker.inspection import start_time


class DocumentFields(NamedTuple):
    """A document, taken apart."""

    time: int
    """When the line was written, in nanoseconds since 1970."""
    message: str
    project: str
    """Empty for a container that is no instance of a service."""
    service: str
    others: Mapping[str, str]
    """All other fields, as text: `stream`, `worker`, `container`, `container_id`, `image`, `release`, `ttl_days`."""


def take_apart(document: LogDocument, read_at: int) -> DocumentFields:
    """Return the fields. `read_at` is the time of a document without one, in nanoseconds since 1970."""
    fields: dict[str, object] = msgspec.json.decode(document.body)
    time = start_time(str(fields.pop("@timestamp", ""))) or read_at
    message = str(fields.pop("message", ""))
    project, _, service = str(fields.pop("service", "")).rpartition("/")
    return DocumentFields(time, message, project, service, {key: str(value) for key, value in fields.items()})
