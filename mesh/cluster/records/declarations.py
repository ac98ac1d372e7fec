"""Decides which declaration of a service is in force while its instances declare different ones. Pure.

Clients share ports, scheduler, affinity and VIP: they are the same for all endpoints of a service, so one declaration
is in force for all. The declaration that has been in force stays until more than half of the serving instances declare
another one, or none of the serving instances declares it any more. So a newcomer changes nothing, and replacing the
instances one by one ends with the new declaration. Neither IDs nor names of workers decide.

The declaration that has been in force is in the store (`claims/declarations`), and the rest follows from the records of
the workers: all workers get the same result, also after a start.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import DrainReason, Endpoint, Health, Service

MAX_VALUE_LENGTH = 160
"""Characters of a differing value in a problem."""


class Standing(IntEnum):
    """How much an instance counts. Only instances of the highest standing that a service has decide."""

    WITHOUT_INSTANCE = 0
    """No instance: only a service record of a worker."""
    DRAINING = 1
    NOT_SERVING = 2
    """It does not answer, has not answered yet, or has weight 0."""
    SERVING = 3


class InstanceDeclaration(NamedTuple):
    """What the labels of one instance declare."""

    service: Service
    standing: Standing
    who: str
    """The instance, for messages."""
    release: str = ""
    """The release that it names; empty without one."""


def standing_of(endpoint: Endpoint, declared: Service, verdict: Health | None, kept: bool) -> Standing:
    """How much an endpoint counts. `verdict` is None before the first result of its probe; `kept`: it is unhealthy but
    stays in traffic.
    """
    if endpoint.drain not in (None, DrainReason.UNREACHABLE):
        return Standing.DRAINING
    health = endpoint.health if declared.probe is None else verdict or Health.STARTING
    serves = endpoint.weight > 0 and (health in (None, Health.HEALTHY) or kept)
    return Standing.SERVING if serves else Standing.NOT_SERVING


def choose_declaration(instances: Collection[InstanceDeclaration], before: Service | None) -> Service:
    """The declaration in force, with the probe that most of the deciding instances declare beside it.

    `instances` is not empty. `before` is the declaration that has been in force, None if that is not known.
    """
    highest = max(instance.standing for instance in instances)
    votes = Counter(instance.service for instance in instances if instance.standing is highest)
    shared: Counter[Service] = Counter()
    for service, count in votes.items():
        shared[service.shared] += count
    chosen = _most_common(shared)
    former = None if before is None else before.shared
    if former is not None and former in shared and 2 * shared[chosen] <= shared.total():
        chosen = former
    return _most_common(Counter({service: n for service, n in votes.items() if service.shared == chosen}))


def most_common_declaration(services: Iterable[Service]) -> Service:
    """The declaration that most instances have, for the record of their worker. `services` is not empty."""
    first, *others = services
    if all(service is first or service == first for service in others):
        return first  # nearly always, and much faster than to hash each
    return _most_common(Counter([first, *others]))


def difference_problems(instances: Iterable[InstanceDeclaration], in_force: Service) -> list[Problem]:
    """One problem for each declaration that differs in what clients share from the one in force."""
    differing: dict[Service, list[str]] = {}
    deciding: set[str] = set()
    for instance in instances:
        if instance.service is in_force or instance.service.shared == in_force.shared:
            if instance.standing is not Standing.WITHOUT_INSTANCE:
                deciding.add(instance.release)
        else:
            named = f"{instance.who}, release {instance.release}," if instance.release else instance.who
            differing.setdefault(instance.service.shared, []).append(named)
    whose = f", as release {', '.join(sorted(deciding))} declares" if all(deciding) and deciding else ""
    return [
        Problem(
            Code.LABELS_DIFFER_BETWEEN_INSTANCES,
            Severity.WARNING,
            f"service {in_force.owner}",
            f"{_some(differing[service])} declares {describe_difference(service, in_force)}{whose}",
            "start it again with the labels of the others, or replace the others too; its labels take effect when more "
            "than half of the serving instances have them",
            owner=in_force.owner,
        )
        for service in sorted(differing, key=lambda service: min(differing[service]))
    ]


def describe_difference(service: Service, in_force: Service) -> str:
    """The values of a declaration that differ from the one in force, in words."""
    own, others = _shared_values(service), _shared_values(in_force)
    return "; ".join(
        f"{what} {_cut(value)}, while {_cut(others[what])} is in force"
        for what, value in own.items()
        if value != others[what]
    )


def _most_common(votes: Counter[Service]) -> Service:
    """The service with most votes. Between equal numbers the content decides, since it is the same on all workers."""
    return max(votes, key=lambda service: (votes[service], _content_hash(service)))


def _content_hash(service: Service) -> bytes:
    content = msgspec.to_builtins(service, order="deterministic")
    return blake2b(msgspec.json.encode(content), digest_size=16).digest()


def _shared_values(service: Service) -> dict[str, str]:
    routes = sorted(f"{r.name}:{r.listen_port}/{r.transport} to port {r.container_port}" for r in service.routes)
    published = sorted(f"{p.port or 'auto'}/{p.transport} to port {p.container_port}" for p in service.publishes)
    return {
        "first name": service.name,
        "routes": ", ".join(routes) or "none",
        "published ports": ", ".join(published) or "none",
        "VIP": service.fixed_vip or "auto",
        "scheduler": service.scheduler.value,
        "client affinity": f"{service.persistence} s",
        "scheduler flags": ", ".join(sorted(service.flags)) or "none",
    }


def _some(who: list[str]) -> str:
    return min(who) if len(who) == 1 else f"{min(who)} (and {len(who) - 1} more)"


def _cut(value: str) -> str:
    return value if len(value) <= MAX_VALUE_LENGTH else f"{value[:MAX_VALUE_LENGTH]}..."
