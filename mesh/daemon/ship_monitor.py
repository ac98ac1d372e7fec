"""Asks `vipmesh ship` on this worker how it is, and tells what is wrong."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mesh.model.collected_logs import CollectedLogs
from mesh.model.problem import Problem
from mesh.platform.logs.reading.worker_reader import ShipSocketClient, ShipUnreachableError
from mesh.platform.logs.ship_health import ShipHealth

INTERVAL = 10.0
"""Seconds between two questions."""
LABELS_INTERVAL = 60.0
"""Seconds between two looks at the labels of containers, while nothing answers."""


class ShipMonitor:
    """Asks again and again. It reports nothing if nothing answers and no label asks for logs."""

    def __init__(
        self,
        ship: ShipSocketClient,
        wanted: Callable[[], Awaitable[Sequence[str]]],
        tell: Callable[[CollectedLogs | None, Sequence[Problem]], None],
    ) -> None:
        """`wanted` returns the services that ask for their logs to be collected, as far as it is known. `tell` gets the
        figures, None for none, and all problems, each time.
        """
        self._ship = ship
        self._wanted = wanted
        self._tell = tell
        self._health = ShipHealth()
        self._known: tuple[float, Sequence[str]] | None = None
        """When the labels were looked at, and which services ask for logs."""

    async def run(self) -> None:
        """Ask until the task is cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(INTERVAL)

    async def ask(self) -> None:
        """Ask once."""
        now = asyncio.get_running_loop().time()
        try:
            state = await self._ship.state()
        except ShipUnreachableError as error:
            if self._known is None or now - self._known[0] >= LABELS_INTERVAL:
                self._known = now, await self._wanted()
            self._tell(*self._health.silent(str(error), self._known[1]))
        else:
            self._known = None
            self._tell(*self._health.judge(now, state))
