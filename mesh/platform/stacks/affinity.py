"""Affinities as constraints over labels of workers: `mesh.runs.<project>.<service>` is on each worker that runs one.

The engine compares labels of workers and moves instances whose constraint no longer holds. The acting daemon keeps the
labels (`mesh.platform.stacks.placing`). Pure.
"""

import hashlib
from collections.abc import Iterable

from mesh.platform.stacks.model import Stack, StackAffinity, StackAffinityKind, StackService

RUNS_PREFIX = "mesh.runs."
RUNS = "true"
"""The value of such a label."""
_CONSTRAINT = f"node.labels.{RUNS_PREFIX}"
_OF_LABELS = "_"
"""In the place of a project, which begins with a letter or a digit."""


def runs_service(project: str, service: str) -> str:
    """Return the label of workers that run a service."""
    return f"{RUNS_PREFIX}{project}.{service}"


def runs_label(key: str, value: str) -> str:
    """Return the label of workers that run a container with a label of this value, of any project."""
    digest = hashlib.sha256(f"{key}={value}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{RUNS_PREFIX}{_OF_LABELS}.{digest[:16]}"


def constrained_labels(constraints: Iterable[str]) -> frozenset[str]:
    """Return the labels `mesh.runs.*` that constraints compare."""
    return frozenset(
        constraint.removeprefix("node.labels.").partition("!" if "!=" in constraint else "=")[0]
        for constraint in constraints
        if constraint.startswith(_CONSTRAINT)
    )


def placement_of(stack: Stack, service: StackService) -> tuple[list[str], int]:
    """Return the constraints of a service, and the most instances on one worker (0: any number).

    Two services that avoid each other have one constraint between them, that of the later one: with two, either would
    drive the other from worker to worker. A service that avoids itself has one instance on a worker.
    """
    constraints = list(service.constraints)
    most = service.most_per_worker
    for affinity in service.affinities:
        if not affinity.is_together and matches(affinity, service):
            most = 1
            others = [other for other in _before(stack, service) if matches(affinity, other)]
            constraints += [_constraint(runs_service(stack.project, other.name), "!=") for other in others]
        elif affinity.kind is StackAffinityKind.LABEL:
            constraints.append(_constraint(runs_label(affinity.name, affinity.value), _operator(affinity)))
        elif affinity.is_together or not _avoids_later(stack, service, affinity.name):
            constraints.append(_constraint(runs_service(stack.project, affinity.name), _operator(affinity)))
    return constraints, most


def matches(affinity: StackAffinity, service: StackService) -> bool:
    """Return whether a service is what an affinity names."""
    if affinity.kind is StackAffinityKind.SERVICE:
        return affinity.name == service.name
    return service.container.labels.get(affinity.name) == affinity.value


def _before(stack: Stack, service: StackService) -> list[StackService]:
    names = [each.name for each in stack.services]
    return list(stack.services[: names.index(service.name)]) if service.name in names else []


def _avoids_later(stack: Stack, service: StackService, name: str) -> bool:
    """Return whether a service that comes later avoids this one, too, and so has the constraint."""
    earlier = {each.name for each in _before(stack, service)}
    return any(
        other.name == name
        and other.name not in earlier
        and any(
            not each.is_together and each.kind is StackAffinityKind.SERVICE and each.name == service.name
            for each in other.affinities
        )
        for other in stack.services
    )


def _operator(affinity: StackAffinity) -> str:
    return "==" if affinity.is_together else "!="


def _constraint(label: str, operator: str) -> str:
    return f"node.labels.{label}{operator}{RUNS}"
