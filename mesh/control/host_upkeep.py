"""Maintains the host settings that the data plane depends on and the firewall, and follows the worker's addresses and
endpoints.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from mesh.control.conditions import LoopConditions
from mesh.control.connection_holds import ConnectionHolds
from mesh.control.context import ClusterState, OwnEndpoints
from mesh.control.ports import EndpointUpkeep, Firewall, HostNetwork, HostUpkeep
from mesh.host import HostError
from mesh.host.firewall.direct_access import DirectEndpoint
from mesh.host.firewall.plan import FirewallDemand
from mesh.model.claims import Claims
from mesh.model.part import DaemonPart, FrozenPart, ProblemPart
from mesh.model.service import Address
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.HOST)

_LOCATE = 1.0
"""Seconds until the next look at an endpoint that the kernel is still resolving."""
_ATTEMPTS = 5
"""Looks at an endpoint that the kernel is still resolving; the next one is the audit."""
LOOK_REST = 1.0
"""Seconds between two looks at rules that keep changing."""
FIRST_OPENING = 1.0
"""Seconds that the first services wait for the firewall."""


class AddressWatcher:
    """Follows the worker's own addresses.

    A change of the network may be a new address to publish on, or a VIP that was removed outside vipmesh: a pass is due
    each time, even if the addresses are the same.
    """

    def __init__(
        self,
        host: HostNetwork,
        cluster: ClusterState,
        own: Callable[[frozenset[Address]], None],
        wake: Callable[[], None],
    ) -> None:
        """`own` is called with all addresses of the host, `wake` after each change."""
        self._host = host
        self._cluster = cluster
        self._own = own
        self._wake = wake

    async def run(self) -> None:
        """Follow the addresses, until cancelled."""
        async for addresses in self._host.watch():
            self._cluster.move(addresses)
            self._own(await self._host.all_addresses())
            self._wake()


class FirewallRunner:
    """Keeps the firewall open for the current demand, in a task of its own: its programs may take long or hang.

    It works once per audit, when the demand changes, and when the host's network or its rules change.
    """

    def __init__(
        self,
        firewall: Firewall | None,
        conditions: LoopConditions,
        audit: float,
        direct: Callable[[], frozenset[DirectEndpoint]] = frozenset,
        senders: Callable[[], frozenset[Address]] = frozenset,
    ) -> None:
        """`firewall` is None if this worker depends on none. `audit`: seconds between two audits. `direct`: returns
        where other workers reach endpoints of this one, and `senders` the addresses of those workers; their changes are
        seen at the next audit or change of rules.
        """
        self.reads_rules = firewall is not None
        """Whether the rules could be read when they were read last; true before the first time."""
        self._firewall = firewall
        self._direct = direct
        self._senders = senders
        self._conditions = conditions
        self._audit = audit
        self._demand: FirewallDemand | None = None
        """The newest demand; None before the first pass."""
        self._due = asyncio.Event()
        self._done = asyncio.Event()
        """Set while the newest demand has been worked on."""

    def look_again(self) -> None:
        """The host's network has changed: it may be a container network that is new."""
        self._due.set()

    async def demand(self, demand: FirewallDemand) -> None:
        """Set what the worker needs. Returns at once, except before the first services: their clients are the first to
        need an open firewall, so they wait for it for a moment.
        """
        if self._firewall is None or demand == self._demand:
            return
        is_first = demand.needed and not (self._demand is not None and self._demand.needed)
        self._demand = demand
        self._done.clear()
        self._due.set()
        if is_first:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_OPENING):
                    await self._done.wait()

    async def watch(self) -> None:
        """Look again whenever rules may have changed, until cancelled."""
        if self._firewall is not None:
            async for _ in self._firewall.changes():
                self.look_again()
                # One look for all rules that a program writes one after the other; one of the changes may be our own.
                await asyncio.sleep(LOOK_REST)

    async def run(self) -> None:
        """Keep the firewall open, until cancelled."""
        while self._firewall is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._audit):
                    await self._due.wait()
            self._due.clear()
            if self._demand is None:
                continue
            try:
                demand = replace(self._demand, direct=self._direct(), senders=self._senders())
                report = await self._firewall.repair(demand)
            except Exception:
                self._due.set()  # it is due again as soon as this is started again
                raise
            self.reads_rules = report.is_read
            self._conditions.upkeep_done(report.set_up, first=True)
            self._conditions.upkeep_done(report.repaired, first=False)
            self._conditions.found(ProblemPart.FIREWALL, report.problems)
            if not self._due.is_set():
                self._done.set()


class UpkeepRunner:
    """Checks kernel settings and source NAT once per audit, and whenever addresses or claims have changed."""

    def __init__(
        self,
        settings: Sequence[HostUpkeep],
        firewall: FirewallRunner,
        holds: ConnectionHolds,
        conditions: LoopConditions,
        audit: float,
    ) -> None:
        """`audit`: seconds between two audits."""
        self.firewall = firewall
        """Works beside the passes, in a task of its own."""
        self.holds = holds
        """Where new connections wait while the engine restarts."""
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
