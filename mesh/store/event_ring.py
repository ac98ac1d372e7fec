"""Where a worker keeps its past events: bounded, on its own disk, and never in the store that workers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.model.errors import MeshError
from mesh.model.past_event import NumberedEvent, PastEvent


class EventRingError(MeshError):
    """Events cannot be written or read now. The next attempt may succeed. The text ends with the remedy."""


@dataclass(frozen=True, slots=True)
class RingLimits:
    """How much a ring keeps; the oldest events are dropped."""

    events: int
    """The most events, at least 1."""
    seconds: float
    """The age from which on an event is dropped."""


@dataclass(frozen=True, slots=True)
class RingContent:
    """What a ring has when it is opened."""

    state: Mapping[str, bytes] = field(default_factory=dict)
    """The state that goes with the events, by key; empty in a new ring."""
    alive: float | None = None
    """The time of the last batch, in seconds since 1970; None in a new ring."""
    stopped: bool = False
    """Whether the last batch was written by a daemon that stopped in an orderly way."""
    replaced: bool = False
    """Whether the ring is new because the earlier one was damaged."""


@dataclass(frozen=True, slots=True)
class RingBatch:
    """What is written in one transaction."""

    at: float
    """The time, in seconds since 1970."""
    events: Sequence[PastEvent] = ()
    """Events, the oldest first; empty if only the time is to be kept."""
    state: Mapping[str, bytes | None] = field(default_factory=dict)
    """Changed parts of the state; None for one that is removed."""
    stopped: bool = False
    """Whether the daemon stops in an orderly way."""


class EventRing(Protocol):
    """Keeps the newest events of one worker."""

    async def open(self) -> RingContent:
        """Open the ring, which is created if it is missing, and return what it has. Raises `EventRingError`."""
        ...

    async def write(self, batch: RingBatch) -> int:
        """Write a batch as a whole; return the number of its first event. Raises `EventRingError`: nothing is written
        then, and the same batch may be written again.
        """
        ...

    async def read(self, *, after: int = 0, since: float = 0.0) -> tuple[NumberedEvent, ...]:
        """Return the events with a number above `after` that were noticed at `since` or later, the oldest first.

        Raises `EventRingError`.
        """
        ...

    async def close(self) -> None:
        """Close the ring; it can be opened again."""
        ...
