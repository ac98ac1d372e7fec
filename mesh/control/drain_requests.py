"""Drains that operators requested, and when a drained endpoint has no connections left.

An endpoint is free when a pass of the control loop has seen it draining and has left none of its real servers in the
data plane: its last connection has ended, or the drain timeout has passed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType

from mesh.dataplane.drain import BackendKey
from mesh.model.eligibility import real_keys
from mesh.model.service import DrainReason, Endpoint, Instance
from mesh.model.table import RealKey, Table
from mesh.model.view import ClusterView

_NONE: Mapping[BackendKey, int] = MappingProxyType({})

REQUESTER: ContextVar[str | None] = ContextVar("requester", default=None)
"""Who requested the action that this task carries out; None if the daemon acts by itself."""


class DrainRequests:
    """Keeps the requested drains and the result of the last pass. All methods must be called in the event loop's
    thread.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None, adopted: Iterable[Endpoint] = ()) -> None:
        """`on_change` is called after each request. `adopted`: endpoints as an earlier process registered them; drains
        that operators requested from that process stay in force.
        """
        by_hand = (DrainReason.ASKED, DrainReason.MAINTENANCE)
        self.asked: Mapping[str, DrainReason] = {e.id: e.drain for e in adopted if e.drain in by_hand}
        """The requested drains by endpoint ID. Replaced as a whole."""
        self.requesters: Mapping[str, str] = {}
        """Who requested them, by endpoint ID, as far as it is known. Replaced as a whole."""
        self._on_change = on_change
        self._here: frozenset[str] = frozenset()
        self._left = (ClusterView(), Table())
        """The view of the last pass, and the table that it left in the data plane."""
        self._connections: Mapping[BackendKey, int] = {}
        """The connections of the real servers that were draining in the last pass."""
        self._passed = asyncio.Event()

    def ask(self, endpoint: str, why: DrainReason = DrainReason.ASKED) -> None:
        """Send no new connections to the endpoint until `undo`. A drain does not replace a maintenance."""
        # An endpoint in maintenance is not probed either, so a plain drain would weaken the request.
        if self.asked.get(endpoint) is not DrainReason.MAINTENANCE:
            self.asked = {**self.asked, endpoint: why}
            if (requester := REQUESTER.get()) is not None:
                self.requesters = {**self.requesters, endpoint: requester}
        self._on_change()

    def knows(self, endpoint: str) -> bool:
        """Whether the endpoint runs on this worker."""
        return endpoint in self._here

    def undo(self, endpoint: str) -> None:
        """Withdraw the request: the endpoint may take new connections again."""
        self.asked = {id: why for id, why in self.asked.items() if id != endpoint}
        self.requesters = {id: who for id, who in self.requesters.items() if id != endpoint}
        self._on_change()

    def marked(self, instances: Iterable[Instance]) -> list[Instance]:
        """The instances with the requested drains. A maintenance takes precedence over any other drain."""
        found = [self._marked(instance) for instance in instances]
        self._here = frozenset(instance.id for instance in found)
        return found

    def _marked(self, instance: Instance) -> Instance:
        asked = self.asked.get(instance.id)
        if asked is None or (instance.drain is not None and asked is not DrainReason.MAINTENANCE):
            return instance
        return instance.with_drain(asked)

    def passed(self, view: ClusterView, table: Table, connections: Mapping[BackendKey, int] = _NONE) -> None:
        """Record that a pass over this view has left this table in the data plane.

        `connections` are those of real servers that drain, where they are counted.
        """
        self._left = (view, table)
        self._connections = connections
        # Each waiter must see the result of a later pass, so every pass has an event of its own.
        self._passed.set()
        self._passed = asyncio.Event()

    async def until_free(self, endpoint: str, each_pass: Callable[[int | None], None] = lambda _: None) -> None:
        """Return when a later pass shows the endpoint gone, or draining and without traffic.

        `each_pass` is called after each pass until then with the connections that are left, None if they are not
        counted. What it raises ends the wait.
        """
        while True:
            await self._passed.wait()
            if not self._is_busy(endpoint):
                return
            each_pass(self._connections_of(endpoint))

    async def until_gone(self, endpoint: str) -> None:
        """Return when the view of the last pass, or of a later one, does not have the endpoint."""
        while any(known.id == endpoint for known in self._left[0].endpoints):
            await self._passed.wait()

    def _is_busy(self, endpoint: str) -> bool:
        """Whether the endpoint takes new connections or has connections left."""
        view, table = self._left
        if any(each.drain is None for each in view.endpoints if each.id == endpoint):
            return True
        reals = self._real_servers(endpoint)
        return any(not reals.isdisjoint(server.real_servers) for server in table.virtual_servers.values())

    def _real_servers(self, endpoint: str) -> frozenset[RealKey]:
        view, _ = self._left
        services = {service.owner: service for service in view.services}
        known = [each for each in view.endpoints if each.id == endpoint and each.owner in services]
        return frozenset(real for each in known for real in real_keys(services[each.owner], each))

    def _connections_of(self, endpoint: str) -> int | None:
        reals = self._real_servers(endpoint)
        counted = [count for (_, real), count in self._connections.items() if real in reals]
        return sum(counted) if counted else None
