"""From a plan to the data plane and the names: read what is there, run the difference, tell what was a repair.

What is read is what may have changed: what the plan has anew, and what the last pass did not leave as planned. In an
audit it is everything, so that what somebody else has changed is found too. Everything is read as well after a refusal.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mesh.control.conditions import LoopConditions
from mesh.control.drift import detect_repairs
from mesh.control.planner import Plan, changed_servers
from mesh.control.service_plan import ServicePlan
from mesh.control.stats import LoopStats
from mesh.dataplane import DataPlane, OperationFailure
from mesh.dataplane.diff import changed_virtual_servers, diff_tables, reuse_equal_servers
from mesh.dataplane.drain import BackendKey, drain_removed, removed_backends
from mesh.dataplane.operations import BindVip, Operation, operation_kind
from mesh.model.service import Name
from mesh.model.table import Table, VirtualKey
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")


class DataPlaneSync:
    """Makes the data plane and the names follow a plan. `audit` and `drain_timeout` are in seconds; `publish` is given
    the names that resolve."""

    # 14 attributes: eight are the memory of the last pass, which decides what this one reads and what counts as repair.
    # They change together, in one step; apart from one another they would have to be kept in agreement.

    # Over 12 attributes: the parts that it drives, and what the last pass wanted, left behind and found refused. The
    # next pass compares with all of it to tell a planned change from one that was made outside vipmesh.

    def __init__(
        self,
        plane: DataPlane,
        publish: Callable[[Mapping[Name, ServicePlan]], None],
        journal: LoopConditions,
        figures: LoopStats,
        *,
        audit: float,
        drain_timeout: float,
    ) -> None:
        self.draining: Mapping[BackendKey, float] = {}
        """What is on its way out, and since when."""
        self.left = Table()
        """What the last pass wanted to leave behind."""
        self.names: Mapping[Name, ServicePlan] = {}
        """What resolves now."""
        self._plane = plane
        self._publish = publish
        self._journal = journal
        self._figures = figures
        self._audit = audit
        self._drain_timeout = drain_timeout
        self._plan: Plan | None = None
        """What was programmed last."""
        self._refused = False
        """Whether some of it was not done."""
        self._programmed: Table | None = None
        """What the last pass left behind: who finds it otherwise finds somebody's change."""
        self._owed: frozenset[VirtualKey] = frozenset()
        """What of it was not as planned: what drains."""
        self._audited_at = -math.inf

    async def read(self) -> Table:
        """What the data plane holds before anything was planned. Raises `DataPlaneError`."""
        return await self._plane.read()

    async def program(self, planned: Plan) -> Sequence[OperationFailure]:
        """Make it so; what of it was refused. Raises `DataPlaneError` if the data plane does not answer.

        Names go before their VIP, and come after it: a name never leads where nothing answers.
        """
        keys = self._look_at(planned)
        observed, wanted = await self._drained(planned, keys)
        operations = await compute(len(wanted.virtual_servers), partial(diff_tables, observed, wanted))
        before, staying = self._plan, self.names
        if before is None or planned.names is not before.names:
            staying = {name: part for name, part in staying.items() if planned.names.get(name) == part.vip}
        self._show(staying)
        failures = await self._plane.apply(operations) if operations else ()
        self._figures.operations.update(operation_kind(operation) for operation in operations)
        self._figures.refusals.update(operation_kind(failure.operation) for failure in failures)
        await self._tell_repairs(keys, observed, operations, failures)
        self._owed = await self._still_owed(planned.table, keys)
        self.left = self._programmed if self._programmed is not None else wanted
        for operation in operations:
            log.debug("data plane: %s", operation)
        unbound = {f.operation.address for f in failures if isinstance(f.operation, BindVip)}
        names = planned.by_name
        if unbound:
            names = {name: part for name, part in names.items() if name in staying or part.vip not in unbound}
        self._show(names)
        self._plan, self._refused = planned, bool(failures)
        return failures

    def _look_at(self, planned: Plan) -> frozenset[VirtualKey] | None:
        """What to read of the data plane: what shall change, and in an audit everything (None)."""
        now, before = asyncio.get_running_loop().time(), self._plan
        if before is None or self._programmed is None or self._refused or now >= self._audited_at + self._audit / 2:
            self._audited_at = now
            return None
        return self._owed | changed_servers(before, planned)

    async def _still_owed(self, wanted: Table, keys: frozenset[VirtualKey] | None) -> frozenset[VirtualKey]:
        """Of these virtual servers, or of all: those that are not as planned."""
        left = self._programmed
        if left is None:
            return frozenset()  # the next pass looks at all of them
        if keys is None:
            return await compute(len(wanted.virtual_servers), partial(changed_virtual_servers, left, wanted))
        return changed_virtual_servers(left.part(keys), wanted.part(keys))

    async def _tell_repairs(
        self,
        keys: frozenset[VirtualKey] | None,
        observed: Table,
        operations: Sequence[Operation],
        failures: Sequence[OperationFailure],
    ) -> None:
        """Of what was done, tell what somebody else made necessary: it restores what the last pass had left."""
        refused = frozenset(failure.operation for failure in failures)
        look = partial(detect_repairs, self._programmed, keys, observed, operations, refused)
        repairs, self._programmed = await compute(len(observed.virtual_servers) + len(operations), look)
        self._journal.repaired(repairs)

    async def _drained(self, planned: Plan, keys: frozenset[VirtualKey] | None) -> tuple[Table, Table]:
        """Of these virtual servers: what is there, and what shall be now: the plan with what still has to finish."""
        desired = planned.table if keys is None else planned.table.part(keys)
        there = await self._plane.read(keys)
        observed = await compute(len(there.virtual_servers), partial(reuse_equal_servers, there, desired))
        going = removed_backends(observed, desired)
        counts = await self._plane.connections({virtual for virtual, _ in going}) if going else {}
        drained = drain_removed(
            observed,
            desired,
            failed=planned.failed,
            connections=counts,
            since=self.draining,
            now=asyncio.get_running_loop().time(),
            timeout=self._drain_timeout,
        )
        self.draining = drained.since
        return observed, drained.table

    def _show(self, names: Mapping[Name, ServicePlan]) -> None:
        if names != self.names:
            self.names = names
            self._publish(names)
