"""Converts instances to the services and endpoints that this worker registers.

Instances of one owner (`project/service`) are endpoints of one service. Their labels should be the same; while they
differ, as during an update, the service is registered as most instances of this worker declare it, and each endpoint
that differs carries its own declaration. `mesh.cluster.records.declarations` decides which one is in force.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mesh.cluster.records.declarations import most_common_declaration
from mesh.config.labels.parse import LABEL_PREFIXES, ParsedLabels, parse_labels
from mesh.config.labels.values import escape_unprintable
from mesh.config.values import Network
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, HostPort, Instance, Name, Service
from mesh.model.table import RealServer
from mesh.model.validation import MAX_TEXT, validate_place, validate_run, validate_service
from mesh.model.weight import effective_weight
from mesh.util.sized_cache import SizedCache

MAX_LABELS = 4096
"""The most labels of an instance, those that are not of the mesh included."""
MAX_CACHED_INSTANCES = 16_384
"""Instances that are not checked again."""
MAX_LABEL_CHARACTERS = 1 << 18
"""The most characters of all labels of the mesh on one instance: more are not parsed."""
LABEL_CACHE = 1 << 22
"""Characters of label sets that are not parsed again: a container that starts or stops must not cost as much as all of
them. Whoever starts containers chooses how long their labels are, so that their number would be no limit.
"""


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
            parsed, reason = _parsed(instance.labels, instance.owner, domain, pool, instance.runs_commands)
            reason = reason or _place_refusal_of(instance)
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


def _parsed(
    labels: Mapping[str, str], owner: str, domain: Name, pool: Network | None, commands: bool
) -> tuple[ParsedLabels, str | None]:
    """What the labels declare, and why that does not pass the gate; None if it does."""
    if len(labels) > MAX_LABELS:
        return _TOO_MANY
    # Labels with other prefixes mean nothing here: they take no room, and a change of them is none.
    known = tuple((key, value) for key, value in labels.items() if key.startswith(LABEL_PREFIXES))
    size = len(owner) + sum(len(key) + len(value) for key, value in known)
    key = (known, owner, domain, pool, commands)
    if (before := _CACHED_LABELS.get(key)) is not None:
        return before
    parsed = _parse(known, owner, domain, pool, commands) if size <= MAX_LABEL_CHARACTERS else _TOO_LONG
    _CACHED_LABELS.put(key, parsed, size + _ENTRY)
    return parsed


_CACHED_LABELS: SizedCache[object, tuple[ParsedLabels, str | None]] = SizedCache(LABEL_CACHE)
_ENTRY = 500
"""What an entry takes beside its labels, in characters."""
_TOO_MANY = ParsedLabels(None, RealServer(), None, ()), f"it has more than {MAX_LABELS} labels"
_TOO_LONG = (
    ParsedLabels(None, RealServer(), None, ()),
    f"its labels of the mesh have more than {MAX_LABEL_CHARACTERS} characters",
)


def _parse(
    labels: tuple[tuple[str, str], ...], owner: str, domain: Name, pool: Network | None, commands: bool
) -> tuple[ParsedLabels, str | None]:
    parsed = parse_labels(
        dict(labels), owner=owner, subject=_subject(owner), domain=domain, pool=pool, commands=commands
    )
    try:
        if parsed.service is not None:
            validate_service(parsed.service)
    except ValueError as error:
        return parsed, str(error)
    return parsed, None


def _place_refusal_of(instance: Instance) -> str | None:
    """Why the instance itself does not pass the gate; None if it does."""
    at = (instance.port, instance.host_ports, instance.run)
    texts = (instance.id, instance.owner, instance.name or "", instance.address, instance.run or "")
    # Texts that are refused for their length must not fill the cache.
    check = _place_refusal if sum(map(len, texts)) <= 2 * MAX_TEXT else _place_refusal.__wrapped__
    return check(instance.id, instance.owner, instance.name, instance.address, at)


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
        effective_weight(parsed.settings.weight, instance.asked_weight),
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
        instance.asked_weight,
        parsed.slow_start,
        parsed.rules,
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
    name = owner.rpartition("/")[2]
    return f"service {name if name.isprintable() else escape_unprintable(name)}"
