"""The control loop: whatever happens only says "look again".

Sources, store and probes each have a task that keeps the newest picture and wakes the loop. One pass registers
nothing and remembers nothing of the kernel: it plans from the pictures, reads the data plane, runs the difference,
and swaps the zone. Bursts are coalesced, and an audit comes by even when nothing happened, to mend what somebody else
changed.

Fail static: a source, store or data plane that does not answer leaves its last picture in force and is named in the
status; nothing is programmed before the store has answered once.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.claims import wishes
from mesh.config import Network
from mesh.dataplane import DataPlane, DataPlaneError, Failure
from mesh.diff import BindVip, diff
from mesh.drain import Place, drain, leaving
from mesh.host import HostError
from mesh.journal import Journal
from mesh.model import Address, Claims, ClusterView, Health, Instance, Name, RealKey, Table
from mesh.plan import Plan, plan, probes
from mesh.probes.health import Verdict
from mesh.probes.prober import Target
from mesh.problem import Problem
from mesh.published import PublishedPorts
from mesh.register import register
from mesh.sources import Source
from mesh.status import Facts, WorkerStatus, services
from mesh.store import Store, StoreError
from mesh.store.claiming import claim
from mesh.store.records import registration, view

log = logging.getLogger("vipmesh")

COALESCE = 0.005
"""Seconds that a pass waits for company: a burst of changes becomes one pass."""
AUDIT = 10.0
"""Seconds after which the data plane is read back although nothing happened."""
DRAIN_LOOK = 1.0
"""Seconds between two looks at whether the last connection of what is draining has ended."""
RETRY = 1.0
"""Seconds before a store that refused is asked again."""


class Probes(Protocol):
    """The prober, as far as the loop needs it."""

    def watch(self, targets: Mapping[str, Target]) -> None:
        """Probe exactly these endpoints."""
        ...

    def health(self) -> Mapping[str, Health]:
        """The verdict on each of them; one that has not answered yet is `STARTING`."""
        ...

    def history(self, key: str) -> Sequence[Verdict]:
        """What the last probes of one endpoint found, oldest first; empty if it was never asked."""
        ...


class Host(Protocol):
    """The worker's own network, as far as the loop needs it."""

    def watch(self) -> AsyncIterator[frozenset[Address]]:
        """Yields the worker's addresses at once, and again whenever anything of its network has changed."""
        ...


class Upkeep(Protocol):
    """Something of the host that the data plane stands on: kernel settings, source NAT."""

    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Set up what is missing or was changed; what that was, a line each, empty if all was well.

        `addresses` are the worker's own. Raises `HostError` for what cannot be mended; the rest is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """What the loop must know of its worker."""

    worker: str
    domain: str
    pool: Network
    publish: range
    drain_timeout: float
    """Seconds that the connections of a removed endpoint get to finish."""


@dataclass(slots=True)
class Pictures:
    """The newest of everything; each task replaces its own part as a whole."""

    instances: dict[int, tuple[Instance, ...]] = field(default_factory=dict)
    """By source. A source that has not answered yet is not there."""
    addresses: frozenset[Address] | None = None
    """The worker's own."""
    view: ClusterView | None = None
    plan: Plan | None = None


class Reconciler:
    """One worker's loop over its parts. `run()` is all there is to do; `status()` may be asked at any time.

    `wake` is set by whoever has news (the prober too); `publish` swaps the names that the name server answers.
    """

    def __init__(
        self,
        site: Site,
        facts: Facts,
        *,
        host: Host,
        sources: Sequence[Source],
        store: Store,
        plane: DataPlane,
        upkeep: Sequence[Upkeep] = (),
        published: PublishedPorts,
        prober: Probes,
        publish: Callable[[Mapping[Name, Address]], None],
        wake: asyncio.Event,
    ) -> None:
        self._site = site
        self._facts = facts
        self._host = host
        self._sources = sources
        self._store = store
        self._plane = plane
        self._upkeep = upkeep
        self._publish = publish
        self._published = published
        self._prober = prober
        self._now = Pictures()
        self._journal = Journal()
        self._names: Mapping[Name, Address] = {}
        self._adopted: frozenset[RealKey] = frozenset()
        self._draining: Mapping[Place, float] = {}
        self._programmed: Table | None = None
        """What the last pass left behind, if nothing of it failed: who finds it otherwise finds somebody's change."""
        self._mended_at = -math.inf
        self._mended_for: tuple[frozenset[Address], Claims] = frozenset(), Claims()
        self._wake = wake
        self._register = asyncio.Event()
        self.passes = 0

    async def run(self) -> None:
        """Keep the data plane and the zone at the plan, until cancelled."""
        self._adopted = await self._adopt()
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                tasks.create_task(self._follow_source(source), name="source")
            tasks.create_task(self._follow_host(), name="host")
            tasks.create_task(self._keep_registered(), name="registration")
            tasks.create_task(self._follow_store(), name="store")
            tasks.create_task(self._keep_programmed(), name="data plane")

    def status(self) -> WorkerStatus:
        """What an operator should know, now."""
        now, journal = self._now, self._journal
        last = {e.id: h[-1].reason for e in (now.view or ClusterView()).endpoints if (h := self._prober.history(e.id))}
        frozen = {**journal.frozen, **{f"source {n}": t for n, s in enumerate(self._sources) if (t := s.trouble)}}
        return WorkerStatus(
            version=self._facts.version,
            worker=self._facts.worker,
            data_plane=self._facts.data_plane,
            data_plane_reason=self._facts.data_plane_reason,
            dns=self._facts.dns,
            services=services(now.view, self._prober.health(), now.plan, last) if now.view and now.plan else (),
            problems=tuple(line for part in sorted(journal.problems) for line in journal.problems[part]),
            failures=tuple(f"{failure.operation}: {failure.reason}" for failure in journal.failures),
            frozen=tuple(frozen[part] for part in sorted(frozen)),
            repairs=journal.repairs,
        )

    async def _adopt(self) -> frozenset[RealKey]:
        """Real servers that already carry traffic: their endpoints are presumed healthy until a probe says other."""
        try:
            table = await self._plane.read()
        except DataPlaneError as error:
            self._journal.froze("data plane", str(error))
            return frozenset()
        found = frozenset(real for server in table.virtual_servers.values() for real in server.real_servers)
        if found:
            log.info("adopted %d virtual servers with %d real servers", len(table.virtual_servers), len(found))
        return found

    # ------------------------------------------------------------------------------------- source -> store

    async def _follow_source(self, source: Source) -> None:
        async for instances, problems in source.watch():
            self._now.instances[id(source)] = instances
            self._journal.found(f"source {id(source)}", problems)
            self._register.set()

    async def _keep_registered(self) -> None:
        """Offer what all sources run. Until each has answered once, what was offered last stays."""
        while True:
            await self._register.wait()
            self._register.clear()
            if len(self._now.instances) < len(self._sources):
                continue
            instances = [i for s in self._sources for i in self._now.instances[id(s)]]
            offered = register(instances, worker=self._site.worker, domain=self._site.domain, pool=self._site.pool)
            self._journal.found("labels", tuple(self._located(i, p) for i, p in offered.problems))
            try:
                await self._store.register(registration(self._site.worker, offered.services, offered.endpoints))
            except StoreError as error:
                self._journal.froze("store", str(error))
                await asyncio.sleep(RETRY)
                self._register.set()
            else:
                self._journal.thawed("store")

    def _located(self, instance: Instance, problem: Problem) -> Problem:
        for source in self._sources:
            if instance in self._now.instances[id(source)]:
                where = source.locate(instance, problem.label)
                return Problem(problem.severity, problem.subject, problem.reason, problem.remedy, problem.label, where)
        return problem

    # --------------------------------------------------------------------------------- store -> claims, view

    async def _follow_store(self) -> None:
        async for snapshot in self._store.watch():
            seen, broken = view(snapshot.records)
            self._journal.found("store", broken)
            await self._claim(seen)
            self._now.view = seen
            self._published.claims = seen.claims
            self._target(seen)
            self._wake.set()

    async def _claim(self, seen: ClusterView) -> None:
        """Ask for what the services lack; the store's next snapshot shows what was given."""
        wanted, conflicts = wishes(seen.services, seen.claims, pool=self._site.pool, ports=self._site.publish)
        self._journal.found("claims", conflicts)
        try:
            await claim(self._store, wanted)
        except StoreError as error:
            self._journal.froze("store", str(error))

    def _target(self, seen: ClusterView) -> None:
        own = {endpoint.id for endpoint in seen.endpoints if endpoint.worker == self._site.worker}
        self._prober.watch(
            {
                id: Target(probe, real.address, real.port, presumed_healthy=real in self._adopted)
                for id, (probe, real) in probes(seen).items()
                if id in own
            }
        )
        self._adopted = frozenset()  # later endpoints have to prove themselves, at a known address too

    async def _follow_host(self) -> None:
        """A change of the network may be a new address to publish on, or a VIP that somebody took away: look again."""
        async for addresses in self._host.watch():
            self._now.addresses = addresses
            self._published.know(addresses)
            self._wake.set()

    # ---------------------------------------------------------------------------------- view -> data plane, zone

    async def _keep_programmed(self) -> None:
        while True:
            try:
                async with asyncio.timeout(DRAIN_LOOK if self._draining else AUDIT):
                    await self._wake.wait()
                await asyncio.sleep(COALESCE)
            except TimeoutError:
                pass  # nothing happened: this pass is the audit, or a look at what is draining
            self._wake.clear()
            if self._now.view is not None and self._now.addresses is not None:
                await self._pass(self._now.view, self._now.addresses)

    async def _pass(self, seen: ClusterView, addresses: frozenset[Address]) -> None:
        await self._mend(addresses, seen.claims)
        planned = plan(seen, self._prober.health(), sorted(addresses))
        try:
            failures = await self._program(planned)
        except DataPlaneError as error:
            self._journal.froze("data plane", str(error))
            return
        self._journal.thawed("data plane")
        self._now.plan = planned
        self._journal.refused(failures)
        self.passes += 1

    async def _mend(self, addresses: frozenset[Address], claims: Claims) -> None:
        """Once in an audit: what the data plane stands on."""
        now = asyncio.get_running_loop().time()
        if now < self._mended_at + AUDIT / 2 and (addresses, claims) == self._mended_for:
            return  # half: the audit itself comes a moment early or late
        first = self._mended_at == -math.inf
        self._mended_at, self._mended_for = now, (addresses, claims)
        for number, part in enumerate(self._upkeep):
            try:
                found = await part.mend(addresses, claims)
            except HostError as error:
                self._journal.froze(f"host {number}", str(error))
                continue
            self._journal.thawed(f"host {number}")
            self._journal.mended(found, first=first)

    async def _program(self, planned: Plan) -> Sequence[Failure]:
        """Names go before their VIP, and come after it: a name never leads where nothing answers."""
        observed, wanted = await self._drained(planned)
        operations = diff(observed, wanted)
        repair = wanted == self._programmed
        staying = {name: vip for name, vip in self._names.items() if planned.names.get(name) == vip}
        self._show(staying)
        failures = await self._plane.apply(operations) if operations else ()
        self._programmed = None if failures else wanted
        if repair:
            self._journal.repaired(operations)
        for operation in operations:
            log.debug("data plane: %s", operation)
        unbound = {f.operation.address for f in failures if isinstance(f.operation, BindVip)}
        self._show({n: vip for n, vip in planned.names.items() if n in staying or vip not in unbound})
        return failures

    async def _drained(self, planned: Plan) -> tuple[Table, Table]:
        """What is there, and what shall be now: the plan with what still has to finish."""
        observed = await self._plane.read()
        counts = await self._plane.connections() if leaving(observed, planned.table) else {}
        drained = drain(
            observed,
            planned.table,
            failed=planned.failed,
            connections=counts,
            since=self._draining,
            now=asyncio.get_running_loop().time(),
            timeout=self._site.drain_timeout,
        )
        self._draining = drained.since
        return observed, drained.table

    def _show(self, names: Mapping[Name, Address]) -> None:
        if names != self._names:
            self._names = names
            self._publish(names)
