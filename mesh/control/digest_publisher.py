"""Tells the other workers the digest of this worker's table, now and then."""

import asyncio
from collections.abc import Callable

INTERVAL = 10.0
"""Seconds between two looks: the digest may change with every verdict, and each change is a write to the store."""


class DigestPublisher:
    """Publishes the digest of this worker."""

    def __init__(self, digest: Callable[[], str | None], publish: Callable[[str], None]) -> None:
        """`digest` returns None before the first plan; `publish` may be called again with the same digest."""
        self._digest = digest
        self._publish = publish

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            if (digest := self._digest()) is not None:
                self._publish(digest)
