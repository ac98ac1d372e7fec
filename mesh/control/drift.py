"""What of a pass was a repair, and what the pass has left behind.

A pass restores what the last one had left where somebody else changed it, and makes what the plan newly asks for. Only
the former is worth a warning.
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

    `left` is what the last pass has left, None if that is not known; `observed` what was read, of the virtual servers
    `keys` or (None) of all. A refused operation that would have restored something is still owed: to be told when it
    succeeds, it counts as done in the table. That is None if somebody else was at it at the same time.
    """
    before = left if left is None or keys is None else left.part(keys)
    restores = frozenset(diff_tables(observed, before)) if before is not None and before != observed else frozenset()
    repairs = [operation for operation in operations if operation in restores and operation not in refused]
    try:
        now = apply_operations(observed, [o for o in operations if o in restores or o not in refused])
    except OperationRefusedError:
        return repairs, None
    return repairs, now if keys is None or left is None else left.changed(keys, now)
