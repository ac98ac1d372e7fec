"""Maintains the host settings that the data plane depends on, and follows the worker's addresses."""

import asyncio
import math
from collections.abc import Callable, Sequence

from mesh.control.conditions import LoopConditions
from mesh.control.context import ClusterState
from mesh.control.ports import HostNetwork, HostUpkeep
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.part import DaemonPart, FrozenPart
from mesh.model.service import Address
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.HOST)


class AddressWatcher:
    """Follows the worker's own addresses.

    A change of the network may be a new address to publish on, or a VIP that was removed outside vipmesh: a pass is due
    each time, even if the addresses are the same.
    """

    def __init__(self, host: HostNetwork, cluster: ClusterState, wake: Callable[[], None]) -> None:
        self._host = host
        self._cluster = cluster
        self._wake = wake

    async def run(self) -> None:
        """Follow the addresses, until cancelled."""
        async for addresses in self._host.watch():
            self._cluster.move(addresses)
            self._wake()


class UpkeepRunner:
    """Checks kernel settings and source NAT once per audit, and whenever addresses or claims have changed."""

    def __init__(self, settings: Sequence[HostUpkeep], conditions: LoopConditions, audit: float) -> None:
        """`audit`: seconds between two audits."""
        self._settings = settings
        self._conditions = conditions
        self._audit = audit
        self._checked_at = -math.inf
        self._checked_for: tuple[frozenset[Address], Claims] = (frozenset(), Claims())

    async def check(self, addresses: frozenset[Address], claims: Claims) -> None:
        """Repair settings that are missing or were changed. A setting that cannot be repaired is reported; the others
        are still checked.
        """
        now = asyncio.get_running_loop().time()
        # Half an interval: the pass that is the audit may run a moment earlier or later.
        if now < self._checked_at + self._audit / 2 and (addresses, claims) == self._checked_for:
            return
        first = self._checked_at == -math.inf
        self._checked_at, self._checked_for = now, (addresses, claims)
        for number, settings in enumerate(self._settings):
            part = f"{FrozenPart.HOST} {number}"
            with bulkhead.contain(part):
                try:
                    found = await settings.repair(addresses, claims)
                except HostError as error:
                    self._conditions.froze(part, error)
                    continue
                self._conditions.thawed(part)
                self._conditions.upkeep_done(found, first=first)
