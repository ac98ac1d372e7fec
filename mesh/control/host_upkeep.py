"""Keeps the settings of the host that the data plane depends on, and its addresses."""

import asyncio
import math
from collections.abc import Callable, Sequence

from mesh.control.conditions import LoopConditions
from mesh.control.context import ClusterState
from mesh.control.ports import HostNetwork, HostUpkeep
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.part import FrozenPart
from mesh.model.service import Address


class AddressWatcher:
    """Follows the worker's own addresses.

    A change of the network may be a new address to publish on, or a VIP that was removed outside vipmesh: a pass is due
    each time, also when the addresses are the same.
    """

    def __init__(self, host: HostNetwork, cluster: ClusterState, wake: Callable[[], None]) -> None:
        self._host = host
        self._cluster = cluster
        self._wake = wake

    async def run(self) -> None:
        """Follow, until cancelled."""
        async for addresses in self._host.watch():
            self._cluster.move(addresses)
            self._wake()


class UpkeepRunner:
    """Checks kernel settings and source NAT once per audit, and whenever addresses or claims have changed."""

    def __init__(self, settings: Sequence[HostUpkeep], journal: LoopConditions, audit: float) -> None:
        """`audit`: seconds between two audits."""
        self._settings = settings
        self._journal = journal
        self._audit = audit
        self._checked_at = -math.inf
        self._checked_for: tuple[frozenset[Address], Claims] = (frozenset(), Claims())

    async def check(self, addresses: frozenset[Address], claims: Claims) -> None:
        """Repair what is missing or was changed; what cannot be repaired is reported, and the rest is done."""
        now = asyncio.get_running_loop().time()
        # Half an audit: the audit itself comes a moment early or late.
        if now < self._checked_at + self._audit / 2 and (addresses, claims) == self._checked_for:
            return
        first = self._checked_at == -math.inf
        self._checked_at, self._checked_for = now, (addresses, claims)
        for number, settings in enumerate(self._settings):
            part = f"{FrozenPart.HOST} {number}"
            try:
                found = await settings.mend(addresses, claims)
            except HostError as error:
                self._journal.froze(part, error)
                continue
            self._journal.thawed(part)
            self._journal.mended(found, first=first)
