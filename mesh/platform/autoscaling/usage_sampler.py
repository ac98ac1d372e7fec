"""Samples the usage of this worker's containers: counters of now less those of the sample before. Reads no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.platform.autoscaling.cgroup_files import CgroupLimits, CgroupUsage, ContainerCgroup
from mesh.platform.autoscaling.cgroup_reader import CgroupSource
from mesh.platform.autoscaling.usage_records import InstanceUsage, WorkerUsage

STARTING = 30.0
"""Seconds for which an instance without a probe counts as one that starts."""
_SHORTEST = 1.0
"""Seconds between two samples of a container from which its CPU is computed."""
_REREAD_EVERY = 6
"""Rounds after which limits are read again: an operator may change them while a container runs."""
_THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class MeasuredContainer:
    """A container whose service is scaled."""

    id: str
    """As its engine names it."""
    owner: str
    """`project/service`."""
    pid: int
    """One of its processes, as the engine tells it; 0: not known."""
    run: str
    """Another one after each start."""
    is_probed: bool = False
    has_served: bool = False
    """Whether a probe of this run has succeeded."""


@dataclass(frozen=True, slots=True)
class _TrackedContainer:
    """What is known of a container from earlier rounds."""

    run: str
    cgroup: ContainerCgroup
    since: float
    limits: CgroupLimits
    usage: CgroupUsage | None = None
    at: float = 0.0


class UsageSampler:
    """Keeps the counters of the round before. `sample` blocks for some tens of microseconds per container."""

    def __init__(self, source: CgroupSource, run: str, memory: int) -> None:
        """`run`: which run of the daemon this is. `memory`: bytes that this worker has."""
        self._source = source
        self._run = run
        self._memory = memory
        self._round = 0
        self._tracked: dict[str, _TrackedContainer] = {}
        self.unreadable: tuple[str, ...] = ()
        """Containers of the last round whose cgroup is not visible here, in order."""

    def sample(self, containers: Sequence[MeasuredContainer], now: float) -> WorkerUsage:
        """Return the usage of these containers since the round before. `now` is of a monotonic clock."""
        self._round += 1
        tracked: dict[str, _TrackedContainer] = {}
        services: dict[str, list[InstanceUsage]] = {}
        unreadable = []
        for container in sorted(containers, key=lambda each: (each.owner, each.id)):
            before = self._followed(container, now)
            usage = None if before is None else self._source.usage(before.cgroup)
            if before is None or usage is None:
                unreadable.append(container.id)
                continue
            limits = self._source.limits(before.cgroup) if self._round % _REREAD_EVERY == 0 else before.limits
            tracked[container.id] = _TrackedContainer(before.run, before.cgroup, before.since, limits, usage, now)
            services.setdefault(container.owner, []).append(_instance_usage(container, before, usage, limits, now))
        self._tracked, self.unreadable = tracked, tuple(sorted(unreadable))
        return WorkerUsage(self._round, self._run, self._memory, _frozen(services))

    def _followed(self, container: MeasuredContainer, now: float) -> _TrackedContainer | None:
        """Return what is known of a container, which is looked for if it is new; None if it is not visible."""
        before = self._tracked.get(container.id)
        if before is not None and before.run == container.run:
            return before
        cgroup = self._source.find(container.id, container.pid) if container.pid > 0 else None
        if cgroup is None:
            return None
        return _TrackedContainer(container.run, cgroup, now, self._source.limits(cgroup))


def _instance_usage(
    container: MeasuredContainer, before: _TrackedContainer, usage: CgroupUsage, limits: CgroupLimits, now: float
) -> InstanceUsage:
    is_starting = not container.has_served if container.is_probed else now - before.since < STARTING
    cpu, throttled = _rates(before, usage, now)
    return InstanceUsage(
        container.id,
        cpu,
        usage.memory,
        throttled,
        is_starting,
        round((limits.cpu or 0) * _THOUSAND),
        limits.memory or 0,
    )


def _rates(before: _TrackedContainer, usage: CgroupUsage, now: float) -> tuple[int | None, int]:
    """Return thousandths of a core, None without a sample before, and thousandths of periods that were throttled.

    Counters that go back are of another cgroup under the same name.
    """
    if before.usage is None or now - before.at < _SHORTEST or usage.cpu_ns < before.usage.cpu_ns:
        return None, 0
    cpu = round((usage.cpu_ns - before.usage.cpu_ns) / (now - before.at) / 1e9 * _THOUSAND)
    periods, throttled = usage.periods - before.usage.periods, usage.throttled - before.usage.throttled
    share = throttled / periods if periods > 0 and throttled > 0 else 0.0
    return cpu, round(min(share, 1.0) * _THOUSAND)


def _frozen(services: Mapping[str, list[InstanceUsage]]) -> dict[str, tuple[InstanceUsage, ...]]:
    return {owner: tuple(found) for owner, found in services.items()}
