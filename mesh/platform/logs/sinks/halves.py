"""Delivers in halves what a store refuses as a whole: it is too large, or has lines that the store does not name.

A store that takes what it can of a request, and says that something was refused but not what, gets the halves again. A
repeat is harmless for it. The requests are bounded, so that a batch of which everything is refused does not cost one
for each line.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import RefusedDocument

MAX_DIVISIONS = 64
"""How often a delivery is divided to find the lines that are refused."""


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A store's answer for a whole request."""

    reason: str
    is_too_large: bool = False
    """Nothing of it was taken, and smaller ones would be."""


async def deliver_by_halves(
    documents: Sequence[LogDocument],
    send: Callable[[Sequence[LogDocument]], Awaitable[RefusedRequest | Sequence[RefusedDocument]]],
) -> list[RefusedDocument]:
    """Send documents in their order, and return those that are refused. Raises what `send` raises."""
    refused: list[RefusedDocument] = []
    waiting = deque([documents])
    divisions = 0
    while waiting:
        part = waiting.popleft()
        answer = await send(part)
        if not isinstance(answer, RefusedRequest):
            refused += answer
        elif len(part) > 1 and answer.is_too_large:
            half = len(part) // 2
            waiting.extendleft([part[half:], part[:half]])  # before what follows it
        elif len(part) > 1 and divisions < MAX_DIVISIONS:
            divisions += 1
            half = len(part) // 2
            waiting += [part[:half], part[half:]]  # at the end, so that all parts become equally small
        else:
            others = f"of {len(part)} lines, this one or others: " if len(part) > 1 else ""
            refused += [RefusedDocument(each, f"{others}{answer.reason}") for each in part]
    return refused
