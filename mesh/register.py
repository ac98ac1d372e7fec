"""Instances -> what this worker offers to the others.

Instances of one owner (`project/service`) are endpoints of one service. Their labels should be the same; while they
differ, as during an update, the first instance's declaration of the service counts and each instance keeps its own
weight and release.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.config_values import Network
from mesh.labels import Parsed, parse
from mesh.model import Endpoint, Instance, Name, Service
from mesh.problem import Problem, Severity


@dataclass(frozen=True, slots=True)
class Registration:
    """What a worker offers."""

    services: tuple[Service, ...]
    """In order of `owner`."""
    endpoints: tuple[Endpoint, ...]
    """In order of `id`."""
    problems: tuple[tuple[Instance, Problem], ...]
    """Each problem once per owner, with an instance that has it, so that its source can say where."""


def register(instances: Sequence[Instance], *, worker: str, domain: Name, pool: Network | None) -> Registration:
    """Understand the labels of all instances. Those that nothing routes to are no endpoints, and no problem."""
    services: dict[str, tuple[Instance, Service]] = {}
    endpoints: list[Endpoint] = []
    problems: dict[tuple[str, Problem], Instance] = {}
    understood: dict[tuple[str, bool, frozenset[tuple[str, str]]], Parsed] = {}
    for instance in sorted(instances, key=lambda instance: instance.id):
        subject = f"service {instance.owner.rpartition('/')[2]}"
        commands = instance.runs_commands
        alike = (instance.owner, commands, frozenset(instance.labels.items()))  # of most instances of an owner
        parsed = understood.get(alike) or parse(
            instance.labels, owner=instance.owner, subject=subject, domain=domain, pool=pool, commands=commands
        )
        understood[alike] = parsed
        for problem in parsed.problems:
            problems.setdefault((instance.owner, problem), instance)
        if parsed.service is None:
            continue
        first, declared = services.setdefault(instance.owner, (instance, parsed.service))
        if declared != parsed.service:
            problems.setdefault((instance.owner, _differs(subject, first)), instance)
        endpoints.append(
            Endpoint(
                instance.id,
                instance.owner,
                worker,
                instance.address,
                instance.port,
                parsed.settings.weight,
                parsed.release,
                parsed.settings.forwarding,
                parsed.settings.upper_threshold,
                parsed.settings.lower_threshold,
                instance.host_ports,
                instance.health,
                instance.drain,
                instance.name,
            )
        )
    return Registration(
        tuple(services[owner][1] for owner in sorted(services)),
        tuple(endpoints),
        tuple((instance, problem) for (_, problem), instance in problems.items()),
    )


def _differs(subject: str, first: Instance) -> Problem:
    return Problem(
        Severity.WARNING,
        subject,
        f"its labels declare another service than those of {first.id}, which count",
        "give all instances of a service the same routing and probe labels",
    )
