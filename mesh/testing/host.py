"""A worker's network whose addresses, facts and connections a test sets."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence

from typing_extensions import override

from mesh.control.arrival_watcher import FlowSource
from mesh.control.connection_holds import ConnectionHolder
from mesh.control.ports import HostFactSource, HostNetwork
from mesh.dataplane import DataPlaneError
from mesh.dataplane.client_flows import ClientFlow
from mesh.host import HostError
from mesh.host.facts import HostFacts
from mesh.model.service import Address
from mesh.model.table import VirtualKey


class FakeHost(HostNetwork):
    """Implements `HostNetwork`: it has the address 192.0.2.1 until `has` sets other ones."""

    def __init__(self) -> None:
        self._changes: asyncio.Queue[frozenset[Address]] = asyncio.Queue()
        self._addresses = frozenset(["192.0.2.1"])

    def has(self, *addresses: Address) -> None:
        """Set the worker's addresses, and notify the watcher, also if they are the same as before."""
        self._addresses = frozenset(addresses)
        self._changes.put_nowait(self._addresses)

    @override
    async def all_addresses(self) -> frozenset[Address]:
        return self._addresses

    @override
    async def watch(self) -> AsyncIterator[frozenset[Address]]:
        yield self._addresses
        while True:
            yield await self._changes.get()


class FakeHostFacts(HostFactSource):
    """Implements `HostFactSource`: the facts are what `are` set last, or the error that `fail` set."""

    def __init__(self, facts: HostFacts | None = None) -> None:
        self._facts = facts or HostFacts()
        self._error: HostError | None = None
        self._changed = asyncio.Event()

    def are(self, facts: HostFacts) -> None:
        """Set the facts, and notify the watcher."""
        self._facts, self._error = facts, None
        self._changed.set()

    def fail(self, error: HostError) -> None:
        """Let the next readings fail, and notify the watcher."""
        self._error = error
        self._changed.set()

    @override
    async def changes(self) -> AsyncGenerator[None, None]:
        while True:
            self._changed.clear()
            yield
            await self._changed.wait()

    @override
    async def read(self) -> HostFacts:
        if self._error is not None:
            raise self._error
        return self._facts


class FakeFlows(FlowSource):
    """Implements `FlowSource`: the connections are those of `seen`."""

    def __init__(self) -> None:
        self.seen: Sequence[ClientFlow] = ()
        """All connections of clients."""
        self.error: DataPlaneError | None = None
        """Why nothing can be read; None if it can."""

    @override
    async def unassured(self, keys: Collection[VirtualKey]) -> Sequence[ClientFlow]:
        if self.error is not None:
            raise self.error
        return [flow for flow in self.seen if flow.key.virtual in keys]

    @override
    async def all_to(self, keys: Collection[VirtualKey]) -> Sequence[ClientFlow]:
        return [flow for flow in self.seen if flow.key.virtual in keys]


class FakeConnectionHolder(ConnectionHolder):
    """Implements `ConnectionHolder`: remembers what is held, or refuses with the error that a test sets."""

    def __init__(self) -> None:
        self.held: Mapping[VirtualKey, int] = {}
        """Seconds by virtual server, as told last."""
        self.error: HostError | None = None

    @override
    async def keep(self, held: Mapping[VirtualKey, int]) -> None:
        if self.error is not None:
            raise self.error
        self.held = dict(held)
