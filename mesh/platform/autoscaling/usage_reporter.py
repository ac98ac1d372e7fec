"""Tells the usage of this worker's scaled containers every ten seconds. Off while no service is scaled."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mesh.config.labels.reader import is_scaled
from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.problem import Problem, Severity
from mesh.model.service import Instance
from mesh.platform.autoscaling.usage_records import encode_usage, usage_key
from mesh.platform.autoscaling.usage_sampler import MeasuredContainer, UsageSampler
from mesh.store import StoreError
from mesh.store.usage import UsageStore
from mesh.util.bulkhead import Bulkhead
from mesh.util.conditions import Conditions

INTERVAL = 10.0
"""Seconds from one sample to the next."""
_SEARCHES = 32
"""Containers whose process the engine is asked for in one round: each takes a request."""

bulkhead = Bulkhead(DaemonPart.AUTOSCALING)


@dataclass(frozen=True, slots=True)
class ContainerProcessId:
    """The first process of a container, as its engine tells it."""

    container: str
    """The whole ID."""
    pid: int


@dataclass(frozen=True, slots=True)
class ScaledInstance:
    """An instance whose service is scaled."""

    instance: Instance
    is_probed: bool
    has_served: bool
    """Whether a probe of its present run has succeeded."""


FindProcess: TypeAlias = Callable[[str], Awaitable[ContainerProcessId | None]]
"""Asks the engine for the process of a container by the beginning of its ID; None if it is gone or not told."""
OpenUsageStore: TypeAlias = Callable[[], Awaitable[UsageStore]]


def has_scaling_labels(instance: Instance) -> bool:
    """Return whether the labels of a container say that its service is scaled."""
    return is_scaled(instance.labels)


class UsageReporter:
    """Samples and writes, round after round."""

    def __init__(
        self,
        worker: str,
        instances: Callable[[], Iterable[ScaledInstance]],
        *,
        find_process: FindProcess,
        make_sampler: Callable[[], UsageSampler],
        open_store: OpenUsageStore,
        conditions: Conditions,
    ) -> None:
        """`instances` returns those of this worker whose services are scaled; the store is opened with the first.

        `conditions` has what keeps usage from being measured or told.
        """
        self._worker = worker
        self._instances = instances
        self._find_process = find_process
        self._make_sampler = make_sampler
        self._open_store = open_store
        self._conditions = conditions
        self._sampler: UsageSampler | None = None
        self._store: UsageStore | None = None
        self._processes: dict[tuple[str, str | None], ContainerProcessId] = {}
        """By instance and run."""

    async def run(self) -> None:
        """Report until cancelled."""
        try:
            while True:
                await bulkhead.run("usage", self.report)
                await asyncio.sleep(INTERVAL)
        finally:
            store, self._store = self._store, None  # a run that is started again opens another one
            if store is not None:
                await store.close()

    async def report(self) -> None:
        """Take one sample and write it; nothing if no service is scaled."""
        scaled = {(each.instance.id, each.instance.run): each for each in self._instances()}
        if not scaled:
            self._sampler, self._processes = None, {}
            self._conditions.found(ProblemPart.AUTOSCALING, ())
            return
        await self._find_processes(scaled)
        containers = [_container(each, self._processes.get(key)) for key, each in scaled.items()]
        if self._sampler is None:
            self._sampler = await asyncio.to_thread(self._make_sampler)
        now = asyncio.get_running_loop().time()
        usage = await asyncio.to_thread(self._sampler.sample, containers, now)
        problems = self._unreadable(self._sampler.unreadable)
        try:
            if self._store is None:
                self._store = await self._open_store()
            await self._store.write(usage_key(self._worker), encode_usage(usage))
        except StoreError as error:
            reason, remedy = str(error), "usage is told again every 10 s; until then nothing is scaled by it"
            problems.append(Problem(Code.USAGE_NOT_WRITTEN, Severity.WARNING, "usage of containers", reason, remedy))
        self._conditions.found(ProblemPart.AUTOSCALING, problems)

    async def _find_processes(self, scaled: Mapping[tuple[str, str | None], ScaledInstance]) -> None:
        self._processes = {key: found for key, found in self._processes.items() if key in scaled}
        new = [key for key in scaled if key not in self._processes]
        for key in new[:_SEARCHES]:
            found = await self._find_process(key[0].rpartition("/")[2])
            if found is not None:
                self._processes[key] = found

    def _unreadable(self, containers: Sequence[str]) -> list[Problem]:
        if not containers:
            return []
        first, more = containers[0][:12], len(containers) - 1
        subject = f"container {first}" + (f" and {more} more" if more else "")
        return [
            Problem(
                Code.USAGE_UNREADABLE,
                Severity.WARNING,
                subject,
                "its usage cannot be read from cgroup files, so its service is not scaled down",
                "run the daemon with the PIDs and the cgroups of the host, and /sys/fs/cgroup mounted",
            )
        ]


def _container(scaled: ScaledInstance, process: ContainerProcessId | None) -> MeasuredContainer:
    instance = scaled.instance
    id, pid = (instance.id, 0) if process is None else (process.container, process.pid)
    return MeasuredContainer(id, instance.owner, pid, instance.run or "", scaled.is_probed, scaled.has_served)
