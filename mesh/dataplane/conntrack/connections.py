"""Makes connections begin again that were decided before the state that the worker has now."""

from collections.abc import AsyncIterator, Collection, Container
from contextlib import asynccontextmanager

from mesh.dataplane import DataPlaneError
from mesh.dataplane.conntrack.socket import NetfilterSocket
from mesh.dataplane.conntrack.stale import is_bypassing, is_stray
from mesh.model.service import Transport
from mesh.model.table import Table, VirtualKey


class TrackedConnections:
    """Deletes tracked connections of one IP version. It opens its socket on first use, and another one after an error.

    All methods raise `DataPlaneError`.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self._socket: NetfilterSocket | None = None

    async def forget_bypassing(self, keys: Collection[VirtualKey]) -> int:
        """Delete connections that began before these virtual servers existed; returns their number."""
        async with self._asking() as netfilter:
            stale = [entry for entry in await netfilter.entries(keys) if is_bypassing(entry)]
            await netfilter.forget(stale)
        return len(stale)

    async def forget_unanswered(self, ours: Container[VirtualKey]) -> int:
        """Delete connections to these virtual servers that have seen no reply; returns their number."""
        async with self._asking() as netfilter:
            stale = await netfilter.unanswered(ours)
            await netfilter.forget(stale)
        return len(stale)

    async def forget_stray_datagrams(self, ours: Container[VirtualKey], table: Table) -> int:
        """Delete UDP flows that go elsewhere than this table says; returns their number.

        `ours` contains the keys of virtual servers that are not in the table any more, too.
        """
        servers = table.virtual_servers
        async with self._asking() as netfilter:
            stale = [
                entry
                for entry in await netfilter.of_transport(Transport.UDP, ours)
                if is_stray(entry, servers[entry.virtual].real_servers if entry.virtual in servers else ())
            ]
            await netfilter.forget(stale)
        return len(stale)

    async def forget_translated_datagrams(self, ours: Container[VirtualKey]) -> int:
        """Delete UDP flows to these virtual servers that netfilter leads to a real server; returns their number."""
        async with self._asking() as netfilter:
            stale = [entry for entry in await netfilter.of_transport(Transport.UDP, ours) if entry.translated]
            await netfilter.forget(stale)
        return len(stale)

    async def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            netfilter, self._socket = self._socket, None
            await netfilter.close()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[NetfilterSocket]:
        """Yield the open socket; close it after an error."""
        if self._socket is None:
            self._socket = NetfilterSocket(self._version)
        try:
            yield self._socket
        except DataPlaneError:
            await self.close()
            raise
