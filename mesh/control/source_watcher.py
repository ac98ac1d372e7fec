"""From the sources to the registration: what runs on this worker, and what is wrong with its labels."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mesh.cluster.registration import register_instances
from mesh.control.conditions import LoopConditions
from mesh.control.context import LoopEvents
from mesh.control.drain_requests import DrainRequests
from mesh.control.ports import WorkerConfig
from mesh.model.errors import CodedText
from mesh.model.part import ProblemPart
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Instance, Service
from mesh.sources import Source
from mesh.util.offload import compute


class SourceWatcher:
    """Follows the sources, and offers to the cluster what they run.

    Until each source has answered once, what was offered before stays: an empty list is believed only from a source
    that answered.
    """

    def __init__(
        self,
        site: WorkerConfig,
        sources: Sequence[Source],
        *,
        drains: DrainRequests,
        journal: LoopConditions,
        events: LoopEvents,
        offer: Callable[[tuple[Service, ...], tuple[Endpoint, ...]], None],
    ) -> None:
        """`drains`: what operators want drained. `offer` is given all services and endpoints of this worker."""
        self._site = site
        self._sources = sources
        self._drains = drains
        self._journal = journal
        self._events = events
        self._offer = offer
        self._found: dict[str, tuple[Instance, ...]] = {}
        """By the name of the source. A source that has not answered yet is missing."""
        self._here: tuple[object, Mapping[str, Instance]] | None = None
        """The drains that were asked for, and the instances by id with them; None: to be computed again."""

    async def run(self) -> None:
        """Follow all sources, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                tasks.create_task(self._follow(source), name=source.name)
            tasks.create_task(self._keep_registered(), name="registration")

    def instances(self) -> Mapping[str, Instance] | None:
        """What runs on this worker, by id; None until every source has answered once. The same object while nothing has
        changed."""
        if len(self._found) < len(self._sources):
            return None
        asked = self._drains.asked
        if self._here is None or self._here[0] is not asked:
            found = self._drains.marked(i for source in self._sources for i in self._found[source.name])
            self._here = asked, {instance.id: instance for instance in found}
        return self._here[1]

    def frozen(self) -> dict[str, CodedText]:
        """Why the last list of a source stays in force, by the name of the source; empty if all of them answer."""
        return {source.name: trouble for source in self._sources if (trouble := source.trouble)}

    async def _follow(self, source: Source) -> None:
        async for instances, problems in source.watch():
            self._found[source.name] = instances
            self._journal.found(source.name, problems)
            self._here = None
            self._events.instances_changed.set()

    async def _keep_registered(self) -> None:
        while True:
            await self._events.registration.wait()
            self._events.registration.clear()
            if (here := self.instances()) is None:
                continue
            site, instances = self._site, [*here.values()]
            understand = partial(register_instances, instances, worker=site.worker, domain=site.domain, pool=site.pool)
            offered = await compute(len(instances), understand)
            self._journal.found(ProblemPart.LABELS, tuple(self._located(i, p) for i, p in offered.problems))
            self._offer(offered.services, offered.endpoints)

    def _located(self, instance: Instance, problem: Problem) -> Problem:
        for source in self._sources:
            if any(instance.id == known.id for known in self._found[source.name]):
                where = source.locate(instance, problem.label)
                return replace(problem, where=where, owner=instance.owner)
        return replace(problem, owner=instance.owner)
