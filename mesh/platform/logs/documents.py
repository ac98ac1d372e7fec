"""Makes documents of lines: what a store of logs gets, under an identifier that makes a repeat harmless. Pure.

The identifier is made of the container, the fingerprint of the file and the offset. An inode does not identify a file
of a rotation: file systems give the number of a file that was removed to the next one that is created.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.json_file import LogLine

_ID_DIGITS = 16
"""Digits of the container's ID in an identifier."""


@dataclass(frozen=True, slots=True)
class LogOrigin:
    """The container that a line is from, in words of the mesh."""

    container_id: str
    container: str
    """Its name."""
    service: str
    """`project/service`; the container's name if it is no instance of a service."""
    worker: str
    image: str = ""
    release: str | None = None


class LogDocument(NamedTuple):
    """One document for a store of logs."""

    id: str
    store: str
    """`<project>-<store>`: characters that may be in the name of an index and of a file, lower case."""
    body: bytes
    """A JSON object on one line, without line feed."""


def make_documents(
    lines: Sequence[LogLine], origin: LogOrigin, labels: LogLabels, read_at: str, *, file: str | None = None
) -> tuple[LogDocument, ...]:
    """Make the documents of lines. `read_at`, as RFC 3339 has it, is the time of lines that have none of their own.

    `file` is the path inside of the container of lines that are of a file: such a line begins with its own time if it
    has one, which is not put before it again.
    """
    store = store_name(origin.service, labels.store)
    fixed: dict[str, object] = {
        "service": origin.service,
        "container": origin.container,
        "container_id": origin.container_id,
        "image": origin.image,
        "worker": origin.worker,
        **({} if origin.release is None else {"release": origin.release}),
        **({} if file is None else {"file": file}),
        **({} if labels.ttl_days is None else {"ttl_days": labels.ttl_days}),
    }
    prefix = origin.container_id[:_ID_DIGITS]
    documents = []
    for line in lines:
        time = line.time or read_at
        has_own = file is not None and line.time is not None
        text = f"{time} {line.text}" if labels.timestamp and not has_own else line.text
        body = msgspec.json.encode({"@timestamp": time, "message": text, "stream": line.stream, **fixed})
        documents.append(LogDocument(f"{prefix}-{line.start.generation}-{line.start.offset}", store, body))
    return tuple(documents)


def store_name(service: str, store: str) -> str:
    """Return `<project>-<store>` in the characters that Elasticsearch allows in the name of an index."""
    project = service.partition("/")[0].lower()
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in project[:63]).lstrip("-_")
    return f"{kept or 'other'}-{store}"
