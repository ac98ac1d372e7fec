"""Watchers and what they are told: one look at the worker serves them all.

While nobody watches, nothing is looked at. A watcher that does not read is not waited for: what it has not taken is
kept up to a bound, and beyond that it is told so and let go, so that one stuck browser costs nobody anything.
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
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")

MIN_INTERVAL = 0.5
"""Seconds between two looks, however much happens."""
MAX_INTERVAL = 2.0
"""Seconds between two looks, however little happens: what goes through moves all the time."""
REST_FACTOR = 4.0
"""How many times as long as a look took until the next one."""
MAX_WATCHERS = 64
"""Watchers."""
MAX_PENDING_BYTES = 4 << 20
"""Octets that wait for one watcher, beside the picture that it got first."""
WRITE_BATCH_BYTES = 64 << 10
"""Octets that are written at once."""


class TooManyWatchersError(Exception):
    """There are too many watchers. The text ends with the remedy."""


class EventWatcher:
    """One who reads. `take` gives what has come since."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.knows = False
        """Whether it has got the first picture."""
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        self._over = False
        self._news = asyncio.Event()

    def begin(self, frames: Iterable[bytes]) -> None:
        """The first picture, however large it is."""
        self.knows = True
        self._frames.extend(frames)
        self._news.set()

    def tell(self, frames: Sequence[bytes]) -> bool:
        """What has changed; False: it reads too slowly, and gets no more than the words that say so."""
        size = sum(map(len, frames))
        if self._waiting + size > MAX_PENDING_BYTES:
            self.dismiss("you read too slowly and have missed something; connect again for the whole picture")
            return False
        self._waiting += size
        self._frames.extend(frames)
        self._news.set()
        return True

    def dismiss(self, reason: str) -> None:
        """No more; what waits is dropped."""
        self._frames.clear()
        self._frames.append(event_frame("bye", {"reason": reason}))
        self._over = True
        self._news.set()

    async def take(self) -> bytes:
        """What has come, as much as is written at once; empty: it is over."""
        await self._news.wait()
        batch = bytearray()
        while self._frames and len(batch) < WRITE_BATCH_BYTES:
            batch += self._frames.popleft()
        self._waiting = max(0, self._waiting - len(batch))
        if not self._frames and not self._over:
            self._news.clear()
        return bytes(batch)


class EventBroadcaster:
    """Looks while somebody watches. `run` goes beside everything else, until cancelled."""

    def __init__(self, look: Callable[[], Awaitable[EventInput]], changed: asyncio.Event | None = None) -> None:
        """`changed` is set when something has happened, so that the next look is soon; this alone clears it."""
        self._look = look
        self._watchers: set[EventWatcher] = set()
        self._watched = asyncio.Event()
        self._changed = asyncio.Event() if changed is None else changed
        self._told: WatcherState | None = None
        self._closed = False
        self.dropped = 0
        """How many read too slowly, ever."""

    @property
    def watching(self) -> int:
        """How many there are."""
        return len(self._watchers)

    def watch(self, who: str) -> EventWatcher:
        """A new watcher; it is to `leave`. Raises `TooManyWatchersError`."""
        if self._closed or len(self._watchers) >= MAX_WATCHERS:
            raise TooManyWatchersError(
                f"{len(self._watchers)} watch already, which is all there is room for; close a page"
            )
        watcher = EventWatcher(who)
        self._watchers.add(watcher)
        self._watched.set()
        self._changed.set()
        return watcher

    def leave(self, watcher: EventWatcher) -> None:
        """It does not read any more; may be said again."""
        self._watchers.discard(watcher)
        if not self._watchers:
            self._watched.clear()

    def changed(self) -> None:
        """Something has happened: look soon."""
        self._changed.set()

    def close(self) -> None:
        """Tell all that it is over."""
        self._closed = True
        for watcher in list(self._watchers):
            watcher.dismiss("the daemon ends or begins anew; connect again")
            self.leave(watcher)

    async def run(self) -> None:
        """Look, tell, rest."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._watchers:
                self._told = None  # who comes later starts from what is then
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
                pass  # nothing happened

    async def _tell(self) -> None:
        moment = await self._look()
        before, new = self._told, any(not watcher.knows for watcher in self._watchers)
        self._told, whole, changes = await compute(moment.observed.size, partial(_prepare, before, moment, new))
        for watcher in list(self._watchers):
            if not watcher.knows and new:
                watcher.begin(whole)
            elif watcher.knows and not watcher.tell(changes):
                self.dropped += 1
                log.warning(
                    "admin API: %s watches and reads too slowly: let go",
                    watcher.who,
                    extra=Code.WATCHER_DISCONNECTED.extra,
                )
                self.leave(watcher)


def _prepare(
    before: WatcherState | None, moment: EventInput, new: bool
) -> tuple[WatcherState, Sequence[bytes], Sequence[bytes]]:
    """What is known now, the frames of all of it if somebody is new, and those of what has changed."""
    now = watcher_state(moment)
    through = _framed(traffic_event(before, moment))
    whole = [*map(_framed, initial_events(now)), through] if new else []
    changes = [*map(_framed, changed_events(before, now)), through] if before is not None else []
    return now, whole, changes


def _framed(tiding: StatusEvent) -> bytes:
    return event_frame(EVENT_NAMES[type(tiding)], tiding)


def event_frame(name: str, data: object) -> bytes:
    """One event: https://html.spec.whatwg.org/multipage/server-sent-events.html. JSON has no line ends of its own."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
