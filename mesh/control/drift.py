"""Tells the repairs of a pass from its planned changes, and computes the table that the pass leaves.

A pass restores what the last pass had left and what was changed outside vipmesh since, and applies what is new in the
plan. Only the former is worth a warning.
"""

from collections.abc import Collection, Sequence

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.operations import Operation, OperationRefusedError, apply_operations
from mesh.model.table import Table, VirtualKey


def detect_repairs(
    left: Table | None,
    keys: Collection[VirtualKey] | None,
    observed: Table,
    operations: Sequence[Operation],
    refused: Collection[Operation],
) -> tuple[list[Operation], Table | None]:
    """The operations that were repairs, and the table that this pass has left.

    `left` is the table that the last pass left, None if it is not known. `observed` is what was read: the virtual
    servers `keys`, or all if None. A refused operation that would have restored something counts as done in the
    returned table, so that it is still reported as a repair when it succeeds. The table is None if the data plane was
    changed outside vipmesh during the pass.
    """
    before = left if left is None or keys is None else left.part(keys)
    restores = frozenset(diff_tables(observed, before)) if before is not None and before != observed else frozenset()
    repairs = [operation for operation in operations if operation in restores and operation not in refused]
    # A refused operation that would have restored something counts as applied, so that the next pass sees it as missing
    # again and reports it once it succeeds.
    try:
        now = apply_operations(observed, [o for o in operations if o in restores or o not in refused])
    except OperationRefusedError:
        return repairs, None  # the operations do not fit what was read: something else changed it meanwhile
    return repairs, now if keys is None or left is None else left.changed(keys, now)
