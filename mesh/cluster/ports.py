"""The parts of the control loop that this package depends on."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from mesh.cluster.claims import ClaimRequest
from mesh.model.errors import MeshError
from mesh.model.problem import Problem
from mesh.model.view import ClusterView

Decide: TypeAlias = Callable[[ClusterView], tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]]
"""The claims that the services of a view lack, and the problems of services that cannot have theirs."""


class ConditionReports(Protocol):
    """Takes current conditions. Every method may be called again with the same arguments."""

    def found(self, part: str, problems: Sequence[Problem]) -> None:
        """Replace the problems of this part; empty if it has none."""
        ...

    def froze(self, part: str, error: MeshError) -> None:
        """Report that this part does not answer; its last good state stays in force."""
        ...

    def thawed(self, part: str) -> None:
        """Report that this part answers."""
        ...
