"""A store of logs in memory, for tests: it keeps identifiers apart, refuses documents, and fails when it is told to."""

from collections.abc import Sequence

from typing_extensions import override

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument


class MemoryLogSink(LogSink):
    """Keeps documents in the order in which they were stored."""

    def __init__(self) -> None:
        self.stored: dict[str, LogDocument] = {}
        """By identifier, in order."""
        self.failures = 0
        """So many of the next deliveries fail after half of their documents are stored."""
        self.refuses = b""
        """Documents with this in their body are refused; empty: none."""

    @override
    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        if self.failures:
            self.failures -= 1
            self._store(documents[: len(documents) // 2])
            raise LogSinkError("it was told to fail", "deliver again")
        return self._store(documents)

    @override
    async def close(self) -> None:
        """Nothing is open."""

    def _store(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        refused = [each for each in documents if self.refuses and self.refuses in each.body]
        for each in documents:
            if each not in refused:
                self.stored.setdefault(each.id, each)
        return [RefusedDocument(each, "status 400: it was told to refuse it") for each in refused]
