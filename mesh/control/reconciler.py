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
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mesh.cluster.claims import ClaimRequest, claims_in_force, plan_claims
from mesh.cluster.peer_monitor import PeerMonitor
from mesh.cluster.registration import register_instances
from mesh.cluster.sync import ClusterSync
from mesh.control.conditions import LoopConditions
from mesh.control.digest import TableDigest
from mesh.control.drain_requests import DrainRequests
from mesh.control.local_overlay import LocalOverlay
from mesh.control.planner import make_plan, planning_effort
from mesh.control.port_conflicts import conflict_problems, contested_ports, served_ports
from mesh.control.ports import HostNetwork, HostUpkeep, LoopState, WorkerConfig
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.control.stats import LoopStats
from mesh.control.sync import DataPlaneSync
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.ownership import PublishedPorts
from mesh.health.monitor import HealthMonitor, HealthProber
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.problem import Problem
from mesh.model.service import Address, Instance, Name, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.sources import Source
from mesh.store import Store
from mesh.util.offload import compute
from mesh.util.pacing import RunPacer

log = logging.getLogger("vipmesh")

REST, LONGEST_REST = 1.0, 0.5
"""How many times as long as a pass took until the next one, and how many seconds at most."""
AUDIT = 10.0
"""Seconds after which the data plane is read back although nothing happened."""
LOOK_AGAIN = 1.0
"""Seconds until the next look at whether what drains has ended, and whether what failed for the first time goes now."""


class Reconciler:
    """One worker's loop over its parts. `run()` is all there is to do; `observe()` may be asked at any time.

    `wake` is set by whoever has news (the prober too); `publish` swaps the names that the name server answers.
    `listening` says which ports programs of this worker listen on; None: the data plane finds that out by itself.
    `leaving` knows what operators want drained, and is told what each pass has left in the data plane. `reach` asks the
    other workers; None: nobody is asked, and all of them are there.
    """

    def __init__(
        self,
        site: WorkerConfig,
        facts: WorkerFacts,
        *,
        host: HostNetwork,
        sources: Sequence[Source],
        store: Store,
        plane: DataPlane,
        upkeep: Sequence[HostUpkeep] = (),
        listening: Callable[[], Awaitable[Collection[tuple[Transport, int]]]] | None = None,
        published: PublishedPorts,
        prober: HealthProber,
        publish: Callable[[Mapping[Name, ServicePlan]], None],
        wake: asyncio.Event,
        leaving: DrainRequests | None = None,
        reach: PeerMonitor | None = None,
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
        self._published = published
        self._judging = HealthMonitor(site.worker, prober, site.probe_floor)
        self._now = LoopState()
        self._claimed = (Claims(), Claims())
        """All of the newest picture, and those of them that are in force."""
        self._journal = LoopConditions()
        self._asks = reach is not None
        self._reach = reach or PeerMonitor(wake.set)
        self._share = ClusterSync(
            site.worker, store, self._journal, self._decide, listens=site.listens, answers=self._reach.answers
        )
        self.figures = LoopStats()
        self._programming = DataPlaneSync(
            plane, publish, self._journal, self.figures, audit=AUDIT, drain_timeout=site.drain_timeout
        )
        self._adopted: frozenset[RealKey] = frozenset()
        self._failed_anew = False
        self._mended_at = -math.inf
        self._mended_for: tuple[frozenset[Address], Claims] = (frozenset(), Claims())
        self._looked_at = math.inf
        self._wake = wake
        self._leaving = leaving or DrainRequests()
        self._leaving.on_change = self._look_again
        self._register = asyncio.Event()
        self._word = TableDigest()
        self._pace = RunPacer(REST, LONGEST_REST)
        self._here: Mapping[str, Instance] | None = None
        """What runs on this worker by id, as it was looked at last; None: to be looked at again."""
        self._local = LocalOverlay(site.worker)
        self.on_pass: Callable[[], None] = lambda: None
        """Called after each pass, whether it came to its end or not."""

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
            if self._asks:
                tasks.create_task(self._reach.run(self), name="other workers")

    def observe(self) -> WorkerSnapshot:
        """This moment, for whoever tells of it later."""
        now, journal = self._now, self._journal
        here = self._instances()
        frozen = {**journal.frozen, **{f"source {n}": t for n, s in enumerate(self._sources) if (t := s.trouble)}}
        if self._store.trouble:
            frozen["store"] = self._store.trouble
        return WorkerSnapshot(
            self._facts,
            now.view,
            None if here is None else tuple(here.values()),
            self._judging.own(),
            self._judging.judged(now.view or ClusterView()),
            now.plan,
            dict(journal.problems),
            tuple(failure.coded for failure in journal.failures),
            frozen,
            journal.repairs,
            len(self._programming.draining),
            self.digest(),
            *self._reach.lost,
        )

    def evidence(self) -> DetailedSnapshot:
        """All that `explain` goes by, now."""
        return DetailedSnapshot(
            self.observe(),
            self._site.domain,
            self._judging.histories(),
            self._contested,
            {name: part.vip for name, part in self._programming.names.items()},
            self._programming.left,
            asyncio.get_running_loop().time(),
        )

    @property
    def passes(self) -> int:
        """How many came to their end."""
        return self.figures.passes

    def digest(self) -> str | None:
        """Of what was planned last; None: nothing yet."""
        return None if self._now.plan is None else self._word(self._now.plan)

    def workers(self) -> Mapping[str, RealKey]:
        """See `Others.workers`."""
        return self._share.peer_addresses

    def unleased(self) -> Collection[str]:
        """See `Others.unleased`."""
        return self._share.unleased

    def deaf(self) -> Collection[str]:
        """See `Others.deaf`."""
        return self.view().workers - self.workers().keys() - {self._site.worker}

    def view(self) -> ClusterView:
        """See `Others.view`."""
        return self._now.view or ClusterView()

    def is_alive(self) -> bool:
        """Whether the loop still comes round: once in an audit at the latest, with time for a slow kernel."""
        return asyncio.get_running_loop().time() < self._looked_at + 4 * AUDIT

    async def _adopt(self) -> frozenset[RealKey]:
        """Real servers that already carry traffic: their endpoints are presumed healthy until a probe says other."""
        try:
            table = await self._plane.read()
        except DataPlaneError as error:
            self._journal.froze("data plane", error)
            return frozenset()
        self._served = served_ports(table)
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
        self._here = None
        self._register.set()
        self._wake.set()  # what leaves does not wait for the store

    async def _keep_registered(self) -> None:
        """Offer what all sources run. Until each has answered once, what was offered last stays."""
        while True:
            await self._register.wait()
            self._register.clear()
            if (here := self._instances()) is None:
                continue
            site, instances = self._site, [*here.values()]
            understand = partial(register_instances, instances, worker=site.worker, domain=site.domain, pool=site.pool)
            offered = await compute(len(instances), understand)
            self._journal.found("labels", tuple(self._located(i, p) for i, p in offered.problems))
            self._share.offer(offered.services, offered.endpoints)

    def _instances(self) -> Mapping[str, Instance] | None:
        """What runs on this worker, by id; None until every source has answered once."""
        if len(self._now.instances) < len(self._sources):
            return None
        if self._here is None:
            found = self._leaving.marked(i for source in self._sources for i in self._now.instances[id(source)])
            self._here = {instance.id: instance for instance in found}
        return self._here

    def _seen(self) -> ClusterView | None:
        """The newest picture; None until the store has answered once."""
        if self._now.view is None:
            return None
        self._local = self._local.after(self._now.view, self._instances(), self._judging.own())
        return self._reach.withheld(self._local.picture())

    def _located(self, instance: Instance, problem: Problem) -> Problem:
        for source in self._sources:
            if any(instance.id == known.id for known in self._now.instances[id(source)]):
                where = source.locate(instance, problem.label)
                return replace(problem, where=where, owner=instance.owner)
        return replace(problem, owner=instance.owner)

    # --------------------------------------------------------------------------------- store -> claims, view

    async def _follow_store(self) -> None:
        await self._share.run(self._see, patient=bool(self._adopted and self._sources))

    def _see(self, seen: ClusterView) -> None:
        if seen.claims is not self._claimed[0]:
            self._claimed = seen.claims, claims_in_force(seen.claims, self._site.pool)
        if self._claimed[1] is not seen.claims:
            seen = seen.regrouped(seen.groups, claims=self._claimed[1])
        self._now.view = seen
        self._published.claims = seen.claims
        self._judging.watch(seen, self._adopted, self._share.formerly_kept())
        self._adopted = frozenset()  # later endpoints have to prove themselves, at a known address too
        self._wake.set()

    def _decide(self, seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=self._site.pool, ports=self._site.publish)

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
                async with asyncio.timeout(LOOK_AGAIN if self._programming.draining or self._failed_anew else AUDIT):
                    await self._wake.wait()
                await self._pace.wait()
            except TimeoutError:
                pass  # nothing happened: this pass is the audit, or a look at what is draining
            self._wake.clear()
            self._share.review()
            self._reach.lease_ended(self.unleased())
            self._journal.found("peers", self._reach.problems())
            self._looked_at = asyncio.get_running_loop().time()
            self.figures.looked_at = time.time()
            with self._pace.work():
                if (seen := self._seen()) is not None:
                    weighed = await self._judging.weigh(seen)
                    self._share.judge(self._judging.said())
                    if self._now.addresses is not None:
                        await self._pass(weighed, self._now.addresses)
            self.on_pass()

    async def _pass(self, seen: ClusterView, addresses: frozenset[Address]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._mend(addresses, seen.claims)
        left, own = await self._contest(seen.claims), sorted(addresses)
        resolver = self._site.resolver
        planning = partial(make_plan, seen, seen.health, own, self._now.plan, resolver=resolver, contested=left)
        planned = await compute(planning_effort(seen, self._now.plan), planning)
        try:
            failures = await self._programming.program(planned)
        except DataPlaneError as error:
            self._journal.froze("data plane", error)
            self.figures.stalls += 1
            return
        self._journal.thawed("data plane")
        self._failed_anew = not set(failures) <= set(self._journal.failures)
        self._now.plan = planned
        self._journal.refused(failures)
        self._leaving.passed(seen, self._programming.left)
        self.figures.passes += 1
        self.figures.pass_seconds.observe(loop.time() - began)

    async def _contest(self, claims: Claims) -> frozenset[tuple[Transport, int]]:
        """The published ports to leave to programs of this worker; asked while there is one that is not served."""
        new = claims.ports.keys() - self._served
        if self._listening is not None and new:
            self._contested = contested_ports(claims, await self._listening(), self._served)
            self._served |= new - self._contested
            self._journal.found("ports", tuple(conflict_problems(claims, self._contested)))
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
                self._journal.froze(f"host {number}", error)
                continue
            self._journal.thawed(f"host {number}")
            self._journal.mended(found, first=first)
