"""Keeps the table that counts the traffic of real and virtual servers, and reads it.

Counting must never keep traffic from flowing. If nft or the kernel cannot count, the data plane balances without it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from mesh.dataplane import DataPlaneError
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.nftables.traffic_counters import (
    COUNTER_SETS,
    COUNTER_TABLE,
    CounterFrame,
    CounterListing,
    CounterListingError,
    count_commands,
    counter_script,
    delete_command,
    is_counted_alike,
    parse_frame,
    repair_commands,
)
from mesh.model.codes import Code
from mesh.model.table import VirtualKey, VirtualServer
from mesh.util import nft

log = logging.getLogger("vipmesh")

ReadElements: TypeAlias = Callable[[str], Awaitable[Mapping[BackendKey, tuple[int, int]]]]
"""Reads packets and bytes of each element of a set."""


class TrafficAccounting:
    """Sets up the table when it is first needed, adopts what it has counted, and repairs it whenever it is read."""

    def __init__(self, version: int, elements: ReadElements) -> None:
        """`version` is the IP version of the virtual servers. `elements` reads a set of the table by its name, and
        raises `DataPlaneError`.
        """
        self.changing = asyncio.Lock()
        """Held while virtual servers are changed, so that what is read and what is written belong together."""
        self._version = version
        self._elements = elements
        self._family = "ip6" if version == 6 else "ip"
        self._fixed: tuple[str, ...] | None = None
        """What nft lists of the fixed part after it was set up; None until then, and after a failure."""
        self._logged = ""
        """The failure that was logged last; empty while counting works."""

    async def start(self) -> None:
        """Set up the table unless that was done; a failure is logged."""
        if self._fixed is None:
            try:
                await self._set_up(await self._frame())
            except (nft.NftError, CounterListingError) as error:
                self._failed(error)

    def commands(
        self, before: Mapping[VirtualKey, VirtualServer], after: Mapping[VirtualKey, VirtualServer | None]
    ) -> list[str]:
        """Return the commands to run along with a change of virtual servers; empty if the table is not set up."""
        if self._fixed is None:
            return []
        due = {key: server for key, server in after.items() if not is_counted_alike(before.get(key), server)}
        return [
            line for key, server in due.items() for line in count_commands(self._version, key, before.get(key), server)
        ]

    def lose(self) -> None:
        """Note that the table may not be as it must be: the next use sets it up again."""
        self._fixed = None

    async def read(
        self, servers: Callable[[], Awaitable[Mapping[VirtualKey, VirtualServer]]]
    ) -> tuple[CounterListing | None, Mapping[VirtualKey, VirtualServer]]:
        """Return what was counted, and what is programmed now, and repair the table; None if the host cannot count.

        `servers` returns what is programmed now.
        """
        async with self.changing:
            try:
                frame = await self._frame()
                if self._fixed is None or frame.fixed != self._fixed:
                    await self._set_up(frame)
                listing = await self._list()
                wanted = await servers()
                # Thousands of elements are compared.
                repair = await asyncio.to_thread(repair_commands, self._version, listing, wanted)
                if repair:
                    await nft.load_script("\n".join(repair) + "\n")
            except (nft.NftError, CounterListingError) as error:
                self._failed(error)
                return None, {}
        self._logged = ""
        return listing, wanted

    async def _set_up(self, found: CounterFrame) -> None:
        """Write the fixed part; `found` is what is there. Raises `NftError` and `CounterListingError`."""
        # An element cannot be counted in a set of another type, so that those of another version begin again.
        outdated = [] if found.fits(self._version) else [delete_command(self._version)]
        await nft.load_script("\n".join([*outdated, *counter_script(self._version)]) + "\n")
        self._fixed = (await self._frame()).fixed

    async def _frame(self) -> CounterFrame:
        listed = await nft.list_table_frame_json(self._family, COUNTER_TABLE)
        return CounterFrame() if listed is None else await asyncio.to_thread(parse_frame, listed)

    async def _list(self) -> CounterListing:
        try:
            return CounterListing({name: await self._elements(name) for name in COUNTER_SETS})
        except DataPlaneError as error:
            raise CounterListingError(str(error)) from error

    def _failed(self, error: Exception) -> None:
        self.lose()
        if str(error) != self._logged:
            self._logged = str(error)
            remedy = f"`nft delete table {self._family} {COUNTER_TABLE}` lets it be set up anew"
            log.warning(
                "data plane nftables: traffic is not counted (%s): %s",
                error,
                remedy,
                extra=Code.NFTABLES_TRAFFIC_NOT_COUNTED.extra,
            )
