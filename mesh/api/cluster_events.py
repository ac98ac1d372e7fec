"""Past events of all workers in one document: what each has answered, merged by time. Pure.

An answer comes from another process, perhaps of another version. Each event of it passes the same bounds as this
worker's own ones; an event that does not is left out and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

import msgspec

from mesh.api.past_events import PastEventsDocument
from mesh.model.codes import Code
from mesh.model.past_event import MAX_EVENT_NAMES, MAX_EVENT_TEXT, NumberedEvent, PastEvent, bounded_text

MAX_MERGED_EVENTS = 20_000
"""The most events of a document; the newest ones stay."""
CLOCK_DIFFERENCE = 1.0
"""Seconds from which on the difference of two clocks is told."""
_LATEST = 1e12
_TEXTS = tuple(
    name
    for name in PastEvent.__struct_fields__
    if name not in ("at", "kind", "names", "ports", "exit_code", "out_of_memory")
)


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event as one of the workers keeps it."""

    number: int
    """Its number on that worker."""
    event: PastEvent
    worker: str
    """The worker that noticed and kept it."""


@dataclass(frozen=True, slots=True)
class AskedWorker:
    """What came of asking a worker for its events."""

    worker: str
    clock: float | None = None
    """Seconds by which its clock is ahead of that of the worker that asked, if they differ by more than a second for
    certain; None if they do not, or if it did not answer.
    """
    error: str | None = None
    """Why its events are missing, and what to do; None if they are here."""
    code: str | None = None
    """The code of the error."""
    unreadable: int = 0
    """Events of it that this worker cannot read, as those of a later version."""


@dataclass(frozen=True, slots=True)
class ClusterEventsDocument:
    """The document of `vipmesh events --json` for all workers."""

    worker: str
    """The worker that asked the others."""
    now: float
    """The time on its clock, in seconds since 1970."""
    events: tuple[KeptEvent, ...] = ()
    """The events in the order of their times by the clock of each worker, the oldest first."""
    workers: tuple[AskedWorker, ...] = ()
    """All workers of the cluster: the one that asked, then the others by name."""
    dropped: int = 0
    """The oldest events, which were left out because there are too many."""


class WorkerAnswer(NamedTuple):
    """The events of one worker, and the result of the request for them."""

    asked: AskedWorker
    events: tuple[KeptEvent, ...] = ()


class _PeerEvent(msgspec.Struct, frozen=True):
    number: int
    event: msgspec.Raw


class _PeerDocument(msgspec.Struct, frozen=True):
    now: float
    events: tuple[_PeerEvent, ...] = ()


def own_answer(document: PastEventsDocument) -> WorkerAnswer:
    """Return the answer of the worker that asks."""
    kept = tuple(KeptEvent(each.number, each.event, document.worker) for each in document.events)
    return WorkerAnswer(AskedWorker(document.worker), kept)


def read_answer(worker: str, body: bytes, sent: float, received: float) -> WorkerAnswer:
    """Return what another worker has answered between two times on this worker's clock.

    Raises `ValueError` if it is no document of events.
    """
    try:
        document = msgspec.json.decode(body, type=_PeerDocument)
    except RecursionError as error:
        raise ValueError("its answer is nested too deeply") from error
    read = [_event(each) for each in document.events[-MAX_MERGED_EVENTS:]]
    kept = tuple(KeptEvent(each.number, each.event, worker) for each in read if each is not None)
    clock = _ahead(document.now, sent, received)
    return WorkerAnswer(AskedWorker(worker, clock, unreadable=len(read) - len(kept)), kept)


def merge_newest(
    kept: Sequence[KeptEvent], more: Sequence[KeptEvent], most: int = MAX_MERGED_EVENTS
) -> list[KeptEvent]:
    """Return the newest events of both, at most `most`, in no order."""
    both = [*kept, *more]
    return both if len(both) <= most else nlargest(most, both, key=_when)


def cluster_document(
    own: PastEventsDocument, events: Iterable[KeptEvent], workers: Iterable[AskedWorker], dropped: int
) -> ClusterEventsDocument:
    """Return the document of the worker that asked."""
    others = sorted(workers, key=lambda asked: asked.worker)
    ordered = tuple(sorted(events, key=_when))
    return ClusterEventsDocument(own.worker, own.now, ordered, (AskedWorker(own.worker), *others), dropped)


def missing(worker: str, reason: str, code: Code) -> WorkerAnswer:
    """Return that a worker did not answer, and why."""
    return WorkerAnswer(AskedWorker(worker, error=reason, code=str(code)))


def _when(kept: KeptEvent) -> tuple[float, str, int]:
    return kept.event.at, kept.worker, kept.number


def _ahead(now: float, sent: float, received: float) -> float | None:
    """Return by how much a clock is ahead that showed `now` between two times of this one; None within a second.

    Half of the way there and back is not known (RFC 5905, section 8, has the same bound).
    """
    if not -_LATEST < now < _LATEST:
        raise ValueError("its clock shows no time")
    ahead = now - (sent + received) / 2
    return round(ahead, 1) if abs(ahead) - abs(received - sent) / 2 > CLOCK_DIFFERENCE else None


def _event(numbered: _PeerEvent) -> NumberedEvent | None:
    """Return an event within the bounds; None if it cannot be read."""
    try:
        event = msgspec.json.decode(numbered.event, type=PastEvent)
    except (ValueError, RecursionError):
        return None
    if not (0 <= numbered.number < 1 << 62 and -_LATEST < event.at < _LATEST):
        return None
    changed: dict[str, object] = {}
    for name in _TEXTS:
        text = getattr(event, name)
        if text is not None and (len(text) > MAX_EVENT_TEXT or not text.isprintable()):
            changed[name] = bounded_text(text)
    if event.names or event.ports:
        changed["names"] = tuple(map(bounded_text, event.names[:MAX_EVENT_NAMES]))
        changed["ports"] = event.ports[:MAX_EVENT_NAMES]
    return NumberedEvent(numbered.number, msgspec.structs.replace(event, **changed) if changed else event)
