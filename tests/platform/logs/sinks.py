"""What every store of logs does, whichever it is."""

from abc import ABC, abstractmethod

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.documents import LogDocument, LogOrigin, make_documents
from mesh.platform.logs.json_file import LogLine, LogPosition
from mesh.platform.logs.sinks import LogSink

ORIGIN = LogOrigin("f" * 64, "shop-db-1", "shop/db", "w1", "mysql")


def documents(*texts: str, first: int = 0, store: str = "db") -> tuple[LogDocument, ...]:
    lines = [
        LogLine(LogPosition("0123456789abcdef", first + n), text, "stdout", "2026-11-30T11:59:16.358097495Z")
        for n, text in enumerate(texts)
    ]
    return make_documents(lines, ORIGIN, LogLabels(store), "2026-11-30T12:00:00Z")


class StoredLogs(ABC):
    """A store under test, and what it has."""

    def __init__(self, sink: LogSink) -> None:
        self.sink = sink

    @abstractmethod
    async def messages(self, store: str) -> list[str]:
        """Return the messages of `<project>-<store>`, in order."""

    @abstractmethod
    async def fail_once(self) -> None:
        """Make the next delivery fail after part of it is stored, as far as the store can."""
