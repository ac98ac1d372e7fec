"""The current conditions of the control loop: problems, unavailable parts, refused operations and repairs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.dataplane import OperationFailure
from mesh.dataplane.operations import Operation
from mesh.model.codes import Code
from mesh.model.part import ProblemPart
from mesh.model.problem import Problem
from mesh.model.service_scaling import ServiceScaling
from mesh.util.bulkhead import INTERNAL_ERRORS, InternalErrors
from mesh.util.conditions import Conditions

log = logging.getLogger("vipmesh")

MAX_REPAIR_LINES = 20
"""Lines in the log for one repair."""


@dataclass(slots=True)
class LoopConditions(Conditions):
    """Keeps the conditions of the control loop, those of the data plane included."""

    failures: tuple[OperationFailure, ...] = ()
    """Operations that the data plane refused in the last pass."""
    acting: str | None = None
    """The worker whose daemon acts for the swarm; None if that is not known, or there is no swarm."""
    scaling: tuple[ServiceScaling, ...] = ()
    """The last decision of autoscaling on each service; empty while another daemon acts for the swarm."""
    repairs: int = 0
    """The number of outside changes that were repaired since the start."""
    internal_errors: InternalErrors = INTERNAL_ERRORS
    """The errors that the bulkheads of this process have caught."""

    def current_problems(self) -> Mapping[str, tuple[Problem, ...]]:
        """Return the problems of all parts, internal errors included."""
        internal = self.internal_errors.problems()
        return {**self.problems, ProblemPart.INTERNAL: internal} if internal else dict(self.problems)

    def set_failures(self, failures: Sequence[OperationFailure]) -> None:
        """Replace `failures` by the operations that the data plane refuses now, and log the new ones."""
        for failure in failures:
            if failure not in self.failures:
                log.error("data plane: %s", failure.coded, extra=failure.reason.code.extra)
        self.failures = tuple(failures)

    def report_repairs(self, operations: Sequence[Operation]) -> None:
        """Count and log operations that reverted changes made outside vipmesh."""
        self.repairs += len(operations)
        for operation in operations[:MAX_REPAIR_LINES]:
            log.warning(
                "repaired: the data plane was changed outside vipmesh: %s", operation, extra=Code.CHANGED_OUTSIDE.extra
            )
        if len(operations) > MAX_REPAIR_LINES:
            log.warning(
                "repaired: the data plane was changed outside vipmesh: %d more operations",
                len(operations) - MAX_REPAIR_LINES,
                extra=Code.CHANGED_OUTSIDE.extra,
            )

    def upkeep_done(self, lines: Sequence[str], *, first: bool) -> None:
        """Log the host settings that were set up (`first`) or repaired, one line each; count the repairs."""
        for line in lines:
            if first:
                log.info("set up: %s", line)
            else:
                log.warning("repaired: %s", line, extra=Code.CHANGED_OUTSIDE.extra)
        self.repairs += 0 if first else len(lines)
