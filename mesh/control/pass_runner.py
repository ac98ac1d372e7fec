"""One pass of the control loop: from the view that traffic follows to the data plane and the names."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial

from mesh.control.conditions import LoopConditions
from mesh.control.drain_requests import DrainRequests
from mesh.control.host_upkeep import UpkeepRunner
from mesh.control.planner import Plan, make_plan, planning_effort
from mesh.control.port_conflicts import conflict_problems, contested_ports, served_ports
from mesh.control.stats import LoopStats
from mesh.control.sync import DataPlaneSync
from mesh.dataplane import DataPlaneError
from mesh.model.claims import Claims
from mesh.model.part import FrozenPart, ProblemPart
from mesh.model.service import Address, Name, Transport
from mesh.model.table import RealKey, Table
from mesh.model.view import ClusterView
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")


class PortGuard:
    """Finds the published ports to leave to programs of this worker."""

    def __init__(
        self, listening: Callable[[], Awaitable[Collection[tuple[Transport, int]]]] | None, journal: LoopConditions
    ) -> None:
        """`listening`: the ports that programs of this worker listen on; None: the data plane finds out by itself."""
        self.contested: frozenset[tuple[Transport, int]] = frozenset()
        """The published ports that are not served here."""
        self._listening = listening
        self._journal = journal
        self._served: frozenset[tuple[Transport, int]] = frozenset()

    def adopt(self, table: Table) -> None:
        """The data plane serves this already: a port that leads to its service stays with it."""
        self._served = served_ports(table)

    async def check(self, claims: Claims) -> None:
        """Look again, if a published port is not served yet."""
        new = claims.ports.keys() - self._served
        if self._listening is not None and new:
            self.contested = contested_ports(claims, await self._listening(), self._served)
            self._served |= new - self.contested
            self._journal.found(ProblemPart.PORTS, tuple(conflict_problems(claims, self.contested)))


class PassRunner:
    """Runs one pass at a time: host settings, port conflicts, plan, data plane and names."""

    def __init__(
        self,
        programming: DataPlaneSync,
        *,
        upkeep: UpkeepRunner,
        ports: PortGuard,
        drains: DrainRequests,
        journal: LoopConditions,
        figures: LoopStats,
        resolver: Address | None,
    ) -> None:
        """`drains` is told what each pass has left in the data plane. `resolver` is bound beside the VIPs."""
        self.plan: Plan | None = None
        """What was programmed last; None: nothing yet."""
        self._programming = programming
        self._ports = ports
        self._upkeep = upkeep
        self._drains = drains
        self._journal = journal
        self._figures = figures
        self._resolver = resolver
        self._failed_newly = False
        """Whether the last pass was refused something that the one before it was not."""

    @property
    def draining(self) -> int:
        """How many real servers wait for their last connections."""
        return len(self._programming.draining)

    @property
    def contested(self) -> frozenset[tuple[Transport, int]]:
        """The published ports that are left to programs of this worker."""
        return self._ports.contested

    @property
    def names(self) -> Mapping[Name, Address]:
        """What the name server answers."""
        return {name: part.vip for name, part in self._programming.names.items()}

    @property
    def left(self) -> Table:
        """What the last pass has left in the data plane."""
        return self._programming.left

    @property
    def is_unsettled(self) -> bool:
        """Whether the next pass is due soon: something drains, or was refused for the first time."""
        return bool(self.draining) or self._failed_newly

    async def adopt(self) -> frozenset[RealKey]:
        """The real servers that carry traffic already; empty as well if the data plane cannot be read."""
        try:
            table = await self._programming.read()
        except DataPlaneError as error:
            self._journal.froze(FrozenPart.DATA_PLANE, error)
            return frozenset()
        self._ports.adopt(table)
        found = frozenset(real for server in table.virtual_servers.values() for real in server.real_servers)
        if found:
            log.info("adopted %d virtual servers with %d real servers", len(table.virtual_servers), len(found))
        return found

    async def run(self, view: ClusterView, addresses: frozenset[Address]) -> None:
        """Make the data plane and the names follow this view. `addresses` are the worker's own."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._upkeep.check(addresses, view.claims)
        await self._ports.check(view.claims)
        own, left = sorted(addresses), self._ports.contested
        planning = partial(make_plan, view, view.health, own, self.plan, resolver=self._resolver, contested=left)
        planned = await compute(planning_effort(view, self.plan), planning)
        try:
            failures = await self._programming.program(planned)
        except DataPlaneError as error:
            self._journal.froze(FrozenPart.DATA_PLANE, error)
            self._figures.stalls += 1
            return
        self._journal.thawed(FrozenPart.DATA_PLANE)
        self._failed_newly = not set(failures) <= set(self._journal.failures)
        self.plan = planned
        self._journal.refused(failures)
        self._drains.passed(view, self._programming.left)
        self._figures.passes += 1
        self._figures.pass_seconds.observe(loop.time() - began)
