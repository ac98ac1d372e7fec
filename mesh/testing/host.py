"""A worker's network whose addresses a test sets."""

import asyncio
from collections.abc import AsyncIterator

from typing_extensions import override

from mesh.control.ports import HostNetwork
from mesh.model.service import Address


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
