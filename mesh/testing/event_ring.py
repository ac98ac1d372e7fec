"""A ring of past events in memory, under the contract tests of the one on disk."""

from collections.abc import Mapping

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.past_event import NumberedEvent
from mesh.store.event_ring import EventRing, EventRingError, RingBatch, RingContent, RingLimits


class FakeEventRing(EventRing):
    """Implements `EventRing` in memory; the content outlives `close`."""

    def __init__(self, limits: RingLimits) -> None:
        self._limits = limits
        self._events: list[NumberedEvent] = []
        self._state: Mapping[str, bytes] = {}
        self._run: tuple[float | None, bool] = (None, False)
        self._last = 0
        self.is_full = False
        """Whether the disk is full: every write fails."""
        self.batches: list[RingBatch] = []
        """The batches that were written."""

    @override
    async def open(self) -> RingContent:
        if self.is_full:
            raise _full()
        return RingContent(dict(self._state), *self._run)

    @override
    async def write(self, batch: RingBatch) -> int:
        if self.is_full:
            raise _full()
        self.batches.append(batch)
        first = self._last + 1
        for event in batch.events:
            self._last += 1
            self._events.append(NumberedEvent(self._last, event))
        state = {**self._state, **batch.state}
        self._state = {key: value for key, value in state.items() if value is not None}
        self._run = batch.at, batch.stopped
        oldest = batch.at - self._limits.seconds
        self._events = [
            each for each in self._events if each.number > self._last - self._limits.events and each.event.at >= oldest
        ]
        return first

    @override
    async def read(self, *, after: int = 0, since: float = 0.0) -> tuple[NumberedEvent, ...]:
        return tuple(each for each in self._events if each.number > after and each.event.at >= since)

    @override
    async def close(self) -> None:
        """Keep the content."""


def _full() -> EventRingError:
    return EventRingError(Code.EVENTS_NOT_KEPT, "events cannot be kept: the disk is full; make room")
