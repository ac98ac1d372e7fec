"""Keeps the documents that a store refused for good, each with the reason, in a file of bounded size."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mesh.platform.logs.sinks import RefusedDocument

MAX_BYTES = 16 << 20
"""Bytes of the file; then it becomes the generation before it, `refused.jsonl.1`."""


class RefusedDocumentFile:
    """Appends refused documents to a file of JSON lines."""

    def __init__(self, path: Path, limit: int = MAX_BYTES) -> None:
        """`limit` is in bytes."""
        self._path = path
        self._limit = limit

    def append(self, refused: Iterable[RefusedDocument]) -> None:
        """Write them, and have them on the disk on return. Raises `OSError`."""
        data = b"".join(
            msgspec.json.encode(
                {
                    "id": each.document.id,
                    "store": each.document.store,
                    "reason": each.reason,
                    "document": msgspec.Raw(each.document.body),
                }
            )
            + b"\n"
            for each in refused
        )
        if not data:
            return
        if self._path.exists() and self._path.stat().st_size + len(data) > self._limit:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
