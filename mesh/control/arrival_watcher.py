"""Watches connections of clients for requests that do not arrive, without sending any."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.config.values import Network
from mesh.control.arrival import ArrivalState, ArrivalTracker
from mesh.control.passive_arrival import ClientNetworks, ObservedService, PassiveArrivalJudge, observed_services
from mesh.control.planner import Plan
from mesh.dataplane import DataPlaneError
from mesh.dataplane.client_flows import ClientFlow
from mesh.host import HostError
from mesh.host.request_counts import RequestCounts
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.service import Address
from mesh.model.table import VirtualKey

log = logging.getLogger("vipmesh")

LOOK_INTERVAL = 5.0
"""Seconds between two looks."""
_REST, _LONGEST_REST = 20, 15.0
"""The pause after a look, as a multiple of its duration, and its maximum in seconds: a long table of connections must
not cost a core.
"""


class FlowSource(Protocol):
    """The connections of clients that the kernel tracks."""

    async def unassured(self, keys: Collection[VirtualKey]) -> Sequence[ClientFlow]:
        """Return connections to these virtual servers that were not established. Raises `DataPlaneError`."""
        ...

    async def all_to(self, keys: Collection[VirtualKey]) -> Sequence[ClientFlow]:
        """Return all connections to these virtual servers, or to the first few of them. Raises `DataPlaneError`."""
        ...


@dataclass(frozen=True, slots=True)
class PassiveSources:
    """Where the passive check reads from."""

    flows: FlowSource
    networks: Callable[[], Awaitable[Sequence[Network]]]
    """Reads the networks of this worker's containers. Raises `OSError`."""
    counts: Callable[[Collection[VirtualKey]], Awaitable[RequestCounts]] | None = None
    """Reads how many requests have come in and were forwarded. Raises `HostError`. None if the data plane is seen
    completely by its connections.
    """


class ArrivalWatcher:
    """Looks at the connections of clients every few seconds, and reports what follows to the tracker."""

    def __init__(
        self,
        sources: PassiveSources,
        tracker: ArrivalTracker,
        plan: Callable[[], Plan | None],
        addresses: Callable[[], Collection[Address]],
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`plan`: what was programmed last; None before the first pass. `addresses`: the worker's own. `clock`: seconds
        that only rise; None for the event loop's clock.
        """
        self._sources = sources
        self._tracker = tracker
        self._plan = plan
        self._addresses = addresses
        self._clock = clock
        self._judge = PassiveArrivalJudge()
        self._services: tuple[Plan | None, Mapping[VirtualKey, ObservedService]] = (None, {})
        """The services of a plan, and the plan."""
        self._trouble = ""

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self.look()
            except (DataPlaneError, HostError) as error:
                self._report(error)
            await asyncio.sleep(max(LOOK_INTERVAL, min(_LONGEST_REST, _REST * (loop.time() - began))))

    async def look(self) -> None:
        """Look once. Raises `DataPlaneError` or `HostError` if something cannot be read."""
        planned = self._plan()
        if planned is None:
            return
        if planned is not self._services[0]:
            self._services = planned, observed_services(planned)
        services = self._services[1]
        self._tracker.retain({service.owner for service in services.values()}, time.time())
        if not services:
            return
        own = frozenset((*self._addresses(), *planned.table.vips))
        networks = ClientNetworks(own, tuple(await self._networks()))
        flows = await self._sources.flows.unassured(services.keys())
        counts = None if self._sources.counts is None else await self._sources.counts(services.keys())
        now = asyncio.get_running_loop().time() if self._clock is None else self._clock()
        self._judge.note(flows, now)
        failing = {
            pair
            for pair in self._tracker.arrivals.pairs
            if self._tracker.arrivals.state(pair) is ArrivalState.NOT_ARRIVING
        }
        suspects = self._judge.suspects(services, networks) | failing
        owners = {pair.owner for pair in suspects}
        suspected = await self._sources.flows.all_to([key for key, of in services.items() if of.owner in owners])
        self._tracker.observe(self._judge.observe(suspected, counts, suspects, services, networks), time.time())
        self._report(None)

    async def _networks(self) -> Sequence[Network]:
        try:
            return await self._sources.networks()
        except OSError as error:
            raise HostError(Code.HOST_UNREADABLE, f"the networks of this host cannot be read ({error})") from error

    def _report(self, error: MeshError | None) -> None:
        """Log once why connections cannot be looked at, and when they can again."""
        text = "" if error is None else str(error)
        if error is not None and text != self._trouble:
            log.warning("requests that do not arrive are not noticed: %s", error, extra=error.code.extra)
        elif self._trouble and not text:
            log.info("connections of clients are looked at again")
        self._trouble = text
