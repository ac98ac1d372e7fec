"""The table that counts, in the kernel: its frame by nft, its elements by netlink.

It has a socket of its own, so that nothing else waits while many elements are read.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from mesh.dataplane import DataPlaneError
from mesh.dataplane.conntrack.socket import NetfilterSocket
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.nftables.set_elements import batch_request, elements_request, parse_elements
from mesh.dataplane.nftables.traffic_counters import (
    COUNTER_SETS,
    COUNTER_TABLE,
    CounterChange,
    CounterFrame,
    CounterListing,
    CounterListingError,
    counter_script,
    delete_command,
    parse_frame,
)
from mesh.util import nft


class CounterTable:
    """Reads and changes the table. It opens its socket on first use.

    Methods raise `NftError`, and `CounterListingError` for everything else.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        """The IP version of the virtual servers."""
        self._socket: NetfilterSocket | None = None
        self._known: dict[bytes, BackendKey | None] = {}
        """What the keys of elements stand for; used in the thread of the socket alone."""

    async def generation(self) -> int:
        """Return the number of the current ruleset."""
        async with self._asking() as netfilter:
            return await netfilter.generation()

    async def frame(self) -> CounterFrame:
        """Return the table without elements; an empty frame if there is no table."""
        listed = await nft.list_table_frame_json("ip6" if self.version == 6 else "ip", COUNTER_TABLE)
        return CounterFrame() if listed is None else parse_frame(listed)

    async def set_up(self, found: CounterFrame) -> None:
        """Write the frame; `found` is what is there. Elements stay, unless they are those of another version."""
        # An element cannot be counted in a set of another type, so that those of another version begin again.
        outdated = [] if found.fits(self.version) else [delete_command(self.version)]
        await nft.load_script("\n".join([*outdated, *counter_script(self.version)]) + "\n")

    async def change(self, changes: Sequence[CounterChange]) -> None:
        """Change elements in one transaction."""
        async with self._asking() as netfilter:
            await netfilter.commit(partial(batch_request, self.version, changes))

    async def listing(self) -> CounterListing:
        """Return the counts of all elements."""
        parse = partial(parse_elements, self.version, known=self._known)
        found: dict[str, dict[BackendKey, tuple[int, int]]] = {}
        async with self._asking() as netfilter:
            for name in COUNTER_SETS:
                found[name] = await netfilter.dump(partial(elements_request, self.version, COUNTER_TABLE, name), parse)
        return CounterListing(found)

    async def close(self) -> None:
        """Close the socket; the kernel goes on counting."""
        if self._socket is not None:
            opened, self._socket = self._socket, None
            await opened.close()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[NetfilterSocket]:
        """Yield the open socket; close it after an error."""
        try:
            if self._socket is None:
                self._socket = NetfilterSocket(self.version)
            yield self._socket
        except DataPlaneError as error:
            await self.close()
            raise CounterListingError(str(error)) from error
