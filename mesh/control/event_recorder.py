"""Records what happens on this worker: looks after each pass, and keeps the events in a ring on disk.

Looks are batched: a pass is recorded at most a fraction of a second later, together with all changes until then. A ring
that cannot be written loses events and nothing else. Events that wait for the disk are bounded. While the ring cannot
be opened after the start, what happens is recorded from a first look on; what that look found new or gone is known as
soon as the ring says what was there before.
"""

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import msgspec

from mesh.control.conditions import LoopConditions
from mesh.control.past_events import (
    EventMoment,
    EventRecord,
    RecordedEndpoint,
    RecordedService,
    record_events,
    recording_effort,
)
from mesh.model.codes import Code
from mesh.model.part import ProblemPart
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent, bounded_text
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.problem import Problem, Severity
from mesh.store.event_ring import EventRing, EventRingError, RingBatch
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")

PAUSE = 0.25
"""Seconds between two looks; changes meanwhile are recorded together."""
ALIVE_INTERVAL = 30.0
"""Seconds after which the time is written although nothing happened, so that a gap is known after a crash."""
GAP = 90.0
"""Seconds without a look that count as a gap."""
SETTLE_TIME = 15.0
"""Seconds after the start in which an own endpoint that runs is not gone although it is not registered yet."""
RETRY = 10.0
"""Seconds until a ring that could not be written is written again."""
MAX_LINES = 50
"""The most lines in the log for one look; more events at once are counted, and `vipmesh events` has them."""
MAX_WAITING = 1000
"""The most events that wait for the disk; the oldest ones are lost first."""

_ALREADY_LOGGED = frozenset(
    {
        EventKind.CONFLICT,
        EventKind.LABEL_REFUSED,
        EventKind.PROBLEM_BEGAN,
        EventKind.REPAIRED,
        EventKind.GAP,
        EventKind.SERVICE_SCALED,
    }
)
"""Kinds of events whose lines in the log come from the part that found them."""
_SERVICE, _WORKERS = "service/", "workers"


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """The end of the process of a container, as its engine reports it."""

    id: str
    """The ID of the endpoint, or of the container if it is none."""
    name: str | None
    """The container's name; None if the engine did not say."""
    exit_code: int | None
    """None if the engine did not say."""
    out_of_memory: bool
    is_asked: bool = False
    """Whether the engine was told to end it."""


class ContainerExits:
    """Queues ends of containers, from the sources that notice them to the recorder."""

    def __init__(self) -> None:
        self._queue: deque[ContainerExit] = deque(maxlen=MAX_WAITING)
        self._followers: list[ContainerExits] = []

    def put(self, ended: ContainerExit) -> None:
        """Queue one; the oldest one is dropped if too many wait."""
        self._queue.append(ended)
        for follower in self._followers:
            follower.put(ended)

    def follow(self) -> "ContainerExits":
        """Return another queue, for another reader; it gets what is put from now on."""
        follower = ContainerExits()
        self._followers.append(follower)
        return follower

    def take(self) -> tuple[ContainerExit, ...]:
        """Return all that wait, the oldest first, and forget them."""
        found = tuple(self._queue)
        self._queue.clear()
        return found


class _WorkersState(msgspec.Struct, frozen=True):
    """The workers of an `EventRecord`, as the ring keeps them."""

    workers: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class EventRecorder:
    """Keeps the events of this worker. `run` records until cancelled, then `stop` records the end of the daemon."""

    # 13 attributes: the record, what waits for the disk, and the times that gaps are found by.

    def __init__(
        self,
        worker: str,
        ring: EventRing,
        *,
        look: Callable[[float, bool], EventMoment | None],
        due: asyncio.Event,
        exits: ContainerExits,
        conditions: LoopConditions,
        on_events: Callable[[Sequence[NumberedEvent]], None] = lambda _: None,
    ) -> None:
        """`look` takes the state to record: it gets the time in seconds since 1970, and whether the daemon has just
        started, so that own endpoints may not be registered again yet. `due` is set after each pass. `on_events` is
        called with events after they were written.
        """
        # 7 parameters: beside the ring, what it looks at and whom it notifies.
        self._worker = worker
        self._ring = ring
        self._look = look
        self._due = due
        self._exits = exits
        self._conditions = conditions
        self._on_events = on_events
        self._record = EventRecord()
        self._saved = EventRecord()
        """The record that the ring has."""
        self._waiting: deque[PastEvent] = deque()
        self._lost = 0
        """Events that were dropped since the last write."""
        self._opened = False
        self._times = _LookTimes()

    async def run(self) -> None:
        """Record until cancelled."""
        clock = asyncio.get_running_loop().time
        self._times.started, self._times.began_at = clock(), time.time()
        while True:
            if not self._opened and clock() >= self._times.retry_at:
                await self._open()
            await self._record_now()
            if self._opened:
                await self._save()
            await asyncio.sleep(PAUSE)
            try:
                async with asyncio.timeout(min(ALIVE_INTERVAL, RETRY)):
                    await self._due.wait()
            except TimeoutError:
                pass  # nothing happened
            self._due.clear()

    async def stop(self) -> None:
        """Record what happened last and the end of the daemon, and close the ring."""
        await self._record_now()
        self._add([self._of_daemon(EventKind.DAEMON_STOPPED, time.time(), "the daemon stopped")])
        if self._opened:
            self._times.retry_at = 0.0
            await self._save(stopped=True)
        try:
            await self._ring.close()
        except EventRingError as error:
            self._report(error)

    # ----------------------------------------------------------------------------------------------- looks

    async def _record_now(self) -> None:
        """Look at the worker, and queue the events since the last look."""
        clock, now = asyncio.get_running_loop().time, time.time()
        if self._times.looked_at and now - self._times.looked_at > GAP:
            self._add([self._gap(self._times.looked_at, now, "the daemon was suspended, or its clock was set")])
        self._times.looked_at = now
        self._add(self._deaths(now))
        settling = clock() < self._times.started + SETTLE_TIME
        moment = self._look(now, settling)
        if moment is None:
            return
        first = not self._opened and self._times.first_look is None
        if first and settling:
            return
        effort = recording_effort(self._record, moment)
        self._record, events = await compute(effort, partial(record_events, self._record, moment))
        if first:
            self._times.first_look = moment
        else:
            self._add(events)

    def _add(self, events: Iterable[PastEvent]) -> None:
        lines = 0
        for event in events:
            lines += event.kind not in _ALREADY_LOGGED
            if lines <= MAX_LINES and event.kind not in _ALREADY_LOGGED:
                fields = {
                    "event": event.kind.value,
                    "code": event.code,
                    "service": event.service,
                    "endpoint": event.name or event.endpoint,
                }
                log.info("%s [%s]", event.text, event.code, extra={"fields": fields})
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(event)
        if lines > MAX_LINES:
            log.info("%d more events at once; `vipmesh events` lists them", lines - MAX_LINES)

    def _deaths(self, now: float) -> list[PastEvent]:
        exits = self._exits.take()
        if not exits:
            return []
        own = {
            endpoint.id: (owner, service.service, endpoint)
            for owner, service in self._record.services.items()
            for endpoint in service.endpoints
            if endpoint.worker == self._worker
        }
        return [self._death(ended, own.get(ended.id, (None, None, None)), now) for ended in exits]

    def _death(
        self, ended: ContainerExit, recorded: tuple[str | None, str | None, RecordedEndpoint | None], now: float
    ) -> PastEvent:
        owner, service, endpoint = recorded
        name = ended.name or (endpoint.name if endpoint is not None else None)
        by = _ending_signal(ended.exit_code)
        how = f"exit code {ended.exit_code}" if ended.exit_code is not None else "its exit code is not known"
        how += f", {by}" if by is not None else ""
        how += ", out of memory" if ended.out_of_memory else ""
        where = f" of {service}" if service is not None else ""
        return PastEvent(
            at=now,
            kind=EventKind.CONTAINER_DIED,
            code=str(Code.EVENT_OF_EXIT),
            text=bounded_text(f"container {name or ended.id}{where} on {self._worker} ended: {how}"),
            worker=self._worker,
            owner=None if owner is None else bounded_text(owner),
            service=service,
            endpoint=bounded_text(ended.id),
            name=None if name is None else bounded_text(name),
            address=None if endpoint is None else endpoint.address,
            reason=how,
            exit_code=ended.exit_code,
            signal=by,
            out_of_memory=ended.out_of_memory,
        )

    def _of_daemon(self, kind: EventKind, at: float, text: str) -> PastEvent:
        code = str(Code.EVENT_OF_DAEMON)
        return PastEvent(at=at, kind=kind, code=code, text=bounded_text(text), worker=self._worker)

    def _gap(self, since: float, until: float, reason: str) -> PastEvent:
        text = f"nothing was recorded from {_utc(since)} to {_utc(until)}: {reason}"
        return self._of_daemon(EventKind.GAP, until, text)

    # ------------------------------------------------------------------------------------------- the ring

    async def _open(self) -> None:
        try:
            content = await self._ring.open()
        except EventRingError as error:
            self._report(error)
            return
        events = []
        began = self._times.began_at
        if content.replaced:
            text = "the file of earlier events was damaged and is replaced"
            events.append(self._of_daemon(EventKind.GAP, began, text))
        if content.alive is not None and not content.stopped:
            reason = "the daemon did not stop in an orderly way, or could not write that it stopped"
            events.append(self._gap(content.alive, began, reason))
        events.append(self._of_daemon(EventKind.DAEMON_STARTED, began, "the daemon started"))
        self._saved = _read_state(content.state)
        first, self._times.first_look = self._times.first_look, None
        if first is None:
            self._record = self._saved
        else:
            effort = recording_effort(self._saved, first)
            before, missed = await compute(effort, partial(record_events, self._saved, first))
            events += missed
            self._record = replace(self._record, lost=(self._record.lost | before.lost) - self._record.workers)
        self._opened = True
        since, self._waiting = self._waiting, deque()
        self._add(events)
        self._waiting.extend(since)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._lost += 1

    async def _save(self, *, stopped: bool = False) -> None:
        """Write what waits, or the time alone if that is due. After an error it stays, up to a limit."""
        clock = asyncio.get_running_loop().time
        if clock() < self._times.retry_at:
            return
        state = _changed_state(self._saved, self._record)
        if not self._waiting and not state and not stopped and clock() < self._times.saved_at + ALIVE_INTERVAL:
            return
        events = tuple(self._waiting)
        if self._lost:
            text = f"{self._lost} earlier events were lost, since they could not be written"
            events = (self._of_daemon(EventKind.GAP, time.time(), text), *events)
        try:
            first = await self._ring.write(RingBatch(time.time(), events, state, stopped))
        except EventRingError as error:
            self._report(error)
            return
        except asyncio.CancelledError:
            # The thread of the ring goes on with this batch: `stop` must not write it a second time.
            self._note_saved()
            raise
        self._conditions.found(ProblemPart.EVENTS, ())
        self._note_saved()
        if events:
            self._on_events([NumberedEvent(first + n, event) for n, event in enumerate(events)])

    def _note_saved(self) -> None:
        clock = asyncio.get_running_loop().time
        self._saved, self._times.saved_at = self._record, clock()
        self._waiting.clear()
        self._lost = 0

    def _report(self, error: EventRingError) -> None:
        self._times.retry_at = asyncio.get_running_loop().time() + RETRY
        reason, _, remedy = str(error).partition("; ")
        problem = Problem(error.code, Severity.WARNING, "past events", reason, remedy)
        self._conditions.found(ProblemPart.EVENTS, (problem,))


@dataclass(slots=True)
class _LookTimes:
    """When the recorder did what."""

    started: float = 0.0
    """The start, in seconds of the clock of the event loop."""
    saved_at: float = 0.0
    """The last write, in seconds of the clock of the event loop."""
    retry_at: float = 0.0
    """When the ring may be used again after an error, in seconds of the clock of the event loop."""
    looked_at: float = 0.0
    """The last look, in seconds since 1970; 0 before the first one."""
    began_at: float = 0.0
    """The start, in seconds since 1970."""
    first_look: EventMoment | None = None
    """What the first look saw, if that was before the ring could be opened; None otherwise."""


def _read_state(state: Mapping[str, bytes]) -> EventRecord:
    """Return the record that was kept. What cannot be read is left out: its events come again."""
    services: dict[str, RecordedService | None] = {}
    workers = _WorkersState()
    for key, value in state.items():
        try:
            if key == _WORKERS:
                workers = msgspec.json.decode(value, type=_WorkersState)
            elif key.startswith(_SERVICE):
                services[key.removeprefix(_SERVICE)] = msgspec.json.decode(value, type=RecordedService)
        except msgspec.MsgspecError:
            continue  # written by another version
    kept: PersistentMap[str, RecordedService] = PersistentMap()
    return EventRecord(kept.changed(services), frozenset(workers.workers), frozenset(workers.lost))


def _changed_state(before: EventRecord, now: EventRecord) -> Mapping[str, bytes | None]:
    """Return the parts of the state that differ; None for one that is to be removed."""
    found: dict[str, bytes | None] = {}
    for owner in changed_keys(before.services, now.services):
        service = now.services.get(owner)
        found[_SERVICE + owner] = None if service is None else msgspec.json.encode(service)
    if (before.workers, before.lost) != (now.workers, now.lost):
        found[_WORKERS] = msgspec.json.encode(_WorkersState(tuple(sorted(now.workers)), tuple(sorted(now.lost))))
    return found


def _ending_signal(exit_code: int | None) -> str | None:
    """Return the signal of an exit code above 128, as engines and shells report it; None for other codes."""
    if exit_code is None or exit_code <= 128:
        return None
    try:
        return signal.Signals(exit_code - 128).name
    except ValueError:
        return None


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
