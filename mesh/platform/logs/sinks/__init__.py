"""Stores of logs. `LogSink` is what the shipper asks of one."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.logs.documents import LogDocument


class LogSinkError(MeshError):
    """The store did not take the documents, or did not say so. They are delivered again later, all of them."""

    def __init__(
        self, reason: str, remedy: str, *, pause: float = 0.0, code: Code = Code.LOG_STORE_UNREACHABLE
    ) -> None:
        """`pause`: seconds that the store asks for before the next delivery."""
        super().__init__(code, f"{reason}; {remedy}")
        self.pause = pause


class RefusedDocument(NamedTuple):
    """A document that the store will never take."""

    document: LogDocument
    reason: str


class LogSink(Protocol):
    """A store of logs."""

    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        """Store documents, in their order, and return those that are refused for good; all others are stored durably.

        A document whose identifier the store has already is stored. Raises `LogSinkError` if it is not known whether
        all are stored: any part of them may be. The same documents must then be delivered again.
        """

    async def close(self) -> None:
        """Give up connections and files."""
