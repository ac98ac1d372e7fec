"""Watches the facts of the host, and reports what keeps packets from arriving for as long as it does."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from mesh.config.values import Network
from mesh.control.conditions import LoopConditions
from mesh.control.ports import HostFactSource
from mesh.host import HostError
from mesh.host.facts import HostFacts
from mesh.host.host_problems import HostNeeds, host_problems, occupied_networks
from mesh.model.claims import Claims
from mesh.model.engine_facts import EngineFacts
from mesh.model.part import DaemonPart, FrozenPart, ProblemPart
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.HOST)

ENGINE_INTERVAL, ENGINE_REST = 30.0, 2.0
"""Seconds after which the engine is asked again although the network did not change, and at the earliest."""


@dataclass(frozen=True, slots=True)
class HostFactSources:
    """Where the facts of the host come from, and what they are judged by."""

    host: HostFactSource
    needs: HostNeeds
    """The needs of the daemon; the published ports of services are filled in."""
    engine: Callable[[], Awaitable[EngineFacts | None]] | None = None
    """Asks the container engine: None if it does not answer, which its source reports. None without an engine."""


class HostWatcher:
    """Keeps the newest facts of the host, and reports the problems that follow from them."""

    def __init__(
        self,
        sources: HostFactSources,
        claims: Callable[[], Claims],
        conditions: LoopConditions,
        wake: Callable[[], None],
        reads_rules: Callable[[], bool] = lambda: False,
    ) -> None:
        """`claims`: the claims in force. `wake` is called when networks in the VIP pool have come or gone.
        `reads_rules`: whether the rules of the firewall are read, so that they tell what the engine's version suggests.
        """
        self._sources = sources
        self._claims = claims
        self._conditions = conditions
        self._wake = wake
        self._reads_rules = reads_rules
        self.occupied: Collection[Network] = ()
        """The networks of this host in which a VIP would take the traffic of another host; empty before the first facts
        and if the kernel cannot be asked.
        """
        self._facts = HostFacts()
        self._known = asyncio.Event()
        """Facts were read, or could not be read."""
        self._network_changed = asyncio.Event()

    async def known_occupied(self) -> Collection[Network]:
        """Return `occupied` once the facts were read, so that nothing is bound before."""
        await self._known.wait()
        return self.occupied

    async def run(self) -> None:
        """Watch the facts, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bulkhead.keep_running("host facts", self._follow_host), name="host facts")
            if self._sources.engine is not None:
                follow = partial(self._follow_engine, self._sources.engine)
                tasks.create_task(bulkhead.keep_running("engine facts", follow), name="engine facts")

    async def _follow_host(self) -> None:
        try:
            async with aclosing(self._sources.host.changes()) as changes:
                async for _ in changes:
                    await self._read_host()
                    self._known.set()
        finally:
            self._known.set()  # an unexpected exception must not keep the worker from serving

    async def _read_host(self) -> None:
        try:
            found = await self._sources.host.read()
        except HostError as error:
            self._conditions.froze(FrozenPart.HOST, error)
        else:
            self._conditions.thawed(FrozenPart.HOST)
            self._learn(replace(found, engine=self._facts.engine))

    async def _follow_engine(self, ask: Callable[[], Awaitable[EngineFacts | None]]) -> None:
        """Ask the engine now and then, and when networks have come or gone: it may have made them."""
        while True:
            self._network_changed.clear()
            told = await ask()
            if told is not None:
                self._learn(replace(self._facts, engine=told))
            await asyncio.sleep(ENGINE_REST)
            try:
                async with asyncio.timeout(ENGINE_INTERVAL):
                    await self._network_changed.wait()
            except TimeoutError:
                pass  # it is time to ask again

    def _learn(self, facts: HostFacts) -> None:
        before, self._facts = self._facts, facts
        needs = self._sources.needs
        occupied = occupied_networks(facts, needs.pool, needs.own_interface)
        if facts.routes != before.routes or facts.addresses != before.addresses:
            self._network_changed.set()
        if occupied != self.occupied:
            self.occupied = occupied
            self._wake()
        needs = replace(
            needs,
            published={port: name for port, (name, _) in self._claims().ports.items()},
            routes_to_containers=needs.routes_to_containers and not self._reads_rules(),
        )
        self._conditions.found(ProblemPart.HOST, host_problems(facts, needs))
