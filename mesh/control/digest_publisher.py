"""Tells the other workers the digest of this worker's table, now and then, and what its firewall drops of theirs."""

import asyncio
from collections.abc import Callable, Sequence

from mesh.model.problem import Problem

INTERVAL = 10.0
"""Seconds between two looks: the digest may change with every verdict, and each change is a write to the store."""
LOOK = 1.0
"""Seconds between two looks at what there is to tell besides, which changes seldom."""


class DigestPublisher:
    """Publishes the digest of this worker."""

    def __init__(
        self,
        digest: Callable[[], str | None],
        publish: Callable[[str, Sequence[Problem]], None],
        told: Callable[[], tuple[Problem, ...]] = tuple,
    ) -> None:
        """`digest` returns None before the first plan; `publish` may be called again with the same values. `told`
        returns the problems that concern the other workers.
        """
        self._digest = digest
        self._publish = publish
        self._told = told

    async def run(self) -> None:
        """Publish until cancelled."""
        before: tuple[Problem, ...] = ()
        due = asyncio.get_running_loop().time() + INTERVAL
        while True:
            await asyncio.sleep(LOOK)
            told, now = self._told(), asyncio.get_running_loop().time()
            if (told == before and now < due) or (digest := self._digest()) is None:
                continue
            self._publish(digest, told)
            before, due = told, now + INTERVAL
