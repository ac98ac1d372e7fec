"""Files of JSON lines as a store of logs: `DIRECTORY/<store>.jsonl`, one document on each line, with its identifier.

A crash between a write and the saved position repeats the last documents. They are found by their identifiers at the
end of the file, and not written again.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from typing_extensions import override

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument

REMEMBERED = 8 << 20
"""Bytes at the end of a file whose identifiers are known: more than one batch of documents."""


class StoredIdentifier(msgspec.Struct, frozen=True):
    """The identifier of a document in the file."""

    id: str


class JsonLinesSink(LogSink):
    """Appends documents to files. Another program may rename them for rotation."""

    def __init__(self, directory: Path) -> None:
        """The directory is made if it is missing. Raises `OSError`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._last: dict[str, frozenset[str]] = {}
        """The identifiers of the batch before, or of the end of the file, by store."""

    @override
    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        by_store: dict[str, list[LogDocument]] = {}
        for document in documents:
            by_store.setdefault(document.store, []).append(document)
        try:
            for store, some in by_store.items():
                await asyncio.to_thread(self._append, store, some)
        except OSError as error:
            raise LogSinkError(
                f"{self._directory} cannot be written: {error}", "make room, or set [ship] directory"
            ) from error
        return ()

    @override
    async def close(self) -> None:
        """Nothing is open between two batches."""

    def _append(self, store: str, documents: Sequence[LogDocument]) -> None:
        path = self._directory / f"{store}.jsonl"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            known = self._last.get(store)
            if known is None:
                known = _stored_at_end(descriptor)
            size = os.fstat(descriptor).st_size
            fresh = [each for each in documents if each.id not in known]
            data = memoryview(b"".join(b'{"id":"%s",%s\n' % (each.id.encode(), each.body[1:]) for each in fresh))
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # no half of a line stays
                raise
        self._last[store] = frozenset(each.id for each in documents)


def _stored_at_end(descriptor: int) -> frozenset[str]:
    """Return the identifiers at the end of a file, and cut a last line that a crash left incomplete."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - REMEMBERED)
    data = os.pread(descriptor, REMEMBERED, start)
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.ftruncate(descriptor, start + whole)
    found = set()
    for line in data[:whole].split(b"\n")[1 if start else 0 :]:
        try:
            found.add(msgspec.json.decode(line, type=StoredIdentifier).id)
        except ValueError:
            continue
    return frozenset(found)
