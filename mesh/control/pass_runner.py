"""Runs one pass of the control loop: from the view that traffic follows to the data plane and the names."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial

from mesh.config.values import Network
from mesh.control.conditions import LoopConditions
from mesh.control.drain_requests import DrainRequests
from mesh.control.host_upkeep import UpkeepRunner
from mesh.control.planner import Plan, make_plan, planning_effort
from mesh.control.port_conflicts import conflict_problems, contested_ports, served_ports
from mesh.control.stats import LoopStats
from mesh.control.sync import DataPlaneSync
from mesh.dataplane import DataPlaneError, OperationFailure
from mesh.dataplane.operations import BindVip
from mesh.host.firewall.plan import FirewallDemand
from mesh.host.host_problems import withheld_problem, withheld_vips
from mesh.model.claims import Claims
from mesh.model.eligibility import vip_of
from mesh.model.part import DaemonPart, FrozenPart, ProblemPart
from mesh.model.service import Address, Name, Transport
from mesh.model.table import RealKey, Table, VirtualKey
from mesh.model.view import ClusterView
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.CONTROL_LOOP)

STAYS_OPEN = 8.0
"""Seconds for which the firewall stays open after the last service: an engine that restarts without live-restore ends
all containers and starts them again. It is less than the time between two audits, so that the next one closes it.
"""


class PortGuard:
    """Finds published ports that are left to programs of this worker."""

    def __init__(
        self, listening: Callable[[], Awaitable[Collection[tuple[Transport, int]]]] | None, conditions: LoopConditions
    ) -> None:
        """`listening`: reads the ports that programs on this worker listen on. None if the data plane detects conflicts
        itself.
        """
        self.contested: frozenset[tuple[Transport, int]] = frozenset()
        """Published ports that this worker does not serve."""
        self._listening = listening
        self._conditions = conditions
        self._served: frozenset[tuple[Transport, int]] = frozenset()

    def adopt(self, table: Table) -> None:
        """Adopt the table of the data plane: a published port that is served already keeps leading to its service."""
        self._served = served_ports(table)

    async def check(self, claims: Claims) -> None:
        """Check the ports again if a published port is not served yet."""
        new = claims.ports.keys() - self._served
        if self._listening is not None and new:
            self.contested = contested_ports(claims, await self._listening(), self._served)
            self._served |= new - self.contested
            self._conditions.found(ProblemPart.PORTS, tuple(conflict_problems(claims, self.contested)))


class PoolGuard:
    """Decides which addresses of the VIP pool are bound: none that would take the traffic of another host."""

    def __init__(
        self,
        occupied: Callable[[], Awaitable[Collection[Network]]] | None,
        conditions: LoopConditions,
        resolver: Address | None,
    ) -> None:
        """`occupied`: returns the networks of the host that VIPs must stay out of. None if the host is not watched.
        `resolver` is bound beside the VIPs; None if there is no resolver.
        """
        self.resolver = resolver
        self._occupied = occupied
        self._conditions = conditions
        self._bound: frozenset[Address] = frozenset()

    def bound(self, vips: frozenset[Address]) -> None:
        """Take note of the VIPs that are bound now: they stay."""
        self._bound = vips

    async def check(self, view: ClusterView) -> frozenset[Address]:
        """Return the VIPs that must not be bound, and report their services."""
        occupied = () if self._occupied is None else await self._occupied()
        if not occupied:
            self._conditions.found(ProblemPart.POOL, ())
            return frozenset()
        vips = {vip: service for service in view.services if (vip := vip_of(service, view)) is not None}
        withheld = withheld_vips(vips, occupied, self._bound)
        problems = [withheld_problem(vips[vip], vip, occupied) for vip in sorted(withheld)]
        self._conditions.found(ProblemPart.POOL, problems)
        return withheld


class PassRunner:
    """Runs one pass at a time: host settings, port conflicts, plan, data plane and names."""

    def __init__(
        self,
        data_plane_sync: DataPlaneSync,
        *,
        upkeep: UpkeepRunner,
        ports: PortGuard,
        pool: PoolGuard,
        drains: DrainRequests,
        conditions: LoopConditions,
        stats: LoopStats,
    ) -> None:
        """`drains` is notified of the table that each pass leaves in the data plane."""
        self.plan: Plan | None = None
        """The plan that was programmed last; None before the first pass."""
        self._needed_at = -math.inf
        """The loop time, in seconds, of the newest pass with a service or with draining connections."""
        self._data_plane_sync = data_plane_sync
        self._ports = ports
        self._pool = pool
        self._upkeep = upkeep
        self._drains = drains
        self._conditions = conditions
        self._stats = stats
        self._failed_newly = False
        """Whether an operation was refused in the last pass that was not refused in the one before."""

    @property
    def draining(self) -> int:
        """The number of real servers that wait for their last connections to end."""
        return len(self._data_plane_sync.draining)

    @property
    def contested(self) -> frozenset[tuple[Transport, int]]:
        """The published ports that are left to programs of this worker."""
        return self._ports.contested

    @property
    def names(self) -> Mapping[Name, Address]:
        """The names that the name server answers, with their VIPs."""
        return {name: part.vip for name, part in self._data_plane_sync.names.items()}

    @property
    def held(self) -> frozenset[VirtualKey]:
        """The virtual servers without an endpoint whose new connections wait for one."""
        return self._upkeep.holds.held

    @property
    def left(self) -> Table:
        """The table that the last pass has left in the data plane."""
        return self._data_plane_sync.left

    @property
    def is_unsettled(self) -> bool:
        """Whether the next pass is due soon: real servers drain, or an operation was refused for the first time."""
        return bool(self.draining) or self._failed_newly

    async def adopt(self) -> frozenset[RealKey]:
        """The real servers that carry traffic already; empty if there are none or the data plane cannot be read."""
        try:
            table = await self._data_plane_sync.read()
        except DataPlaneError as error:
            self._conditions.froze(FrozenPart.DATA_PLANE, error)
            return frozenset()
        self._ports.adopt(table)
        self._pool.bound(table.vips)
        found = frozenset(real for server in table.virtual_servers.values() for real in server.real_servers)
        if found:
            log.info("adopted %d virtual servers with %d real servers", len(table.virtual_servers), len(found))
        return found

    async def run(self, view: ClusterView, addresses: frozenset[Address]) -> None:
        """Apply this view to the data plane and the names. `addresses` are the worker's own."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._upkeep.check(addresses, view.claims)
        await bulkhead.run("published ports", self._ports.check, view.claims)
        withheld = await self._pool.check(view)
        own, left = sorted(addresses), self._ports.contested
        planning = partial(
            make_plan,
            view,
            view.health,
            own,
            self.plan,
            resolver=self._pool.resolver,
            contested=left,
            withheld=withheld,
        )
        if view.services or self.draining:
            self._needed_at = began
        needed = began < self._needed_at + STAYS_OPEN
        ports = frozenset(view.claims.ports.keys() - left)
        await self._upkeep.firewall.demand(FirewallDemand(addresses, ports, needed))
        planned = await compute(planning_effort(view, self.plan), planning)
        for owner, error in planned.broken.items():
            bulkhead.caught(f"plan of service {owner}", error)
        holds = self._upkeep.holds
        await holds.before_pass(self.left, self.plan, planned)
        try:
            failures = await self._data_plane_sync.program(planned)
        except DataPlaneError as error:
            self._conditions.froze(FrozenPart.DATA_PLANE, error)
            self._stats.stalls += 1
            return
        self._conditions.thawed(FrozenPart.DATA_PLANE)
        self._failed_newly = not set(failures) <= set(self._conditions.failures)
        self.plan = planned
        self._conditions.set_failures(failures)
        await holds.after_pass(self.left)
        self._pool.bound(planned.table.vips - _not_bound(failures))
        self._drains.passed(view, self._data_plane_sync.left, self._data_plane_sync.connections_left)
        self._stats.passes += 1
        self._stats.pass_seconds.observe(loop.time() - began)


def _not_bound(failures: Collection[OperationFailure]) -> frozenset[Address]:
    """The VIPs among operations that were refused."""
    return frozenset(failure.operation.address for failure in failures if isinstance(failure.operation, BindVip))
