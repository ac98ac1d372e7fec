"""Which endpoints shall take no new connection because somebody said so, and when they have none left.

An endpoint is free when a pass of the control loop has seen that it drains and has left none of its real servers in the
data plane: its last connection has ended, or the drain timeout is over.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from mesh.model import ClusterView, Drain, Endpoint, Instance, Table
from mesh.service_plan import real_keys


class Leaving:
    """What operators asked for, and what the passes have shown. All methods are for the thread of the event loop."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called after something was asked for."""
        self._asked: set[str] = set()
        self._left = (ClusterView(), Table())
        """What the last pass has seen, and what it has left."""
        self._passed = asyncio.Event()

    def adopt(self, endpoints: Iterable[Endpoint]) -> None:
        """What was asked of an earlier process still holds."""
        self._asked |= {endpoint.id for endpoint in endpoints if endpoint.drain is Drain.ASKED}

    def ask(self, endpoint: str) -> None:
        """Send no new connection to it, until `undo`."""
        self._asked.add(endpoint)
        self.on_change()

    def undo(self, endpoint: str) -> None:
        """It may take connections again."""
        self._asked.discard(endpoint)
        self.on_change()

    def marked(self, instances: Iterable[Instance]) -> list[Instance]:
        """The instances with the drains that were asked for."""
        return [
            replace(instance, drain=Drain.ASKED) if instance.id in self._asked and instance.drain is None else instance
            for instance in instances
        ]

    def passed(self, view: ClusterView, table: Table) -> None:
        """A pass over this view has left this table in the data plane."""
        self._left = (view, table)
        self._passed.set()
        self._passed = asyncio.Event()

    async def until_free(self, endpoint: str) -> None:
        """Return when a pass still to come shows the endpoint gone, or draining and without traffic."""
        while True:
            await self._passed.wait()
            if not self._is_busy(endpoint):
                return

    async def until_gone(self, endpoint: str) -> None:
        """Return when the last pass, or one still to come, does not know the endpoint."""
        while any(known.id == endpoint for known in self._left[0].endpoints):
            await self._passed.wait()

    def _is_busy(self, endpoint: str) -> bool:
        """Whether it takes connections, or has some left."""
        view, table = self._left
        known = [each for each in view.endpoints if each.id == endpoint]
        if any(each.drain is None for each in known):
            return True
        services = {service.owner: service for service in view.services}
        reals = {real for e in known if e.owner in services for real in real_keys(services[e.owner], e)}
        return any(not reals.isdisjoint(server.real_servers) for server in table.virtual_servers.values())
