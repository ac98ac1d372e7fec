"""Makes documents of lines: what a store of logs gets, under an identifier that makes a repeat harmless. Pure.

The identifier is made of the container, the fingerprint of the file and the offset. An inode does not identify a file
of a rotation: file systems give the number of a file that was removed to the next one that is created.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import NamedTuple

import msgspec

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.json_file import LogLine
from mesh.platform.logs.plain_lines import PlainLines

_encode = msgspec.json.Encoder().encode
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
    times = [line.time or read_at for line in lines]
    texts = [
        f"{time} {line.text}" if labels.timestamp and not (file is not None and line.time is not None) else line.text
        for line, time in zip(lines, times, strict=True)
    ]
    prefix = origin.container_id[:_ID_DIGITS]
    ids = [f"{prefix}-{line.start.generation}-{line.start.offset}" for line in lines]
    store = store_name(origin.service, labels.store)
    bodies = _bodies(times, texts, [line.stream for line in lines], _fixed_fields(origin, labels, file))
    return tuple([LogDocument(id, store, body) for id, body in zip(ids, bodies, strict=True)])


def make_plain_documents(lines: PlainLines, origin: LogOrigin, labels: LogLabels) -> tuple[LogDocument, ...]:
    """Make the documents of plain lines of a container's standard output: the same as `make_documents` does."""
    texts = lines.texts
    if labels.timestamp:
        texts = [f"{time} {text}" for time, text in zip(lines.times, texts, strict=True)]
    prefix = f"{origin.container_id[:_ID_DIGITS]}-{lines.generation}"
    ids = [f"{prefix}-{start}" for start in lines.starts]
    store = store_name(origin.service, labels.store)
    bodies = _bodies(lines.times, texts, lines.streams, _fixed_fields(origin, labels, None))
    return tuple(map(_new_document, zip(ids, repeat(store), bodies)))


_new_document = partial(tuple.__new__, LogDocument)
"""`LogDocument._make` without its Python code."""


def _fixed_fields(origin: LogOrigin, labels: LogLabels, file: str | None) -> dict[str, object]:
    """Return what is the same in all documents of a container, or of one of its files."""
    return {
        "service": origin.service,
        "container": origin.container,
        "container_id": origin.container_id,
        "image": origin.image,
        "worker": origin.worker,
        **({} if origin.release is None else {"release": origin.release}),
        **({} if file is None else {"file": file}),
        **({} if labels.ttl_days is None else {"ttl_days": labels.ttl_days}),
    }


def _bodies(
    times: Sequence[str], texts: Sequence[str], streams: Sequence[str], fixed: Mapping[str, object]
) -> list[bytes]:
    """Return a JSON object for each line; what is the same in all of them is encoded once."""
    tails = {stream: b"," + _encode({"stream": stream, **fixed})[1:] for stream in set(streams)}
    head, middle = b'{"@timestamp":', b',"message":'
    return [
        b"".join((head, time, middle, text, tails[stream]))
        for time, text, stream in zip(map(_encode, times), map(_encode, texts), streams, strict=True)
    ]


def store_name(service: str, store: str) -> str:
    """Return `<project>-<store>` in the characters that Elasticsearch allows in the name of an index."""
    project = service.partition("/")[0].lower()
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in project[:63]).lstrip("-_")
    return f"{kept or 'other'}-{store}"
