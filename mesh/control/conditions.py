"""What holds now in the control loop: the conditions of its parts, and what the data plane refused or lost."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.dataplane import OperationFailure
from mesh.dataplane.operations import Operation
from mesh.model.codes import Code
from mesh.util.conditions import Conditions

log = logging.getLogger("vipmesh")

MAX_REPAIR_LINES = 20
"""Lines in the log for one repair."""


@dataclass(slots=True)
class LoopConditions(Conditions):
    """Keeps the conditions of the control loop, those of the data plane included."""

    failures: tuple[OperationFailure, ...] = ()
    """What the data plane would not do in the last pass."""
    repairs: int = 0
    """How many outside changes were repaired since the start."""

    def refused(self, failures: Sequence[OperationFailure]) -> None:
        """These are all the operations that the data plane refuses now."""
        for failure in failures:
            if failure not in self.failures:
                log.error("data plane: %s", failure.coded, extra=failure.reason.code.extra)
        self.failures = tuple(failures)

    def repaired(self, operations: Sequence[Operation]) -> None:
        """The plan is what it was, and yet there was something to do: somebody else has been here."""
        self.repairs += len(operations)
        for operation in operations[:MAX_REPAIR_LINES]:
            log.warning("repaired: somebody changed the data plane: %s", operation, extra=Code.CHANGED_OUTSIDE.extra)
        if len(operations) > MAX_REPAIR_LINES:
            log.warning(
                "repaired: %d operations more", len(operations) - MAX_REPAIR_LINES, extra=Code.CHANGED_OUTSIDE.extra
            )

    def mended(self, lines: Sequence[str], *, first: bool) -> None:
        """What the data plane stands on was set up (the first time), or somebody had changed it."""
        for line in lines:
            if first:
                log.info("set up: %s", line)
            else:
                log.warning("repaired: %s", line, extra=Code.CHANGED_OUTSIDE.extra)
        self.repairs += 0 if first else len(lines)
