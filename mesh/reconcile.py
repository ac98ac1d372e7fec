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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mesh.claims import Wish, wishes
from mesh.contested import contested, held, told, without
from mesh.dataplane import DataPlane, DataPlaneError, Failure
from mesh.diff import BindVip, Operation, changed, diff
from mesh.drain import Place, drain, leaving
from mesh.host import HostError
from mesh.journal import Journal
from mesh.judging import Judging
from mesh.leaving import Leaving
from mesh.local import up_to_date
from mesh.model import (
    Address,
    Claims,
    ClusterView,
    EndpointKey,
    Health,
    Instance,
    Name,
    RealKey,
    Table,
    Transport,
    VirtualKey,
)
from mesh.offload import compute
from mesh.parts import Host, Pictures, Probes, Site, Upkeep
from mesh.plan import Part, Plan, plan
from mesh.problem import Problem
from mesh.published import PublishedPorts
from mesh.register import register
from mesh.repair import account
from mesh.share import Share
from mesh.sources import Source
from mesh.status import Facts, WorkerStatus, services
from mesh.store import Store

log = logging.getLogger("vipmesh")

COALESCE = 0.005
"""Seconds that a pass waits for company: a burst of changes becomes one pass."""
AUDIT = 10.0
"""Seconds after which the data plane is read back although nothing happened."""
LOOK_AGAIN = 1.0
"""Seconds until the next look at whether what drains has ended, and whether what failed for the first time goes now."""


class Reconciler:
    """One worker's loop over its parts. `run()` is all there is to do; `status()` may be asked at any time.

    `wake` is set by whoever has news (the prober too); `publish` swaps the names that the name server answers.
    `listening` says which ports programs of this worker listen on; None: the data plane finds that out by itself.
    `leaving` knows what operators want drained, and is told what each pass has left in the data plane.
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
        listening: Callable[[], Awaitable[Collection[tuple[Transport, int]]]] | None = None,
        published: PublishedPorts,
        prober: Probes,
        publish: Callable[[Mapping[Name, Part]], None],
        wake: asyncio.Event,
        leaving: Leaving | None = None,
    ) -> None:
        self._site = site
        self._facts = facts
        self._host = host
        self._sources = sources
        self._store = store
        self._plane = plane
        self._upkeep = upkeep
        self._listening = listening
        self._contested: frozenset[tuple[Transport, int]] = frozenset()
        self._served: frozenset[tuple[Transport, int]] = frozenset()
        self._publish = publish
        self._published = published
        self._judging = Judging(site.worker, prober, site.probe_floor)
        self._now = Pictures()
        self._journal = Journal()
        self._share = Share(site.worker, store, self._journal, self._decide)
        self._names: Mapping[Name, Part] = {}
        self._adopted: frozenset[RealKey] = frozenset()
        self._draining: Mapping[Place, float] = {}
        self._programmed: Table | None = None
        """What the last pass left behind: who finds it otherwise finds somebody's change."""
        self._failed_anew = False
        self._audited_at = self._mended_at = -math.inf
        self._mended_for: tuple[frozenset[Address], Claims] = (frozenset(), Claims())
        self._left = Table()
        """What the last pass wanted to leave behind."""
        self._looked_at = math.inf
        self._wake = wake
        self._leaving = leaving or Leaving()
        self._leaving.on_change = self._look_again
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
        now, journal, seen = self._now, self._journal, self._seen()
        frozen = {**journal.frozen, **{f"source {n}": t for n, s in enumerate(self._sources) if (t := s.trouble)}}
        if self._store.trouble:
            frozen["store"] = self._store.trouble
        return WorkerStatus(
            version=self._facts.version,
            worker=self._facts.worker,
            data_plane=self._facts.data_plane,
            data_plane_reason=self._facts.data_plane_reason,
            dns=self._facts.dns,
            services=services(seen, self._judging.known(seen), now.plan) if seen and now.plan else (),
            problems=tuple(line for part in sorted(journal.problems) for line in journal.problems[part]),
            failures=tuple(f"{failure.operation}: {failure.reason}" for failure in journal.failures),
            frozen=tuple(frozen[part] for part in sorted(frozen)),
            repairs=journal.repairs,
            suspicions=self._judging.suspicions(),
            probes=self._judging.probes(),
        )

    def is_alive(self) -> bool:
        """Whether the loop still comes round: once in an audit at the latest, with time for a slow kernel."""
        return asyncio.get_running_loop().time() < self._looked_at + 4 * AUDIT

    async def _adopt(self) -> frozenset[RealKey]:
        """Real servers that already carry traffic: their endpoints are presumed healthy until a probe says other."""
        try:
            table = await self._plane.read()
        except DataPlaneError as error:
            self._journal.froze("data plane", str(error))
            return frozenset()
        self._served = held(table)
        found = frozenset(real for server in table.virtual_servers.values() for real in server.real_servers)
        if found:
            log.info("adopted %d virtual servers with %d real servers", len(table.virtual_servers), len(found))
        return found

    # ------------------------------------------------------------------------------------- source -> store

    async def _follow_source(self, source: Source) -> None:
        async for instances, problems in source.watch():
            self._now.instances[id(source)] = instances
            self._journal.found(f"source {id(source)}", problems)
            self._look_again()

    def _look_again(self) -> None:
        self._register.set()
        self._wake.set()  # what leaves does not wait for the store

    async def _keep_registered(self) -> None:
        """Offer what all sources run. Until each has answered once, what was offered last stays."""
        while True:
            await self._register.wait()
            self._register.clear()
            if (instances := self._instances()) is None:
                continue
            site = self._site
            understand = partial(register, instances, worker=site.worker, domain=site.domain, pool=site.pool)
            offered = await compute(len(instances), understand)
            self._journal.found("labels", tuple(self._located(i, p) for i, p in offered.problems))
            self._share.offer(offered.services, offered.endpoints)

    def _instances(self) -> list[Instance] | None:
        """What runs on this worker; None until every source has answered once."""
        if len(self._now.instances) < len(self._sources):
            return None
        return self._leaving.marked(i for source in self._sources for i in self._now.instances[id(source)])

    def _seen(self) -> ClusterView | None:
        """The newest picture; None until the store has answered once."""
        view, instances = self._now.view, self._instances()
        return view if view is None or instances is None else up_to_date(view, self._site.worker, instances)

    def _located(self, instance: Instance, problem: Problem) -> Problem:
        for source in self._sources:
            if any(instance.id == known.id for known in self._now.instances[id(source)]):
                where = source.locate(instance, problem.label)
                return Problem(problem.severity, problem.subject, problem.reason, problem.remedy, problem.label, where)
        return problem

    # --------------------------------------------------------------------------------- store -> claims, view

    async def _follow_store(self) -> None:
        await self._share.run(self._see, patient=bool(self._adopted and self._sources))

    def _see(self, seen: ClusterView) -> None:
        self._now.view = seen
        self._published.claims = seen.claims
        self._judging.watch(seen, self._adopted, self._share.formerly_kept())
        self._adopted = frozenset()  # later endpoints have to prove themselves, at a known address too
        self._wake.set()

    def _decide(self, seen: ClusterView) -> tuple[tuple[Wish, ...], tuple[Problem, ...]]:
        return wishes(seen.services, seen.claims, pool=self._site.pool, ports=self._site.publish)

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
                async with asyncio.timeout(LOOK_AGAIN if self._draining or self._failed_anew else AUDIT):
                    await self._wake.wait()
                await asyncio.sleep(COALESCE)
            except TimeoutError:
                pass  # nothing happened: this pass is the audit, or a look at what is draining
            self._wake.clear()
            self._looked_at = asyncio.get_running_loop().time()
            if (seen := self._seen()) is not None:
                health = await self._judging.weigh(seen)
                self._share.judge(self._judging.said())
                if self._now.addresses is not None:
                    await self._pass(seen, health, self._now.addresses)

    async def _pass(
        self, seen: ClusterView, health: Mapping[EndpointKey, Health], addresses: frozenset[Address]
    ) -> None:
        await self._mend(addresses, seen.claims)
        served = replace(seen, claims=without(seen.claims, await self._contest(seen.claims)))
        planning = partial(plan, served, health, sorted(addresses), self._now.plan, self._site.resolver)
        planned = await compute(len(seen.endpoints), planning)
        try:
            failures = await self._program(planned)
        except DataPlaneError as error:
            self._journal.froze("data plane", str(error))
            return
        self._journal.thawed("data plane")
        self._failed_anew = not set(failures) <= set(self._journal.failures)
        self._now.plan = planned
        self._journal.refused(failures)
        self.passes += 1
        self._leaving.passed(seen, self._left)

    async def _contest(self, claims: Claims) -> frozenset[tuple[Transport, int]]:
        """The published ports to leave to programs of this worker; asked while there is one that is not served."""
        new = claims.ports.keys() - self._served
        if self._listening is not None and new:
            self._contested = contested(claims, await self._listening(), self._served)
            self._served |= new - self._contested
            self._journal.found("ports", tuple(told(claims, self._contested)))
        return self._contested

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
        keys = await self._look_at(planned.table)
        observed, wanted = await self._drained(planned, keys)
        operations = await compute(len(wanted.virtual_servers), partial(diff, observed, wanted))
        staying = {name: part for name, part in self._names.items() if planned.names.get(name) == part.vip}
        self._show(staying)
        failures = await self._plane.apply(operations) if operations else ()
        await self._tell_repairs(keys, observed, operations, failures)
        self._left = self._programmed if self._programmed is not None else wanted
        for operation in operations:
            log.debug("data plane: %s", operation)
        unbound = {f.operation.address for f in failures if isinstance(f.operation, BindVip)}
        parts = planned.parts.values()
        self._show({n: part for part in parts for n in part.names if n in staying or part.vip not in unbound})
        return failures

    async def _look_at(self, wanted: Table) -> frozenset[VirtualKey] | None:
        """What to read of the data plane: what shall change, and in an audit everything (None)."""
        now = asyncio.get_running_loop().time()
        if self._programmed is None or self._journal.failures or now >= self._audited_at + AUDIT / 2:
            self._audited_at = now
            return None
        return await compute(len(wanted.virtual_servers), partial(changed, self._programmed, wanted))

    async def _tell_repairs(
        self,
        keys: frozenset[VirtualKey] | None,
        observed: Table,
        operations: Sequence[Operation],
        failures: Sequence[Failure],
    ) -> None:
        """Of what was done, tell what somebody else made necessary: it restores what the last pass had left."""
        refused = frozenset(failure.operation for failure in failures)
        look = partial(account, self._programmed, keys, observed, operations, refused)
        repairs, self._programmed = await compute(len(observed.virtual_servers) + len(operations), look)
        self._journal.repaired(repairs)

    async def _drained(self, planned: Plan, keys: frozenset[VirtualKey] | None) -> tuple[Table, Table]:
        """Of these virtual servers: what is there, and what shall be now: the plan with what still has to finish."""
        observed = await self._plane.read(keys)
        desired = planned.table if keys is None else planned.table.part(keys)
        going = leaving(observed, desired)
        counts = await self._plane.connections({virtual for virtual, _ in going}) if going else {}
        drained = drain(
            observed,
            desired,
            failed=planned.failed,
            connections=counts,
            since=self._draining,
            now=asyncio.get_running_loop().time(),
            timeout=self._site.drain_timeout,
        )
        self._draining = drained.since
        return observed, drained.table

    def _show(self, names: Mapping[Name, Part]) -> None:
        if names != self._names:
            self._names = names
            self._publish(names)
