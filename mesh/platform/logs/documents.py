"""Makes documents of lines: what a store of logs gets, under an identifier that makes a repeat harmless. Pure.

The identifier is made of the container, the fingerprint of the file and the offset. An inode does not identify a file
of a rotation: file systems give the number of a file that was removed to the next one that is created.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import msgspec
from typing_extensions import override

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


class DocumentColumns(NamedTuple):
    """What differs in the documents of one container, column by column, all of one length."""

    starts: Sequence[int]
    """Offsets of the lines, the ends of the identifiers."""
    times: Sequence[str]
    """Without characters that JSON escapes."""
    messages: Sequence[bytes]
    """As JSON."""
    rests: Sequence[bytes]
    """What follows the message in the body, its comma included."""


class PlainDocuments(Sequence[LogDocument]):
    """Documents of one container. Each is made when it is asked for: a store that takes columns needs none of them."""

    def __init__(self, store: str, prefix: str, columns: DocumentColumns) -> None:
        """`prefix` is what all identifiers begin with, and a hyphen follows it."""
        self.store = store
        self.prefix = prefix
        self.columns = columns

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        _, times, messages, rests = self.columns
        return (
            sum(map(len, times))
            + sum(map(len, messages))
            + sum(map(len, rests))
            + len(times) * len(_body("", b"", b""))
        )

    @override
    def __len__(self) -> int:
        return len(self.columns.starts)

    @overload
    def __getitem__(self, index: int) -> LogDocument: ...
    @overload
    def __getitem__(self, index: slice) -> "PlainDocuments": ...
    @override
    def __getitem__(self, index: int | slice) -> "LogDocument | PlainDocuments":
        starts, times, messages, rests = self.columns
        if isinstance(index, slice):
            columns = DocumentColumns(starts[index], times[index], messages[index], rests[index])
            return PlainDocuments(self.store, self.prefix, columns)
        body = _body(times[index], messages[index], rests[index])
        return LogDocument(f"{self.prefix}-{starts[index]}", self.store, body)


def size_of(documents: Sequence[LogDocument]) -> int:
    """Return the bytes of the bodies of documents."""
    if isinstance(documents, PlainDocuments):
        return documents.size
    return sum([len(each.body) for each in documents])


def _body(time: str, message: bytes, rest: bytes) -> bytes:
    return b'{"@timestamp":"%b","message":%b%b' % (time.encode(), message, rest)


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
    rests = _rests([line.stream for line in lines], _fixed_fields(origin, labels, file))
    return tuple(
        LogDocument(id, store, _body(time, _encode(text), rests[line.stream]))
        for id, time, text, line in zip(ids, times, texts, lines, strict=True)
    )


def make_plain_documents(lines: PlainLines, origin: LogOrigin, labels: LogLabels) -> PlainDocuments:
    """Make the documents of plain lines of a container's standard output: the same as `make_documents` does."""
    texts = lines.texts
    if labels.timestamp:
        texts = [f"{time} {text}" for time, text in zip(lines.times, texts, strict=True)]
    rests = _rests(lines.streams, _fixed_fields(origin, labels, None))
    return PlainDocuments(
        store_name(origin.service, labels.store),
        f"{origin.container_id[:_ID_DIGITS]}-{lines.generation}",
        DocumentColumns(lines.starts, lines.times, list(map(_encode, texts)), [rests[each] for each in lines.streams]),
    )


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


def _rests(streams: Sequence[str], fixed: Mapping[str, object]) -> dict[str, bytes]:
    """Return what follows the message in the documents of each stream: it is the same in all of them."""
    return {stream: b"," + _encode({"stream": stream, **fixed})[1:] for stream in set(streams)}


def store_name(service: str, store: str) -> str:
    """Return `<project>-<store>` in the characters that Elasticsearch allows in the name of an index."""
    project = service.partition("/")[0].lower()
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in project[:63]).lstrip("-_")
    return f"{kept or 'other'}-{store}"
