"""Where the fake engines place a task, and why they do not, in the engine's words. Pure.

The rules are those of swarmkit's scheduler (`manager/scheduler/filter.go`, `nodeset.go`): filters in a fixed order, of
which the first that a worker fails counts; then the fewest tasks of the service, then the fewest tasks.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mesh.platform.fleet.protocol import FleetAvailability, FleetResources, FleetSpec, FleetWorker

_CONSTRAINT = re.compile(r"\s*([a-z0-9_.-]+)\s*(==|!=)\s*(\S.*?)\s*", re.ASCII | re.IGNORECASE)

_NOT_READY = ("1 node not available for new tasks", "{} nodes not available for new tasks")
_RESOURCES = ("insufficient resources on 1 node", "insufficient resources on {} nodes")
_CONSTRAINTS = ("scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on {} nodes")
_MOST = ("max replicas per node limit exceed", "max replicas per node limit exceed")
_REASONS = (_NOT_READY, _RESOURCES, _CONSTRAINTS, _MOST)


def validate_constraint(text: str) -> None:
    """Raise ValueError, in the engine's words, if the engine would not take a constraint."""
    if "==" not in text and "!=" not in text:
        raise ValueError('constraint expected one operator from "==, !="')
    found = _CONSTRAINT.fullmatch(text)
    if found is None:
        raise ValueError(f"constraint {text!r} is invalid")


def is_met(constraint: str, worker: FleetWorker) -> bool:
    """Return whether a worker meets a constraint. A label that it lacks is as an empty one."""
    found = _CONSTRAINT.fullmatch(constraint)
    if found is None:
        return False
    key, operator, value = found.groups()
    return (worker_value(key, worker).lower() == value.lower()) is (operator == "==")


def worker_value(key: str, worker: FleetWorker) -> str:
    """Return the value of `node.labels.NAME` and the like; empty if the worker has none."""
    known = {"node.id": worker.id, "node.hostname": worker.name, "node.role": worker.role, "node.ip": worker.address}
    if key.lower() in known:
        return known[key.lower()]
    kind, labels = ("engine.labels.", worker.engine_labels)
    if key.lower().startswith("node.labels."):
        kind, labels = ("node.labels.", worker.labels)
    return labels.get(key[len(kind) :], "") if key.lower().startswith(kind) else ""


def may_stay(spec: FleetSpec, worker: FleetWorker) -> bool:
    """Return whether the tasks of a service that run on a worker may go on there."""
    return all(is_met(each, worker) for each in spec.constraints)


def is_open(worker: FleetWorker) -> bool:
    """Return whether a worker takes tasks."""
    return worker.is_ready and worker.availability is FleetAvailability.ACTIVE


class FakePlacement:
    """What runs where while tasks are placed one after the other."""

    def __init__(self, workers: Iterable[FleetWorker], running: Iterable[tuple[FleetSpec, str]]) -> None:
        """`running`: the spec of each task that has a worker, and the ID of the worker."""
        self._workers = {each.id: each for each in workers}
        self._tasks: Counter[str] = Counter()
        self._of_service: Counter[tuple[str, str]] = Counter()
        self._used: dict[str, FleetResources] = {}
        for spec, worker in running:
            self._add(spec, worker)

    def choose(self, spec: FleetSpec, only: str = "") -> tuple[str, str]:
        """Take a place for a task: return the ID of the worker and an empty reason, or an empty ID and the reason.

        `only`: the ID of the worker that it is for, as tasks of global services are.
        """
        workers = [each for each in self._workers.values() if only in ("", each.id)]
        refused = [self._refusal(spec, each) for each in workers]
        fit = [each for each, why in zip(workers, refused, strict=True) if why is None]
        if not fit:
            return "", _explain([each for each in refused if each is not None])
        best = min(fit, key=lambda each: (*self._crowds(spec, each), each.name, each.id))
        self._add(spec, best.id)
        return best.id, ""

    def _add(self, spec: FleetSpec, worker: str) -> None:
        self._tasks[worker] += 1
        self._of_service[spec.name, worker] += 1
        used, more = self._used.get(worker, FleetResources()), spec.reservations
        self._used[worker] = FleetResources(used.cpu_nanos + more.cpu_nanos, used.memory_bytes + more.memory_bytes)

    def _crowds(self, spec: FleetSpec, worker: FleetWorker) -> Sequence[int]:
        """Return how many tasks of the service share each value that it is spread over, and the worker; then of all."""
        shared = [
            sum(
                self._of_service[spec.name, other.id]
                for other in self._workers.values()
                if worker_value(label, other) == worker_value(label, worker)
            )
            for label in spec.spreads
        ]
        return *shared, self._of_service[spec.name, worker.id], self._tasks[worker.id]

    def _refusal(self, spec: FleetSpec, worker: FleetWorker) -> tuple[str, str] | None:
        used, asked, all_ = self._used.get(worker.id, FleetResources()), spec.reservations, worker.capacity
        if not is_open(worker):
            return _NOT_READY
        if asked.cpu_nanos > all_.cpu_nanos - used.cpu_nanos or asked.memory_bytes > (
            all_.memory_bytes - used.memory_bytes
        ):
            return _RESOURCES
        if not may_stay(spec, worker):
            return _CONSTRAINTS
        if spec.most_per_worker and self._of_service[spec.name, worker.id] >= spec.most_per_worker:
            return _MOST
        return None


def _explain(refused: Sequence[tuple[str, str]]) -> str:
    counts: Mapping[tuple[str, str], int] = Counter(refused)
    told = sorted((why for why in _REASONS if counts.get(why)), key=lambda why: -counts[why])
    words = "; ".join(why[0] if counts[why] == 1 else why[1].format(counts[why]) for why in told)
    return f"no suitable node ({words})" if words else "no suitable node"
