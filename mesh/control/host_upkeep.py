"""Maintains the host settings that the data plane depends on, and follows the worker's addresses and endpoints."""

import asyncio
import math
from collections.abc import Callable, Sequence

from mesh.control.conditions import LoopConditions
from mesh.control.context import ClusterState, OwnEndpoints
from mesh.control.ports import EndpointUpkeep, HostNetwork, HostUpkeep
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.part import FrozenPart
from mesh.model.service import Address

_LOCATE = 1.0
"""Seconds until the next look at an endpoint that the kernel is still resolving."""
_ATTEMPTS = 5
"""Looks at an endpoint that the kernel is still resolving; the next one is the audit."""


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
            try:
                found = await settings.repair(addresses, claims)
            except HostError as error:
                self._conditions.froze(part, error)
                continue
            self._conditions.thawed(part)
            self._conditions.upkeep_done(found, first=first)


class EndpointUpkeepRunner:
    """Checks the host settings that endpoints depend on whenever these have changed, and once per audit.

    It runs beside the passes: an endpoint that is not resolved yet must not delay traffic to the others.
    """

    def __init__(
        self, upkeep: EndpointUpkeep, endpoints: OwnEndpoints, conditions: LoopConditions, *, part: str, audit: float
    ) -> None:
        """`part`: the name under which a setting that cannot be repaired is reported. `audit`: seconds between two
        audits.
        """
        self._upkeep = upkeep
        self._endpoints = endpoints
        self._conditions = conditions
        self._part = part
        self._audit = audit

    async def run(self) -> None:
        """Check the settings, until cancelled. Nothing is done before every source has answered once."""
        while True:
            self._endpoints.changed.clear()
            complete = await self._check()
            for _ in range(_ATTEMPTS):
                if complete or await self._has_changed_within(_LOCATE):
                    break
                complete = await self._check()
            await self._has_changed_within(self._audit)

    async def _has_changed_within(self, seconds: float) -> bool:
        """Wait until the endpoints change, for so many seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._endpoints.changed.wait()
        except TimeoutError:
            return False
        return True

    async def _check(self) -> bool:
        """Repair the settings; returns whether everything is done that can be done now."""
        if self._endpoints.addresses is None:
            return True
        try:
            result = await self._upkeep.repair(self._endpoints.addresses)
        except HostError as error:
            self._conditions.froze(self._part, error)
            return True
        self._conditions.thawed(self._part)
        self._conditions.upkeep_done(result.set_up, first=True)
        self._conditions.upkeep_done(result.repaired, first=False)
        return result.is_complete
