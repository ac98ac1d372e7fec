"""A channel between workers without a network."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from mesh.api.channel.worker_channel import (
    DEADLINE,
    MAX_ANSWER_BYTES,
    ChannelDirectory,
    ChannelError,
    ChannelReply,
    WorkerChannel,
    find_address,
)
from mesh.model.codes import Code
from mesh.model.table import RealKey


@dataclass
class FakeDirectory(ChannelDirectory):
    """Says what it was told of the other workers."""

    places: dict[str, RealKey] = field(default_factory=dict)
    """Where each worker's admin API is."""
    silent: frozenset[str] = frozenset()
    """Workers that publish no address."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why no worker can be at an address."""

    @override
    def others(self) -> Collection[str]:
        return self.places.keys() | self.silent

    @override
    def admin_addresses(self) -> Mapping[str, RealKey]:
        return self.places

    @override
    def admin_refusal(self, address: str, /) -> str | None:
        return self.refused.get(address)


class FakeWorkerChannel(WorkerChannel):
    """Answers with what it was given, for the workers in its directory."""

    def __init__(self, directory: ChannelDirectory) -> None:
        self._directory = directory
        self.answers: dict[tuple[str, str], ChannelReply] = {}
        """The reply by worker and path. Any other path is refused with status 404."""
        self.hung: set[str] = set()
        """Workers that never answer."""
        self.failures: dict[tuple[str, str], ChannelError] = {}
        """What is raised, by worker and path."""
        self.asked: list[tuple[str, str]] = []
        """Worker and path of each request."""

    @override
    def others(self) -> Collection[str]:
        return self._directory.others()

    @override
    def address(self, worker: str) -> RealKey:
        return find_address(self._directory, worker)

    @override
    async def ask(
        self,
        worker: str,
        path: str,
        *,
        accept: str = "application/json",
        deadline: float = DEADLINE,
        most: int = MAX_ANSWER_BYTES,
    ) -> ChannelReply:
        self.address(worker)
        self.asked.append((worker, path))
        if worker in self.hung:
            raise ChannelError(Code.CHANNEL_NO_ANSWER, f"worker {worker}: no answer within {deadline:g} s")
        if (worker, path) in self.failures:
            raise self.failures[worker, path]
        found = self.answers.get((worker, path))
        if found is None:
            raise ChannelError(Code.CHANNEL_REFUSED, f"worker {worker}: it refuses the request with status 404", 404)
        if len(found.body) > most:
            raise ChannelError(Code.CHANNEL_NO_ANSWER, f"worker {worker}: its answer has more than {most} bytes")
        return found
