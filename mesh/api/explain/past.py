"""Explains what is gone, from past events. Pure.

What is there now is never called gone: an endpoint in the view is left out, whatever the events say.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mesh.api.explain.document import Cause, Reason
from mesh.api.explain.question import ExplainQuery
from mesh.api.past_events import is_about_endpoint, is_about_service
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.model.service import DrainReason, EndpointKey, Name
from mesh.model.view import ClusterView

RECENT = 86400.0
"""Seconds for which a service is said to have lost an endpoint."""
LOOP = 3
"""The number of ends within `LOOP_WINDOW` from which on a container is said to end again and again."""
LOOPING = "it has started and ended"
"""What begins the text about a container that ends again and again."""
LOOP_WINDOW = 900.0
"""Seconds before its last end in which the ends of a container are counted."""
MAX_GONE = 10
"""The most services, and the most endpoints of one service, that are explained one by one."""

_LAST_WORDS = frozenset(
    {
        EventKind.ENDPOINT_FAILED,
        EventKind.ENDPOINT_DRAINED,
        EventKind.CONTAINER_DIED,
    }
)
"""Kinds of events that say why an endpoint is gone."""
_DRAINS: Mapping[str | None, str] = {
    DrainReason.ASKED: "an operator drained it",
    DrainReason.MAINTENANCE: "an operator put it in maintenance",
    DrainReason.STOPPING: "its container was being stopped",
    DrainReason.PAUSED: "its container was paused",
    DrainReason.UNREACHABLE: "it was out of reach",
}
_COME = frozenset({EventKind.ENDPOINT_CAME, EventKind.ENDPOINT_RESTARTED})


@dataclass(frozen=True, slots=True)
class KeptEvents:
    """The past events of a worker, to explain from."""

    events: tuple[NumberedEvent, ...] = ()
    """All kept events, the oldest first."""
    now: float = 0.0
    """The time, in seconds since 1970."""


NO_EVENTS = KeptEvents()


def gone_reasons(question: ExplainQuery, past: KeptEvents, view: ClusterView, domain: Name) -> Iterator[Reason]:
    """Yield what became of the services, endpoints and containers that are asked about and are not there any more."""
    services = {service.owner for service in view.services}
    owners: dict[str, PastEvent] = {}
    endpoints: dict[EndpointKey, list[PastEvent]] = {}
    for event in (each.event for each in past.events):
        if event.owner is not None and event.owner not in services and is_about_service(question, event, domain):
            owners[event.owner] = event
        key = _key(event)
        if key is not None and key not in view.by_key and is_about_endpoint(question, event):
            endpoints.setdefault(key, []).append(event)
    for owner in [*owners][-MAX_GONE:]:
        yield from _gone_service(owner, past, view)
    for story in [*endpoints.values()][-MAX_GONE:]:
        if (reason := _gone_endpoint(story, past.now)) is not None and story[-1].owner not in owners:
            yield reason


def gone_endpoints(owner: str, past: KeptEvents, view: ClusterView) -> tuple[Reason, ...]:
    """Return what became of the endpoints that a service lacks, compared with the most that it had lately.

    A service whose endpoints were replaced by as many others lacks none.
    """
    stories: dict[EndpointKey, list[PastEvent]] = {}
    there: set[EndpointKey] = set()
    most = 0
    for event in (each.event for each in past.events):
        key = _key(event)
        if event.owner != owner or key is None:
            continue
        stories.setdefault(key, []).append(event)
        if event.kind is EventKind.ENDPOINT_CAME:
            there.add(key)
        elif event.kind is EventKind.ENDPOINT_GONE:
            # Its arrival may be older than all kept events.
            most = max(most, len(there | {key})) if event.at >= past.now - RECENT else most
            there.discard(key)
    group = view.groups.get(owner)
    lacking = most - (0 if group is None else len(group.endpoints))
    gone = [
        story
        for key, story in stories.items()
        if key not in view.by_key and any(each.kind is EventKind.ENDPOINT_GONE for each in story)
    ]
    gone.sort(key=lambda story: story[-1].at)
    latest = gone[-min(lacking, MAX_GONE) :] if lacking > 0 else []
    return tuple(reason for story in latest if (reason := _gone_endpoint(story, past.now)) is not None)


def _gone_service(owner: str, past: KeptEvents, view: ClusterView) -> Iterator[Reason]:
    """Yield the end of a service, and of its last endpoints."""
    story = [each.event for each in past.events if each.event.owner == owner]
    end = next((event for event in reversed(story) if event.kind is EventKind.SERVICE_GONE), None)
    last = end or story[-1]
    called = next((event.service for event in reversed(story) if event.service is not None), owner)
    text = f"{called} ({owner}) is gone: no worker declares it any more, {_ago(last.at, past.now)}"
    vip = next((event.vip for event in reversed(story) if event.vip is not None), None)
    text += f"; its VIP was {vip}" if vip is not None else ""
    lost = gone_endpoints(owner, past, view)
    again = "" if any(LOOPING in reason.text for reason in lost) else "start it again; "
    yield Reason(Cause.GONE, text, f"{again}`vipmesh events {owner}` shows what happened")
    yield from lost


def _gone_endpoint(story: Sequence[PastEvent], now: float) -> Reason | None:
    """Return what became of one endpoint, from its events, the oldest first; None if it is not said to be gone."""
    begin = max((n for n, event in enumerate(story) if event.kind in _COME), default=0)
    life = story[begin:]
    end = next((event for event in reversed(life) if event.kind is EventKind.ENDPOINT_GONE), None)
    died = next((event for event in reversed(life) if event.kind is EventKind.CONTAINER_DIED), None)
    last = end or died
    if last is None:
        return None
    called = last.name or last.endpoint
    of = f" of {last.service}" if last.service is not None else ""
    words = "; ".join(_last_words(life))
    text = f"{called}{of} on {last.worker} is gone, {_ago(last.at, now)}{f': {words}' if words else ''}"
    about = f"{last.worker}/{last.endpoint}"
    if (loop := _loop(story)) is not None:
        remedy = f"it does not stay up: see its log on {last.worker} (`docker logs {called}`)"
        return Reason(Cause.GONE, f"{text}; {loop}", remedy, about)
    return Reason(Cause.GONE, text, f"`vipmesh events {called}` shows what happened", about)


def _loop(story: Sequence[PastEvent]) -> str | None:
    """Return how often an endpoint has ended lately, and how last; None if that is not again and again."""
    deaths = [event for event in story if event.kind is EventKind.CONTAINER_DIED]
    ends = deaths or [event for event in story if event.kind is EventKind.ENDPOINT_GONE]
    recent = [event for event in ends if event.at >= ends[-1].at - LOOP_WINDOW]
    if len(recent) < LOOP:
        return None
    since = datetime.fromtimestamp(recent[0].at, UTC)
    how = f", last with {deaths[-1].reason}" if deaths and deaths[-1].reason else ""
    return f"{LOOPING} {len(recent)} times since {since:%H:%M:%S} UTC{how}"


def _last_words(life: Iterable[PastEvent]) -> Iterator[str]:
    """Yield why an endpoint is gone: the last failure, drain and end of its process."""
    last = {event.kind: event for event in life if event.kind in _LAST_WORDS}
    for kind in sorted(last, key=lambda kind: last[kind].at):
        event = last[kind]
        match kind:
            case EventKind.ENDPOINT_FAILED:
                yield f"its probe failed: {event.reason}" if event.reason else "its probe failed"
            case EventKind.ENDPOINT_DRAINED:
                by = f" ({event.by})" if event.by else ""
                yield f"{_DRAINS.get(event.reason, 'it was drained')}{by}"
            case _:
                yield f"its process ended: {event.reason}" if event.reason else "its process ended"


def _key(event: PastEvent) -> EndpointKey | None:
    return None if event.worker is None or event.endpoint is None else (event.worker, event.endpoint)


def drained_by(key: EndpointKey, past: KeptEvents) -> str | None:
    """Return who drained an endpoint last, from the events of its own worker; None if that is not known."""
    for event in (each.event for each in reversed(past.events)):
        if _key(event) == key and event.kind is EventKind.ENDPOINT_DRAINED:
            return event.by
    return None


def describe_time(at: float, now: float) -> str:
    """Return a time and how long ago it was: `2026-11-30 14:02:40 UTC, 5 min ago`."""
    return _ago(at, now).removeprefix("at ")


def _ago(at: float, now: float) -> str:
    """Return a time and how long ago it was: `at 2026-11-30 14:02:40 UTC, 5 min ago`."""
    seconds = max(0.0, now - at)
    age = f"{seconds / 3600:.0f} h"
    if seconds < 7200:
        age = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC, {age} ago"
