"""Registers what the sources report: the instances on this worker, and problems with their labels."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mesh.cluster.registration import register_instances
from mesh.config.labels.reader import parse_cost
from mesh.control.conditions import LoopConditions
from mesh.control.context import LoopEvents
from mesh.control.drain_requests import DrainRequests
from mesh.control.ports import WorkerConfig
from mesh.control.weight_requests import WeightRequests
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Instance, Service
from mesh.sources import Source
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute

bulkhead = Bulkhead(DaemonPart.SOURCES)


class SourceWatcher:
    """Follows the sources and registers their instances with the cluster.

    Until each source has answered once, the former registration stays in force: an empty list counts only if the source
    has answered.
    """

    def __init__(
        self,
        config: WorkerConfig,
        sources: Sequence[Source],
        *,
        drains: DrainRequests,
        weights: WeightRequests,
        conditions: LoopConditions,
        events: LoopEvents,
        offer: Callable[[tuple[Service, ...], tuple[Endpoint, ...]], Awaitable[None]],
    ) -> None:
        """`drains` and `weights`: what operators requested. `offer` is called with all services and endpoints of this
        worker.
        """
        self._config = config
        self._sources = sources
        self._drains = drains
        self._weights = weights
        self._conditions = conditions
        self._events = events
        self._offer = offer
        self._found: dict[str, tuple[Instance, ...]] = {}
        """Instances by the name of their source. A source that has not answered yet is missing."""
        self._instances: tuple[object, object, Mapping[str, Instance]] | None = None
        """The requested drains and weights, and the instances by ID with these applied; None if they must be computed
        again.
        """

    async def run(self) -> None:
        """Follow all sources, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                follow = bulkhead.keep_running(source.name, partial(self._follow, source))
                tasks.create_task(follow, name=source.name)
            tasks.create_task(bulkhead.keep_running("registration", self._keep_registered), name="registration")

    def instances(self) -> Mapping[str, Instance] | None:
        """The instances on this worker by ID; None until every source has answered once. The same object while nothing
        has changed.
        """
        if len(self._found) < len(self._sources):
            return None
        drains, weights = self._drains.asked, self._weights.asked
        if self._instances is None or self._instances[0] is not drains or self._instances[1] is not weights:
            marked = self._drains.marked(i for source in self._sources for i in self._found[source.name])
            self._instances = drains, weights, {instance.id: instance for instance in self._weights.marked(marked)}
        return self._instances[2]

    def frozen(self) -> dict[str, CodedText]:
        """Why the last list of a source stays in force, by the name of the source; empty if all of them answer."""
        return {source.name: trouble for source in self._sources if (trouble := source.trouble)}

    async def _follow(self, source: Source) -> None:
        async for instances, problems in source.watch():
            self._found[source.name] = instances
            self._conditions.found(source.name, problems)
            self._instances = None
            self._events.instances_changed.set()

    async def _keep_registered(self) -> None:
        while True:
            await self._events.registration.wait()
            self._events.registration.clear()
            try:
                await self._register()
            except Exception:
                self._events.registration.set()  # it is due again as soon as this is started again
                raise

    async def _register(self) -> None:
        if (instances := self.instances()) is None:
            return
        config, running = self._config, [*instances.values()]
        register = partial(register_instances, running, worker=config.worker, domain=config.domain, pool=config.pool)
        # Whoever starts containers chooses what their labels cost, which must not hold the event loop.
        size = len(running) + sum(parse_cost(instance.labels) for instance in running)
        offered = await compute(size, register)
        for instance, error in offered.failed:
            bulkhead.caught(f"labels of {instance.id}", error)
        at = {known.id: source for source in reversed(self._sources) for known in self._found[source.name]}
        located = tuple(_located(i, p, at.get(i.id)) for i, p in offered.problems)
        self._conditions.found(ProblemPart.LABELS, located)
        await self._offer(offered.services, offered.endpoints)


def _located(instance: Instance, problem: Problem, source: Source | None) -> Problem:
    """Return the problem with the place of its labels; `source` is None if no source has the instance any more."""
    where = problem.where if source is None else source.locate(instance, problem.label)
    return replace(problem, where=where, owner=instance.owner)
