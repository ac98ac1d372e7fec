"""Shares the places in which commands run among the services that wait for one.

A command that does not end would keep its place until its timeout, which its label chooses. So that a few such commands
do not stop the others:

- the service with the fewest running commands is next, and among those the one that has waited longest;
- a command that has run for `SLOW_AFTER` seconds moves to one of `SLOW_PLACES` places for slow commands, and its own is
  free again;
- while slow commands run, endpoints whose last command was not a quick one get at most half of the places to start in;
- if the places for slow commands are taken too, the service that has most of them loses the one that has run longest,
  once that has run for `PREEMPT_AFTER` seconds; if there is none, the command that needs the place is ended. That says
  nothing about its endpoint.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.PROBES)

SLOW_AFTER = 1.0
"""Seconds after which a command counts as slow."""
SLOW_PLACES = 12
"""Slow commands that run at the same time, beside those that are not slow yet."""
PREEMPT_AFTER = 10.0
"""Seconds that a slow command may run although others wait for its place."""
MAX_REMEMBERED = 16_384
"""Endpoints whose last command was quick, at most."""


class PreemptedError(Exception):
    """The place was taken from a slow command, because others wait."""


@dataclass(slots=True, eq=False)
class _Place:
    """A place that a command holds, or waits for."""

    key: str
    service: str
    granted: "asyncio.Future[None]"
    was_quick: bool
    """Whether the last command of this endpoint was quick."""
    begun: float = 0.0
    is_slow: bool = False
    scope: asyncio.Timeout | None = None
    """Ends the command when the place is taken from it; None before it runs."""
    preempted: bool = False


class CommandPlaces:
    """Grants places to commands, at most `at_once` for commands that are not slow, and at most `rate` per second."""

    def __init__(self, at_once: int, rate: float) -> None:
        self._at_once = at_once
        self._apart = 1 / rate
        self._next = 0.0
        """When the next command may start."""
        self._waiting: OrderedDict[str, deque[_Place]] = OrderedDict()
        """The queues of the services; the one that was served least recently comes first."""
        self._running: dict[_Place, None] = {}
        """Places that are held, in the order in which they were granted."""
        self._quick_keys: OrderedDict[str, None] = OrderedDict()
        """Endpoints whose last command was quick."""
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Hold a place for a command of an endpoint, given by its ID, once it is its turn.

        Raises `PreemptedError` if it was taken from the command, whose code is cancelled then.
        """
        loop = asyncio.get_running_loop()
        place = _Place(key, key.rpartition("/")[0], loop.create_future(), key in self._quick_keys)
        self._waiting.setdefault(place.service, deque()).append(place)
        try:
            self._grant()
            await place.granted
            async with asyncio.timeout(None) as place.scope:
                yield
        except TimeoutError:
            if place.preempted:
                raise PreemptedError from None
            raise
        finally:
            self._leave(place)

    def _leave(self, place: _Place) -> None:
        if place in self._running:
            del self._running[place]
            self._remember(place)
        elif (queue := self._waiting.get(place.service)) is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._waiting[place.service]
        self._grant()

    def _remember(self, place: _Place) -> None:
        self._quick_keys.pop(place.key, None)
        if asyncio.get_running_loop().time() - place.begun < SLOW_AFTER:
            self._quick_keys[place.key] = None
            if len(self._quick_keys) > MAX_REMEMBERED:
                self._quick_keys.popitem(last=False)

    def _grant(self) -> None:
        """Grant places to those that wait, and come back when more can be granted."""
        now = asyncio.get_running_loop().time()
        if self._waiting:
            self._set_slow_aside(now)
        while now >= self._next and (place := self._take_next()) is not None:
            self._next = max(now, self._next + self._apart)
            place.begun = now
            self._running[place] = None
            if not place.granted.done():
                place.granted.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            pause = max(self._next - now, self._apart)
            self._timer = asyncio.get_running_loop().call_later(pause, bulkhead.callback(self._grant))

    def _take_next(self) -> _Place | None:
        """Remove the next place from its queue; None if none can be granted now."""
        quick = [place for place in self._running if not place.is_slow]
        if len(quick) >= self._at_once:
            return None
        others = sum(not place.was_quick for place in quick)
        may_be_slow = len(quick) == len(self._running) or others < max(1, self._at_once // 2)
        held = Counter(place.service for place in self._running)
        for service in sorted(self._waiting, key=held.__getitem__):  # stable: least recently served first
            queue = self._waiting[service]
            place = next((each for each in queue if may_be_slow or each.was_quick), None)
            if place is None:
                continue
            queue.remove(place)
            if queue:
                self._waiting.move_to_end(service)
            else:
                del self._waiting[service]
            return place
        return None

    def _set_slow_aside(self, now: float) -> None:
        """Move slow commands to the places for them, so that others can start."""
        slow = [place for place in self._running if place.is_slow]
        for place in self._running:
            if place.is_slow or now - place.begun < SLOW_AFTER:
                continue
            if len(slow) >= SLOW_PLACES:
                self._preempt(slow, place, now)
                return  # its place is free when it has ended
            place.is_slow = True
            slow.append(place)

    def _preempt(self, slow: list[_Place], newcomer: _Place, now: float) -> None:
        """Take its place from one of the slow commands, or else from `newcomer`, which has just become slow."""
        if any(place.preempted for place in self._running):
            return  # one is ending
        held = Counter(place.service for place in slow)
        old = [place for place in slow if now - place.begun >= PREEMPT_AFTER]
        place = max(old, key=lambda place: (held[place.service], now - place.begun), default=newcomer)
        if place.scope is not None:
            place.preempted = True
            place.scope.reschedule(now)
