"""Keeps the table that counts the traffic of real and virtual servers, and reads it.

Counting must never keep traffic from flowing. If nft or the kernel cannot count, the data plane balances without it.
Nor does programming wait for it: what is to be counted after a change is noted, and loaded beside the passes a moment
later, in transactions of a few milliseconds.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

from mesh.dataplane.drain import BackendKey
from mesh.dataplane.nftables.counter_table import CounterTable
from mesh.dataplane.nftables.traffic_counters import (
    COUNTER_TABLE,
    CounterChange,
    CounterListing,
    CounterListingError,
    count_change,
    is_counted_alike,
    repair_changes,
)
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.table import TrafficCounters, VirtualKey, VirtualServer
from mesh.util import nft
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")

bulkhead = Bulkhead(DaemonPart.DATA_PLANE)

_FRESH = 1.0
"""Seconds for which what was read serves all readers."""
_AT_ONCE = 500
"""Elements of each set in one transaction, as far as virtual servers are no larger."""
_UNTIL_CLOSED = 2.0
"""Seconds for which what is under way may be loaded before the data plane is closed."""

T = TypeVar("T")

Servers: TypeAlias = Mapping[VirtualKey, VirtualServer]
_FAILURES = (nft.NftError, CounterListingError)


@dataclass(frozen=True, slots=True)
class CountedTraffic:
    """What was counted since each virtual server and each real server began; empty if the host cannot count."""

    servers: Mapping[VirtualKey, TrafficCounters] = field(default_factory=dict)
    """The traffic of each virtual server that is programmed."""
    endpoints: Mapping[BackendKey, TrafficCounters] = field(default_factory=dict)
    """The traffic to each of its real servers."""


class TrafficAccounting:
    """Sets up the table when it is first needed, adopts what it has counted, and repairs it whenever it is read."""

    def __init__(
        self, version: int, servers: Callable[[], Awaitable[Servers]], committed: Callable[[int, int], None]
    ) -> None:
        """`version` is the IP version of the virtual servers. `servers` returns those that are programmed, and raises
        `DataPlaneError`. `committed` is called after each transaction, with the numbers of the ruleset around it.
        """
        self.changing = asyncio.Lock()
        """Held for each transaction, here and by the data plane: each knows which change of the ruleset is whose."""
        self._servers = servers
        self._committed = committed
        self._table = CounterTable(version)
        self._counting = asyncio.Lock()
        """Held while counters are loaded or read. Programming never waits for it."""
        self._due: dict[VirtualKey, list[tuple[VirtualServer | None, VirtualServer | None]]] = {}
        """Changes whose counters are not loaded yet: before and after, at most two for each virtual server."""
        self._task: asyncio.Task[None] | None = None
        self._fixed: tuple[str, ...] | None = None
        """What nft lists of the fixed part after it was set up; None until then, and after a failure."""
        self._verified: int | None = None
        """The number of the ruleset in which the whole table was as it must be."""
        self._read: tuple[float, CountedTraffic] | None = None
        """What was read last, and when; None once something was programmed."""
        self._programmed = 0
        """How many changes were noted."""
        self._logged = ""
        """The failure that was logged last; empty while counting works."""

    def note(self, before: Servers, after: Mapping[VirtualKey, VirtualServer | None]) -> None:
        """Note that virtual servers were changed; `load` follows. The caller holds `changing`."""
        self._read = None
        self._programmed += 1
        for key, server in after.items():
            if key in self._due or not is_counted_alike(before.get(key), server):
                _coalesce(self._due.setdefault(key, []), before.get(key), server)

    def load(self) -> None:
        """Begin to load the counters of what was changed, beside the caller."""
        if self._due and self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                bulkhead.run("traffic counters", self._load_due), name="traffic counters"
            )

    async def counted(self) -> None:
        """Wait until everything that is programmed is counted, as far as the host can; the next read is a fresh one."""
        async with self._counting:
            await self._attempt(self._follow)
        self._read = None

    async def traffic(self) -> CountedTraffic:
        """Return what was counted, at most a second ago, and repair the table."""
        clock = asyncio.get_running_loop().time
        async with self._counting:
            if self._read is not None and clock() - self._read[0] <= _FRESH:
                return self._read[1]
            began = self._programmed
            found = await self._attempt(self._follow_and_read) or CountedTraffic()
            self._read = (clock(), found) if self._programmed == began else None
            return found

    async def close(self) -> None:
        """Load what is under way, within bounds, and close the socket; the kernel goes on counting."""
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=_UNTIL_CLOSED)
            task.cancel()
        async with self._counting:
            await self._table.close()

    async def _load_due(self) -> None:
        try:
            while self._due:
                async with self._counting:
                    await self._attempt(self._follow)
        finally:
            self._task = None

    async def _attempt(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of the work; None after a failure, which is logged."""
        try:
            result = await work()
        except _FAILURES as error:
            self._failed(error)
            return None
        if self._fixed is not None:
            self._logged = ""
        return result

    async def _follow(self) -> None:
        """Load the counters of what was changed. Raises what `CounterTable` raises."""
        due, self._due = self._due, {}
        if not due:
            return
        changes = await compute(len(due) * 10, partial(_changes, self._table.version, due))
        if self._fixed is not None:
            try:
                await self._load(changes)
            except CounterListingError:
                self._fixed = None  # somebody else may have deleted the table
            else:
                return
        await self._set_up()
        await self._load(changes)

    async def _follow_and_read(self) -> CountedTraffic:
        """Return what was counted, once everything is. Raises what `CounterTable` raises."""
        await self._follow()
        generation = await self._table.generation()
        whole = self._fixed is not None and generation == self._verified
        if not whole and (self._fixed is None or (await self._table.frame()).fixed != self._fixed):
            await self._set_up()
        listing = await self._table.listing()
        servers = await self._servers()
        if not whole:
            repairs = await compute(len(servers) * 10, partial(repair_changes, self._table.version, listing, servers))
            await self._load(repairs, unless_due=True)
            # Without a repair, the table is known to be whole for as long as no ruleset changes.
            self._verified = None if repairs else generation
        return await compute(len(servers) * 10, partial(_counted, listing, servers))

    async def _set_up(self) -> None:
        found = await self._table.frame()
        async with self._transaction():
            await self._table.set_up(found)
        self._fixed = (await self._table.frame()).fixed

    async def _load(self, changes: Sequence[CounterChange], *, unless_due: bool = False) -> None:
        """Change elements in transactions of a bounded size, between which others may have theirs.

        `unless_due` leaves out virtual servers that were changed since then.
        """
        for part in _parts(changes):
            async with self._transaction():
                wanted = [change for change in part if not unless_due or change.key not in self._due]
                if wanted:
                    await self._table.change(wanted)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        async with self.changing:
            before = await self._table.generation()
            yield
            self._committed(before, await self._table.generation())

    def _failed(self, error: Exception) -> None:
        self._fixed = self._verified = None
        if str(error) != self._logged:
            self._logged = str(error)
            family = "ip6" if self._table.version == 6 else "ip"
            remedy = f"`nft delete table {family} {COUNTER_TABLE}` lets it be set up anew"
            log.warning(
                "data plane nftables: traffic is not counted (%s): %s",
                error,
                remedy,
                extra=Code.NFTABLES_TRAFFIC_NOT_COUNTED.extra,
            )


def _coalesce(
    changes: list[tuple[VirtualServer | None, VirtualServer | None]],
    before: VirtualServer | None,
    after: VirtualServer | None,
) -> None:
    """Add a change of a virtual server to the earlier ones; its end stays one, since counts begin at 0 after it."""
    if changes and changes[-1][1] is not None:
        changes[-1] = (changes[-1][0], after)
    else:
        changes.append((before, after))
    if len(changes) > 2:
        # It has ended, begun and ended again: what matters are the first end and the last beginning.
        del changes[1:-1]


def _changes(
    version: int, due: Mapping[VirtualKey, Sequence[tuple[VirtualServer | None, VirtualServer | None]]]
) -> list[CounterChange]:
    found = (count_change(version, key, *change) for key, changes in due.items() for change in changes)
    return [change for change in found if change is not None]


def _parts(changes: Sequence[CounterChange]) -> list[list[CounterChange]]:
    """Return the changes in order, in parts that take a few milliseconds."""
    parts: list[list[CounterChange]] = []
    room = 0
    for change in changes:
        size = sum(len(step.backends) for step in change.steps)
        if not parts or size > room:
            parts.append([])
            room = _AT_ONCE
        parts[-1].append(change)
        room -= size
    return parts


def _counted(listing: CounterListing, servers: Servers) -> CountedTraffic:
    totals, nothing = listing.totals(), TrafficCounters()
    return CountedTraffic(
        {key: totals.get(key, nothing) for key in servers},
        {(key, real): listing.traffic((key, real)) for key, server in servers.items() for real in server.real_servers},
    )
