"""Sends events to watchers: one snapshot of the worker serves all of them.

Without watchers, no snapshots are taken. The broadcaster never waits for a slow watcher: it keeps unread events up to a
limit, and disconnects the watcher beyond that. So one stuck browser does not delay the others.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import msgspec

from mesh.api.events import (
    EVENT_NAMES,
    EventInput,
    StatusEvent,
    WatcherState,
    changed_events,
    initial_events,
    traffic_event,
    watcher_state,
)
from mesh.model.codes import Code
from mesh.model.past_event import NumberedEvent
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")

MIN_INTERVAL = 0.5
"""The shortest time between two snapshots in seconds, however much changes."""
MAX_INTERVAL = 2.0
"""The longest time between two snapshots in seconds: traffic changes even if nothing else does."""
REST_FACTOR = 4.0
"""The pause after a snapshot, as a multiple of the time that it took; it bounds the share of CPU time."""
MAX_WATCHERS = 64
"""The most watchers at once."""
MAX_PENDING_BYTES = 4 << 20
"""The most bytes that wait for one watcher, beside the complete state that it gets first."""
WRITE_BATCH_BYTES = 64 << 10
"""The size in bytes at which a batch of events is written."""


class TooManyWatchersError(Exception):
    """No more watchers are accepted. The text ends with the remedy."""


class EventWatcher:
    """The queue of one watcher. `take` returns what has arrived since the last call."""

    def __init__(self, who: str) -> None:
        self.who = who
        """The client, for the log."""
        self.knows = False
        """Whether it has been given the complete state."""
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        """Bytes of changes that wait to be taken."""
        self._over = False
        """Whether the last event is in the queue."""
        self._news = asyncio.Event()

    def begin(self, frames: Iterable[bytes]) -> None:
        """Queue the complete state, however large it is."""
        self.knows = True
        self._frames.extend(frames)
        self._news.set()

    def tell(self, frames: Sequence[bytes]) -> bool:
        """Queue changes. Returns False if too much waits already: then only a last event that says so remains."""
        size = sum(map(len, frames))
        if self._waiting + size > MAX_PENDING_BYTES:
            self.dismiss("events were dropped, since they were read too slowly; connect again for the complete state")
            return False
        self._waiting += size
        self._frames.extend(frames)
        self._news.set()
        return True

    def dismiss(self, reason: str) -> None:
        """Replace everything that waits by a last event with the reason."""
        self._frames.clear()
        self._frames.append(event_frame("bye", {"reason": reason}))
        self._over = True
        self._news.set()

    async def take(self) -> bytes:
        """Wait for events and return a batch of them, as bytes to write; empty after the last event."""
        await self._news.wait()
        batch = bytearray()
        while self._frames and len(batch) < WRITE_BATCH_BYTES:
            batch += self._frames.popleft()
        self._waiting = max(0, self._waiting - len(batch))
        if not self._frames and not self._over:
            self._news.clear()
        return bytes(batch)


class EventBroadcaster:
    """Takes snapshots while there are watchers, and sends them what has changed. `run` runs until cancelled."""

    def __init__(self, look: Callable[[], Awaitable[EventInput]], changed: asyncio.Event | None = None) -> None:
        """`look` takes a snapshot of the worker.

        `changed` is set from outside after a change, so that the next snapshot is taken soon; only the broadcaster
        clears it. None for an event of its own, which `changed()` sets.
        """
        self.take_input = look
        """Takes a snapshot of the worker, for a request of its own."""
        self._watchers: set[EventWatcher] = set()
        self._watched = asyncio.Event()
        self._changed = asyncio.Event() if changed is None else changed
        self._told: WatcherState | None = None
        """The state that the watchers have been sent; None if there were none."""
        self._closed = False
        self.dropped = 0
        """The number of watchers that were disconnected because they read too slowly."""

    @property
    def watching(self) -> int:
        """The number of watchers."""
        return len(self._watchers)

    def watch(self, who: str) -> EventWatcher:
        """Add a watcher, which must `leave` in the end. Raises `TooManyWatchersError`."""
        if self._closed or len(self._watchers) >= MAX_WATCHERS:
            raise TooManyWatchersError(
                f"no more watchers are accepted, {len(self._watchers)} are connected; close one and try again"
            )
        watcher = EventWatcher(who)
        self._watchers.add(watcher)
        self._watched.set()
        self._changed.set()
        return watcher

    def leave(self, watcher: EventWatcher) -> None:
        """Remove a watcher; it may be gone already."""
        self._watchers.discard(watcher)
        if not self._watchers:
            self._watched.clear()

    def changed(self) -> None:
        """Take a snapshot soon, since something has changed."""
        self._changed.set()

    def happened(self, events: Sequence[NumberedEvent]) -> None:
        """Send events that have been kept to every watcher that has the complete state."""
        watchers = [watcher for watcher in self._watchers if watcher.knows]
        frames = [_framed(event) for event in events] if watchers else []
        for watcher in watchers:
            self._send(watcher, frames)

    def close(self) -> None:
        """Send every watcher the last event, and accept no more."""
        self._closed = True
        for watcher in list(self._watchers):
            watcher.dismiss("the daemon stops or restarts; connect again")
            self.leave(watcher)

    async def run(self) -> None:
        """Take snapshots and send events while there are watchers, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._watchers:
                self._told = None  # the next watcher starts from the complete state
                await self._watched.wait()
            self._changed.clear()
            began = loop.time()
            await self._tell()
            rest = max(MIN_INTERVAL, REST_FACTOR * (loop.time() - began))
            await asyncio.sleep(rest)
            try:
                async with asyncio.timeout(max(0.0, MAX_INTERVAL - rest)):
                    await self._changed.wait()
            except TimeoutError:
                pass  # nothing has changed

    async def _tell(self) -> None:
        """Take one snapshot and queue its events for every watcher."""
        moment = await self.take_input()
        # A watcher that comes while the events are computed gets its complete state from the next snapshot.
        before, new = self._told, any(not watcher.knows for watcher in self._watchers)
        self._told, whole, changes = await compute(moment.observed.size, partial(_prepare, before, moment, new))
        for watcher in list(self._watchers):
            if not watcher.knows and new:
                watcher.begin(whole)
            elif watcher.knows:
                self._send(watcher, changes)

    def _send(self, watcher: EventWatcher, frames: Sequence[bytes]) -> None:
        """Queue events for a watcher, and leave it if it reads too slowly."""
        if watcher.tell(frames):
            return
        self.dropped += 1
        log.warning(
            "admin API: watcher %s reads too slowly: disconnected",
            watcher.who,
            extra=Code.WATCHER_DISCONNECTED.extra,
        )
        self.leave(watcher)


def _prepare(
    before: WatcherState | None, moment: EventInput, new: bool
) -> tuple[WatcherState, Sequence[bytes], Sequence[bytes]]:
    """Return the state, all of its events if there are `new` watchers, and the events of the changes since `before`."""
    now = watcher_state(moment)
    through = _framed(traffic_event(before, moment))
    whole = [*map(_framed, initial_events(now)), through] if new else []
    changes = [*map(_framed, changed_events(before, now)), through] if before is not None else []
    return now, whole, changes


def _framed(tiding: StatusEvent) -> bytes:
    return event_frame(EVENT_NAMES[type(tiding)], tiding)


def event_frame(name: str, data: object) -> bytes:
    """Return one server-sent event: https://html.spec.whatwg.org/multipage/server-sent-events.html.

    JSON has no line ends of its own, so the data is one line.
    """
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
