"""How a worker asks another one: the Protocol, its replies and its errors."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.table import RealKey

DEADLINE = 3.0
"""Seconds that a worker has for an answer, the connection included."""
MAX_ANSWER_BYTES = 64 << 20
"""The most bytes of an answer: a status of some ten thousand services."""


class ChannelError(MeshError):
    """Another worker cannot be asked, or its answer cannot be used. The text ends with the remedy."""

    def __init__(self, code: Code, message: str, status: int | None = None) -> None:
        """`status` is the HTTP status of an answer that is an error; None if there is no answer."""
        super().__init__(code, message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ChannelReply:
    """The answer of another worker."""

    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Its headers, by name in lower case."""


class ChannelDirectory(Protocol):
    """The addresses that the other workers published in the store. They are not trusted: the certificate decides."""

    def others(self) -> Collection[str]:
        """Return the names of the other workers of the cluster."""
        ...

    def admin_addresses(self) -> Mapping[str, RealKey]:
        """Return where each other worker says that its admin API is, by name."""
        ...

    def admin_refusal(self, address: str, /) -> str | None:
        """Return why no other worker's admin API can be at this address; None if it can."""
        ...


class WorkerChannel(Protocol):
    """Asks other workers. It may only read there: its certificate is this worker's."""

    def others(self) -> Collection[str]:
        """Return the names of the other workers of the cluster."""
        ...

    def address(self, worker: str) -> RealKey:
        """Return where the admin API of another worker is. Raises `ChannelError` if that is not known."""
        ...

    async def ask(
        self,
        worker: str,
        path: str,
        *,
        accept: str = "application/json",
        deadline: float = DEADLINE,
        most: int = MAX_ANSWER_BYTES,
    ) -> ChannelReply:
        """Return the answer to a GET of a path with its query, in the content type of `accept`.

        `deadline` is in seconds, `most` in bytes. Raises `ChannelError` after the deadline at the latest, also if the
        status is not 200.
        """
        ...


def find_address(directory: ChannelDirectory, worker: str) -> RealKey:
    """Return where a worker's admin API is. Raises `ChannelError`."""
    found = directory.admin_addresses().get(worker)
    if found is None:
        if worker not in directory.others():
            known = ", ".join(sorted(directory.others())[:10]) or "none"
            raise ChannelError(
                Code.CHANNEL_NO_ADDRESS, f"worker {worker}: there is no other worker of that name; there are: {known}"
            )
        raise ChannelError(
            Code.CHANNEL_NO_ADDRESS,
            f"worker {worker}: it does not publish where its admin API is; check that it runs and is connected "
            "(`vipmesh workers`), set [admin] tcp, cert and client_ca there, or update it",
        )
    refusal = directory.admin_refusal(found.address)
    if refusal is not None:
        raise ChannelError(
            Code.CHANNEL_NO_ADDRESS,
            f"worker {worker}: its admin API is not asked: {refusal}; set [admin] tcp or advertise there to an address "
            "that others reach",
        )
    return found
