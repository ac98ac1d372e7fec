"""Converts instances to the services and endpoints that this worker registers.

Instances of one owner (`project/service`) are endpoints of one service. Their labels should be the same; while they
differ, as during an update, the service is registered as most instances of this worker declare it, and each endpoint
that differs carries its own declaration. `mesh.cluster.records.declarations` decides which one is in force.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mesh.cluster.records.declarations import most_common_declaration
from mesh.config.labels.parse import ParsedLabels, parse_labels
from mesh.config.values import Network
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, HostPort, Instance, Name, Service
from mesh.model.validation import MAX_TEXT, validate_place, validate_run, validate_service

MAX_LABELS = 4096
"""The most labels of an instance, those that are not of the mesh included."""
MAX_CACHED_INSTANCES = 16_384
"""Instances that are not checked again."""
MAX_CACHED_LABEL_SETS = 4096
"""Label sets that are not parsed again: a container that starts or stops must not cost as much as all of them."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The services and endpoints that a worker registers."""

    services: tuple[Service, ...]
    """The services in order of `owner`."""
    endpoints: tuple[Endpoint, ...]
    """The endpoints in order of `id`."""
    problems: tuple[tuple[Instance, Problem], ...]
    """Each problem once per owner, with an instance that has it, so that its source can locate it."""
    failed: tuple[tuple[Instance, Exception], ...] = ()
    """Instances whose labels raised an unexpected exception. They are left out; the others are registered."""


def register_instances(
    instances: Sequence[Instance], *, worker: str, domain: Name, pool: Network | None
) -> Registration:
    """Parse the labels of all instances. Instances without routes become no endpoints, which is not a problem."""
    found: list[tuple[Instance, ParsedLabels, Service]] = []
    declared: dict[str, list[Service]] = {}
    problems: dict[tuple[str, Problem], Instance] = {}
    failed: list[tuple[Instance, Exception]] = []
    for instance in sorted(instances, key=lambda instance: instance.id):
        try:
            parsed, reason = _parsed(
                tuple(instance.labels.items()), instance.owner, domain, pool, instance.runs_commands
            )
            reason = reason or _place_refusal(
                instance.id,
                instance.owner,
                instance.name,
                instance.address,
                (instance.port, instance.host_ports, instance.run),
            )
        except Exception as error:  # noqa: BLE001 -- one container is left out, and reported
            failed.append((instance, error))
            continue
        if reason is not None:
            problems.setdefault((instance.owner, _unusable(instance.owner, reason)), instance)
            continue
        for problem in parsed.problems:
            problems.setdefault((instance.owner, problem), instance)
        if parsed.service is None:
            continue
        found.append((instance, parsed, parsed.service))
        declared.setdefault(instance.owner, []).append(parsed.service)
    services = {owner: most_common_declaration(each) for owner, each in declared.items()}
    return Registration(
        tuple(services[owner] for owner in sorted(services)),
        tuple(
            _endpoint(instance, worker, parsed, None if _is_same(service, services[instance.owner]) else service)
            for instance, parsed, service in found
        ),
        tuple((instance, problem) for (_, problem), instance in problems.items()),
        tuple(failed),
    )


@lru_cache(MAX_CACHED_LABEL_SETS)
def _parsed(
    labels: tuple[tuple[str, str], ...], owner: str, domain: Name, pool: Network | None, commands: bool
) -> tuple[ParsedLabels, str | None]:
    """What the labels declare, and why that does not pass the gate; None if it does."""
    parsed = parse_labels(
        dict(labels), owner=owner, subject=_subject(owner), domain=domain, pool=pool, commands=commands
    )
    try:
        if len(labels) > MAX_LABELS:
            raise ValueError(f"it has more than {MAX_LABELS} labels")
        if parsed.service is not None:
            validate_service(parsed.service)
    except ValueError as error:
        return parsed, str(error)
    return parsed, None


@lru_cache(MAX_CACHED_INSTANCES)
def _place_refusal(
    id: str,
    owner: str,
    name: str | None,
    address: Address,
    at: tuple[int | None, tuple[HostPort, ...], str | None],
) -> str | None:
    """Why the instance itself does not pass the gate; None if it does. `at`: port, mapped ports, run."""
    port, host_ports, run = at
    mapped = (each for mapping in host_ports for each in (mapping.container_port, mapping.port))
    try:
        validate_place(id, owner, name, address, (port, *mapped))
        if run is not None:
            validate_run(run)
    except ValueError as error:
        return str(error)
    return None


def _is_same(service: Service, other: Service) -> bool:
    return service is other or service == other


def _endpoint(instance: Instance, worker: str, parsed: ParsedLabels, declared: Service | None) -> Endpoint:
    return Endpoint(
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
        instance.run,
        declared,
    )


def _unusable(owner: str, reason: str) -> Problem:
    return Problem(
        Code.CONTAINER_UNUSABLE,
        Severity.ERROR,
        _subject(owner[:MAX_TEXT]),
        f"one of its instances cannot be used: {reason}",
        "correct its labels, its name or its address",
    )


def _subject(owner: str) -> str:
    return f"service {owner.rpartition('/')[2]}"
