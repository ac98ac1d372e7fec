"""Orders the services of a stack by what they need. Pure."""

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

from mesh.config.labels.values import escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.platform.stacks.model import StackAffinity, StackAffinityKind, StackCondition, StackNeed, StackService
from mesh.platform.stacks.values import PlainValue, StackKeys, StackValueError, parse_flag, parse_mapping, parse_text
from mesh.sources.compose.model import ComposeService

_CONDITIONS = {
    "service_started": StackCondition.STARTED,
    "service_healthy": StackCondition.SERVING,
    "service_completed_successfully": StackCondition.COMPLETED,
}


def read_needs(keys: StackKeys, written: ComposeService, depends: str | None) -> tuple[StackNeed, ...]:
    """Return the services that one needs, in order: the label `depends`, then `depends_on`, then `links`.

    Without a condition a service is waited for until it serves. A link waits for its start.
    """
    needs: dict[str, StackNeed] = {}
    for name in (depends or "").replace(";", ",").split(","):
        if name.strip():
            needs.setdefault(name.strip(), StackNeed(name.strip()))
    nothing: tuple[StackNeed, ...] = ()
    for need in keys.take("depends_on", _depends_on, nothing):
        needs.setdefault(need.service, need)
    for link in written.links:
        if link.key == "links" and link.target != written.name:
            needs.setdefault(link.target, StackNeed(link.target, StackCondition.STARTED))
    return tuple(needs.values())


def _depends_on(value: PlainValue) -> tuple[StackNeed, ...]:
    if isinstance(value, list):
        return tuple(StackNeed(parse_text(item)) for item in value)
    return tuple(_need(name, below) for name, below in parse_mapping(value).items())


def _need(name: str, value: PlainValue) -> StackNeed:
    if value is None:
        return StackNeed(name)
    details = parse_mapping(value)
    condition = parse_text(details.get("condition") or "service_healthy")
    if condition not in _CONDITIONS:
        raise StackValueError(f"{quote_value(condition)} is no condition", f"write {' or '.join(_CONDITIONS)}")
    return StackNeed(name, _CONDITIONS[condition], parse_flag(details.get("required") or "true"))


def order_services(
    services: Mapping[str, StackService], active: Collection[str], refused: Collection[str]
) -> tuple[list[StackService], list[Problem]]:
    """Return the services in the order of creation, without those that wait for one another in a circle, and why.

    The order is that of the files as far as it can be. `active` are all names of the files that take part, `refused`
    those that stay as they are: a service waits for what runs of them.
    """
    problems: list[Problem] = []
    left = dict(services)
    for service in services.values():
        wanted = [StackNeed(each.name) for each in service.affinities if _is_beside(each)]
        missing = [need for need in (*service.needs, *wanted) if need.service not in {*active, *refused}]
        for need in missing:
            severity = Severity.ERROR if need.is_required else Severity.WARNING
            reason = f"it needs service {escape_unprintable(need.service)}, which is not in the files or not active"
            problems.append(_problem(service, reason, "add that service, or remove the need", severity))
            if need.is_required:
                left.pop(service.name, None)
    while circle := _circle(left):
        names = " -> ".join(map(escape_unprintable, circle))
        for name in set(circle):
            reason = f"services wait for one another: {names}"
            problems.append(_problem(left.pop(name), reason, "remove one of these needs", Severity.ERROR))
    return _in_order(left), sorted(problems, key=str)


def _is_beside(affinity: StackAffinity) -> bool:
    return affinity.is_together and affinity.kind is StackAffinityKind.SERVICE


def _problem(service: StackService, reason: str, remedy: str, severity: Severity) -> Problem:
    subject = f"service {escape_unprintable(service.name)}"
    return Problem(Code.STACK_NEED, severity, subject, reason, remedy, where=service.where)


def _needed(service: StackService) -> list[str]:
    """Return the services that come before one: those that it needs, and those that it runs beside."""
    return [
        *(need.service for need in service.needs),
        *(each.name for each in service.affinities if _is_beside(each) and each.name != service.name),
    ]


def _circle(services: Mapping[str, StackService]) -> list[str]:
    """Return the names of a circle, the first one again at its end; empty if there is none."""
    graph = {name: [needed for needed in _needed(service) if needed in services] for name, service in services.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def _in_order(services: Mapping[str, StackService]) -> list[StackService]:
    """Return the services in the order of the files, each as soon as all that it needs are before it."""
    ordered: list[StackService] = []
    done: set[str] = set()
    waiting = dict(services)
    while waiting:
        ready = [
            name
            for name, service in waiting.items()
            if all(needed in done or needed not in services for needed in _needed(service))
        ]
        if not ready:  # there is no circle any more, so this is not reached
            break
        ordered.extend(waiting.pop(name) for name in ready)
        done.update(ready)
    return ordered
