"""Keeps the table that counts the traffic of virtual servers, and reads it.

Counting must never keep traffic from flowing. If nft or the kernel cannot count, the data plane balances without it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from mesh.dataplane.nftables.traffic_counters import (
    COUNTER_TABLE,
    CounterListing,
    CounterListingError,
    count_commands,
    counter_script,
    is_counted_alike,
    parse_counters,
    repair_commands,
)
from mesh.model.codes import Code
from mesh.model.table import TrafficCounters, VirtualKey, VirtualServer
from mesh.util import nft

log = logging.getLogger("vipmesh")


class TrafficAccounting:
    """Sets up the table when it is first needed, adopts what it has counted, and repairs it whenever it is read."""

    def __init__(self, version: int) -> None:
        """`version` is the IP version of the virtual servers."""
        self.changing = asyncio.Lock()
        """Held while virtual servers are changed, so that what is read and what is written belong together."""
        self._version = version
        self._family = "ip6" if version == 6 else "ip"
        self._fixed: tuple[str, ...] | None = None
        """What nft lists of the fixed part after it was set up; None until then, and after a failure."""
        self._logged = ""
        """The failure that was logged last; empty while counting works."""

    async def start(self) -> None:
        """Set up the table unless that was done; a failure is logged."""
        if self._fixed is None:
            try:
                await self._set_up()
            except (nft.NftError, CounterListingError) as error:
                self._failed(error)

    def commands(
        self, before: Mapping[VirtualKey, VirtualServer], after: Mapping[VirtualKey, VirtualServer | None]
    ) -> list[str]:
        """Return the commands to run along with a change of virtual servers; empty if the table is not set up."""
        if self._fixed is None:
            return []
        due = {key: server for key, server in after.items() if not is_counted_alike(before.get(key), server)}
        return [line for key, server in due.items() for line in count_commands(self._version, key, server)]

    def lose(self) -> None:
        """Note that the table may not be as it must be: the next use sets it up again."""
        self._fixed = None

    async def read(
        self, servers: Callable[[], Awaitable[Mapping[VirtualKey, VirtualServer]]]
    ) -> Mapping[VirtualKey, TrafficCounters]:
        """Return the traffic of each virtual server, and repair the table; empty if the host cannot count.

        `servers` returns what is programmed now.
        """
        async with self.changing:
            try:
                listing = await self._list()
                if self._fixed is None or listing.fixed != self._fixed:
                    listing = await self._set_up()
                wanted = await servers()
                if repair := repair_commands(self._version, listing, wanted):
                    await nft.load_script("\n".join(repair) + "\n")
            except (nft.NftError, CounterListingError) as error:
                self._failed(error)
                return {}
        self._logged = ""
        return {key: listing.traffic(key) for key in wanted}

    async def _set_up(self) -> CounterListing:
        """Write the fixed part; returns the table afterwards. Raises `NftError` and `CounterListingError`."""
        await nft.load_script("\n".join(counter_script(self._version)) + "\n")
        listing = await self._list()
        self._fixed = listing.fixed
        return listing

    async def _list(self) -> CounterListing:
        listed = await nft.list_table_json(self._family, COUNTER_TABLE)
        return CounterListing() if listed is None else await asyncio.to_thread(parse_counters, listed)

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
