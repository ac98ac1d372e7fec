"""Past events as documents: those about a name, and when they were noticed. Pure.

The document has the worker that kept the events and the time on its clock, so that the documents of several workers can
be merged by time, and the difference of their clocks told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from mesh.api.explain.question import ExplainQuery, is_address, parse_question
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.model.service import Name

_SHORT = 12
"""The characters of the ID of a container in the ID of its endpoint."""
_ID = 4
"""The shortest beginning of a container id that is understood, in characters."""


@dataclass(frozen=True, slots=True)
class PastEventsDocument:
    """The document of `vipmesh events --json`."""

    worker: str
    """The worker that noticed and kept the events."""
    now: float
    """The time on its clock, in seconds since 1970."""
    events: tuple[NumberedEvent, ...] = ()
    """The events, the oldest first."""


def events_about(asked: str, events: Sequence[NumberedEvent], domain: Name) -> tuple[NumberedEvent, ...]:
    """Return the events about what is asked: a name, VIP, port, service, endpoint, container or worker.

    A question that finds a service by one of its events finds all events of the service and of its endpoints.
    `domain` completes a bare name.
    """
    question = parse_question(asked)
    events = attribute_deaths(events)
    owners = {each.event.owner for each in events if is_about_service(question, each.event, domain)} - {None}
    return tuple(
        each
        for each in events
        if each.event.owner in owners or is_about_endpoint(question, each.event) or each.event.worker == question.text
    )


def attribute_deaths(events: Sequence[NumberedEvent]) -> tuple[NumberedEvent, ...]:
    """Return the events, in which ends of containers that were no endpoint at that time are those of the endpoint that
    the container was at another time.

    A container that ends at once after each start is an endpoint in some of its lives only.
    """
    found: dict[tuple[str | None, str], PastEvent] = {}
    for event in (each.event for each in events):
        if event.endpoint is not None and event.owner is not None:
            found[event.worker, event.endpoint.rpartition("/")[2]] = event
    return tuple(_attributed(each, found) for each in events)


def _attributed(each: NumberedEvent, found: Mapping[tuple[str | None, str], PastEvent]) -> NumberedEvent:
    event = each.event
    if event.kind is not EventKind.CONTAINER_DIED or event.owner is not None or event.endpoint is None:
        return each
    was = found.get((event.worker, event.endpoint[:_SHORT]))
    if was is None:
        return each
    attributed = msgspec.structs.replace(event, owner=was.owner, service=was.service, endpoint=was.endpoint)
    return replace(each, event=attributed)


def is_about_endpoint(question: ExplainQuery, event: PastEvent) -> bool:
    """Return whether the event is about the endpoint or container that is asked about."""
    if event.endpoint is None or not question.text:
        return False
    short = event.endpoint.rpartition("/")[2]
    if question.text in (event.endpoint, short, event.name, f"{event.worker}/{event.endpoint}"):
        return True
    if question.host and event.address == question.host:
        return True
    return len(question.text) >= _ID and short.startswith(question.text)


def is_about_service(question: ExplainQuery, event: PastEvent, domain: Name) -> bool:
    """Return whether the event is about a service that is asked about, or about an endpoint of it."""
    if event.owner is None:
        return False
    if not question.host:
        return question.place.port is not None and question.place.port in event.ports
    if is_address(question.host):
        return event.vip == question.host
    names = {question.host, f"{question.host}.{domain}"} if "." not in question.host else {question.host}
    return (
        not names.isdisjoint((*event.names, event.service))
        or event.owner == question.text
        or event.owner.endswith(f"/{question.text}")
    )
