"""Synchronizes the data plane and the names with a plan: reads the data plane, applies the difference, reports repairs.

A pass reads only the virtual servers that may differ: those that are new or changed in the plan, and those that the
last pass did not leave as planned. An audit, and the pass after a refusal, read everything, so that changes made
outside vipmesh are found too.
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
from mesh.model.persistent_map import changed_keys
from mesh.model.service import Name
from mesh.model.table import Table, VirtualKey
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")

_RECORDS_OF_A_NAME = 8
"""About how many records of the zone a name has; each takes ten microseconds."""


class DataPlaneSync:
    """Makes the data plane and the names follow a plan. `audit` and `drain_timeout` are in seconds; `publish` replaces
    the names that are answered.
    """

    # 15 attributes: the parts that it drives, and nine that remember the last pass. They decide what the next pass
    # reads and which of its operations are repairs, and change together in one step.

    def __init__(
        self,
        plane: DataPlane,
        publish: Callable[[Mapping[Name, ServicePlan]], None],
        conditions: LoopConditions,
        stats: LoopStats,
        *,
        audit: float,
        drain_timeout: float,
    ) -> None:
        self.draining: Mapping[BackendKey, float] = {}
        """Backends that are draining, with the time when each began."""
        self.connections_left: Mapping[BackendKey, int] = {}
        """The connections of each of them at the last pass, where the data plane counts them."""
        self.left = Table()
        """The table that the last pass wanted to leave behind."""
        self.names: Mapping[Name, ServicePlan] = {}
        """The names that are answered now."""
        self._plane = plane
        self._publish = publish
        self._conditions = conditions
        self._stats = stats
        self._audit = audit
        self._drain_timeout = drain_timeout
        self._plan: Plan | None = None
        """The plan that was programmed last; None before the first pass."""
        self._refused = False
        """Whether an operation of the last pass was refused."""
        self._programmed: Table | None = None
        """The table that the last pass left: a difference from it was made outside vipmesh. None if it is not known."""
        self._unfinished: frozenset[VirtualKey] = frozenset()
        """Virtual servers that the last pass did not leave as planned: they are draining."""
        self._audited_at = -math.inf

    async def read(self) -> Table:
        """The table of the data plane before anything was planned. Raises `DataPlaneError`."""
        return await self._plane.read()

    async def program(self, planned: Plan) -> Sequence[OperationFailure]:
        """Program the plan; return the operations that were refused. Raises `DataPlaneError` if the data plane does not
        answer.
        """
        keys = self._keys_to_read(planned)
        observed, wanted = await self._read_and_drain(planned, keys)
        size = len(observed.virtual_servers) + len(wanted.virtual_servers)
        operations = await compute(size, partial(diff_tables, observed, wanted))
        # Names go before their VIP is unbound, and new names come after their VIP is bound: a name must never lead to
        # an unbound address.
        before, staying = self._plan, self.names
        if before is None or planned.names is not before.names:
            staying = {name: part for name, part in staying.items() if planned.names.get(name) == part.vip}
        await self._publish_names(staying)
        failures = await self._plane.apply(operations) if operations else ()
        self._stats.operations.update(operation_kind(operation) for operation in operations)
        self._stats.refusals.update(operation_kind(failure.operation) for failure in failures)
        await self._report_repairs(keys, observed, operations, failures)
        self._unfinished = await self._find_unfinished(planned.table, keys)
        self.left = self._programmed if self._programmed is not None else wanted
        for operation in operations:
            log.debug("data plane: %s", operation)
        # The new name of a VIP that could not be bound is not published; a name that is answered already stays.
        unbound = {f.operation.address for f in failures if isinstance(f.operation, BindVip)}
        names = planned.by_name
        if unbound:
            names = {name: part for name, part in names.items() if name in staying or part.vip not in unbound}
        await self._publish_names(names)
        self._plan, self._refused = planned, bool(failures)
        return failures

    def _keys_to_read(self, planned: Plan) -> frozenset[VirtualKey] | None:
        """The virtual servers to read: those that may differ; None, which means all, in an audit."""
        now, before = asyncio.get_running_loop().time(), self._plan
        # Half an interval: the pass that is the audit may run a moment earlier than a full interval after the last one.
        if before is None or self._programmed is None or self._refused or now >= self._audited_at + self._audit / 2:
            self._audited_at = now
            return None
        return self._unfinished | changed_servers(before, planned)

    async def _find_unfinished(self, wanted: Table, keys: frozenset[VirtualKey] | None) -> frozenset[VirtualKey]:
        """The virtual servers, among `keys` or all of them if None, that are not as planned."""
        left = self._programmed
        if left is None:
            return frozenset()  # the next pass looks at all of them
        if keys is None:
            size = len(left.virtual_servers) + len(wanted.virtual_servers)
            return await compute(size, partial(changed_virtual_servers, left, wanted))
        return changed_virtual_servers(left.part(keys), wanted.part(keys))

    async def _report_repairs(
        self,
        keys: frozenset[VirtualKey] | None,
        observed: Table,
        operations: Sequence[Operation],
        failures: Sequence[OperationFailure],
    ) -> None:
        """Report operations that reverted changes made outside vipmesh, as opposed to planned ones."""
        # Compared with what the last pass left, not with its plan: draining backends are in the table but in no plan.
        refused = frozenset(failure.operation for failure in failures)
        detect = partial(detect_repairs, self._programmed, keys, observed, operations, refused)
        repairs, self._programmed = await compute(len(observed.virtual_servers) + len(operations), detect)
        self._conditions.report_repairs(repairs)

    async def _read_and_drain(self, planned: Plan, keys: frozenset[VirtualKey] | None) -> tuple[Table, Table]:
        """The virtual servers `keys` as they are, and as they must be now: the plan, plus backends that still drain."""
        desired = planned.table if keys is None else planned.table.part(keys)
        there = await self._plane.read(keys)
        size = len(there.virtual_servers) + len(desired.virtual_servers)
        observed = await compute(size, partial(reuse_equal_servers, there, desired))
        going = removed_backends(observed, desired)
        counts = await self._plane.connections({virtual for virtual, _ in going}) if going else {}
        drained = drain_removed(
            observed,
            desired,
            failed=planned.failed,
            answering=planned.draining,
            connections=counts,
            since=self.draining,
            now=asyncio.get_running_loop().time(),
            timeout=self._drain_timeout,
        )
        self.draining, self.connections_left = drained.since, counts
        return observed, drained.table

    async def _publish_names(self, names: Mapping[Name, ServicePlan]) -> None:
        if names != self.names:
            effort = _RECORDS_OF_A_NAME * len(changed_keys(self.names, names))
            await compute(effort, partial(self._publish, names))
            self.names = names
