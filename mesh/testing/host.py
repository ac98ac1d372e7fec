"""A worker's network that is as it is told to be."""

import asyncio
from collections.abc import AsyncIterator

from typing_extensions import override

from mesh.control.ports import HostNetwork
from mesh.model.service import Address


class FakeHost(HostNetwork):
    """Begins with 192.0.2.1; `has` changes it and gives word, also when it is told the same again."""

    def __init__(self) -> None:
        self._changes: asyncio.Queue[frozenset[Address]] = asyncio.Queue()
        self._addresses = frozenset(["192.0.2.1"])

    def has(self, *addresses: Address) -> None:
        """These are the worker's addresses now."""
        self._addresses = frozenset(addresses)
        self._changes.put_nowait(self._addresses)

    @override
    async def watch(self) -> AsyncIterator[frozenset[Address]]:
        yield self._addresses
        while True:
            yield await self._changes.get()
