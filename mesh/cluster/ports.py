"""What the parts of this package ask of the control loop."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from mesh.cluster.claims import ClaimRequest
from mesh.model.errors import MeshError
from mesh.model.problem import Problem
from mesh.model.view import ClusterView

Decide: TypeAlias = Callable[[ClusterView], tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]]
"""The claims that the services of a view lack, and the problems of services that cannot have theirs."""


class ConditionReports(Protocol):
    """Takes what holds now; every method may be called with the same again."""

    def found(self, part: str, problems: Sequence[Problem]) -> None:
        """These are all the problems that this part finds now; empty: none."""
        ...

    def froze(self, part: str, error: MeshError) -> None:
        """This part does not answer; its last good state stays in force."""
        ...

    def thawed(self, part: str) -> None:
        """This part answers."""
        ...
