"""Makes samples of services from the usage records of all workers. Pure.

The clocks of workers are not compared: a record counts as new when it differs in its round, and its time is that at
which it was seen.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from mesh.platform.autoscaling.model import InstanceSample, ScalingMeasure, ServiceSample
from mesh.platform.autoscaling.usage_records import InstanceUsage, WorkerUsage

FRESH = 25.0
"""Seconds for which a record counts: two intervals and a half."""
_KEPT = 6
"""Samples of a service: those of a minute."""
_CORE = 1000


@dataclass(frozen=True, slots=True)
class ScalingBase:
    """What per cent are of. 0: the service has none, and what the container itself has counts."""

    cpu_limit: float = 0.0
    """Cores."""
    cpu_reservation: float = 0.0
    memory_limit: int = 0
    """Bytes."""
    memory_reservation: int = 0

    def cpu(self, usage: InstanceUsage) -> tuple[float, str]:
        """Return the cores that an instance has, and which they are."""
        if limit := self.cpu_limit or usage.cpu_limit / _CORE:
            return limit, "of the limit"
        if self.cpu_reservation:
            return self.cpu_reservation, "of the reservation"
        return 1.0, "of one core"

    def memory(self, usage: InstanceUsage, worker: int) -> tuple[int, str]:
        """Return the bytes that an instance has, and which they are; `worker` are those of its worker."""
        if limit := self.memory_limit or usage.memory_limit:
            return limit, "of the limit"
        if self.memory_reservation:
            return self.memory_reservation, "of the reservation"
        return worker, "of the worker's memory"


@dataclass(frozen=True, slots=True)
class _SeenUsage:
    """The last record of a worker, and when it was seen first."""

    usage: WorkerUsage
    at: float


class UsageHistory:
    """Keeps the samples of the last minute of each service."""

    def __init__(self) -> None:
        self._seen: dict[str, _SeenUsage] = {}
        self._samples: dict[str, deque[ServiceSample]] = {}

    def take(self, records: Mapping[str, WorkerUsage], bases: Mapping[str, ScalingBase], now: float) -> None:
        """Take one look at the records of all workers, by worker, and add a sample to each service of `bases`.

        Services that `bases` does not have are forgotten. `now` is of a monotonic clock.
        """
        for worker, usage in records.items():
            before = self._seen.get(worker)
            if before is None or (before.usage.run, before.usage.round) != (usage.run, usage.round):
                self._seen[worker] = _SeenUsage(usage, now)
        fresh = [seen.usage for worker, seen in self._seen.items() if worker in records and now - seen.at <= FRESH]
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in records}
        self._samples = {owner: self._samples.get(owner, deque(maxlen=_KEPT)) for owner in bases}
        for owner, base in bases.items():
            self._samples[owner].append(ServiceSample(now, service_instances(owner, fresh, base)))

    def samples(self, owner: str) -> tuple[ServiceSample, ...]:
        """Return the samples of a service in the order of their time."""
        return tuple(self._samples.get(owner, ()))


def service_instances(owner: str, usages: list[WorkerUsage], base: ScalingBase) -> tuple[InstanceSample, ...]:
    """Return what all workers told of the instances of a service.

    Connections to an instance come through several workers, so theirs are added. An instance of which a worker knows
    connections alone runs elsewhere, and counts only together with what its own worker tells.
    """
    values: dict[str, dict[ScalingMeasure, float]] = {}
    own: dict[str, InstanceUsage] = {}
    for usage in usages:
        for each in usage.services.get(owner, ()):
            found = values.setdefault(each.id, {})
            for measure, count in (
                (ScalingMeasure.CONNECTIONS, each.connections),
                (ScalingMeasure.CONNECTION_RATE, each.new_connections),
            ):
                if count is not None:
                    unit = 1 if measure is ScalingMeasure.CONNECTIONS else _CORE
                    found[measure] = found.get(measure, 0.0) + count / unit
            if each.cpu is None and each.memory is None:
                continue
            own[each.id] = each
            if each.cpu is not None:
                found[ScalingMeasure.CPU] = 100 * each.cpu / _CORE / base.cpu(each)[0]
            memory = base.memory(each, usage.memory)[0]
            if each.memory is not None and memory:
                found[ScalingMeasure.MEMORY] = 100 * each.memory / memory
    return tuple(
        InstanceSample(values[id], each.throttled / _CORE, each.is_starting) for id, each in sorted(own.items())
    )
