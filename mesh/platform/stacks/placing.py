"""Decides where instances may run: labels of workers for affinities, checks of zones, steps of a rebalancing. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh.config.labels.values import escape_unprintable
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.platform.fleet.protocol import FleetAvailability, FleetService, FleetTask, FleetWorker
from mesh.platform.stacks.affinity import RUNS, RUNS_PREFIX, constrained_labels, runs_label, runs_service
from mesh.platform.stacks.entries import constraint_matches
from mesh.platform.stacks.model import MOVES_LABEL, SERVICE_LABEL, Desired, DesiredService

_ACTIVE_STATES = frozenset({"running", "starting", "ready", "preparing", "assigned", "accepted"})
"""States of a task that has its place: swarmkit, api/types.proto."""


def worker_labels(
    workers: Sequence[FleetWorker], services: Sequence[FleetService], tasks: Sequence[FleetTask]
) -> Mapping[str, Mapping[str, str]]:
    """Return the labels, by worker ID, of each worker whose labels `mesh.runs.*` must change: all that it is to have.

    A worker has a label only if a constraint compares it. What a service leaves behind is taken away.
    """
    compared = constrained_labels(constraint for service in services for constraint in service.spec.constraints)
    by_id = {service.id: _labels_of(service) & compared for service in services}
    runs: dict[str, set[str]] = {}
    for task in tasks:
        if _is_placed(task):
            runs.setdefault(task.worker_id, set()).update(by_id.get(task.service_id, frozenset()))
    changed: dict[str, Mapping[str, str]] = {}
    for worker in workers:
        others = {key: value for key, value in worker.labels.items() if not key.startswith(RUNS_PREFIX)}
        wanted = others | dict.fromkeys(sorted(runs.get(worker.id, ())), RUNS)
        if wanted != dict(worker.labels):
            changed[worker.id] = wanted
    return changed


def _labels_of(service: FleetService) -> frozenset[str]:
    """Return the labels that a worker may have because it runs this service."""
    project, _, name = service.spec.labels.get(SERVICE_LABEL, "").partition("/")
    if not name:
        return frozenset()
    of_containers = (runs_label(key, value) for key, value in service.spec.container.labels.items())
    return frozenset({runs_service(project, name), *of_containers})


def _is_placed(task: FleetTask) -> bool:
    return bool(task.worker_id) and task.desired == "running" and task.state in _ACTIVE_STATES


def worker_facts(worker: FleetWorker) -> dict[str, str]:
    """Return the values that constraints compare, by the engine's names."""
    facts = {
        "node.id": worker.id,
        "node.hostname": worker.name,
        "node.role": worker.role,
        "node.ip": worker.address,
    }
    facts |= {f"node.labels.{key}": value for key, value in worker.labels.items()}
    return facts | {f"engine.labels.{key}": value for key, value in worker.engine_labels.items()}


def takes_instances(worker: FleetWorker, constraints: Iterable[str]) -> bool:
    """Return whether a worker is ready, takes new instances, and fulfils the constraints.

    Constraints over affinities count, too. The platform of a worker is not known here, and counts as fulfilled.
    """
    if not worker.is_ready or worker.availability is not FleetAvailability.ACTIVE:
        return False
    facts = worker_facts(worker)
    return all(
        constraint.startswith("node.platform.") or constraint_matches(constraint, facts) for constraint in constraints
    )


def zone_problems(desired: Desired, workers: Sequence[FleetWorker]) -> tuple[Problem, ...]:
    """Return an error for each service whose hard zones the workers cannot give it. Checked before creation."""
    # Most services have the same constraints as another one, and there are many workers.
    eligible: dict[tuple[str, ...], list[FleetWorker]] = {}
    found: list[Problem] = []
    for service in desired.services:
        # An affinity may hold in a moment, when what it names runs.
        fixed = tuple(each for each in service.spec.constraints if not each.startswith(f"node.labels.{RUNS_PREFIX}"))
        if any(zones.is_hard for zones in service.zones):
            if fixed not in eligible:
                eligible[fixed] = [worker for worker in workers if takes_instances(worker, fixed)]
            found.extend(_zone_problems(service, eligible[fixed]))
    return tuple(found)


def _zone_problems(service: DesiredService, eligible: Sequence[FleetWorker]) -> Iterable[Problem]:
    for zones in service.zones:
        if not zones.is_hard:
            continue
        found = {worker.labels.get(zones.label, "") for worker in eligible}
        named = found - {""}
        count = service.spec.instances
        if len(named) < zones.count:
            listed = f" ({', '.join(map(escape_unprintable, sorted(named)))})" if named else ""
            reason = f"it wants {zones.count} zones, and ready workers have {len(named)}{listed}"
            remedy = f"label the workers: docker node update --label-add {zones.label}=ZONE WORKER"
        elif count is not None and min(count, len(found)) - (len(found) - len(named)) < zones.count:
            # The engine spreads over the workers without the label, too, as if they were one more zone.
            without = "" if found == named else f", and workers without the label {zones.label} count as one more"
            reason = f"it wants {zones.count} zones and has {count} instances{without}"
            remedy = f"write scale: {zones.count + len(found) - len(named)}, or label all workers"
        else:
            continue
        subject = f"service {escape_unprintable(service.name)}, availability:{zones.label}=={zones.count}"
        yield Problem(Code.STACK_ZONES, Severity.ERROR, subject, reason, remedy, where=zones.where)


@dataclass(frozen=True, slots=True)
class RebalanceLoad:
    """How the instances of one service lie on the workers that may have them."""

    counts: Mapping[str, int]
    """Worker ID -> instances; 0 for one that has none."""
    zones: Mapping[str, tuple[str, ...]]
    """Worker ID -> its values of the labels over which the service is spread, the outermost first."""
    most_per_worker: int = 0

    @property
    def weight(self) -> tuple[int, ...]:
        """A measure that is smaller the more even the load is: zones first, then workers."""
        depth = max((len(zones) for zones in self.zones.values()), default=0)
        sums = []
        for level in range(1, depth + 1):
            totals: Counter[tuple[str, ...]] = Counter()
            for worker, count in self.counts.items():
                totals[self.zones[worker][:level]] += count
            sums.append(sum(count * count for count in totals.values()))
        return (*sums, sum(count * count for count in self.counts.values()))

    def changed(self, worker: str, by: int) -> "RebalanceLoad":
        """Return the load with more or fewer instances on one worker."""
        counts = {**self.counts, worker: self.counts[worker] + by}
        return RebalanceLoad(counts, self.zones, self.most_per_worker)

    def next_worker(self) -> str | None:
        """Return the worker that the engine would choose for one more: the emptiest zone, and in it the emptiest one.

        None if none has room. Source: swarmkit, manager/scheduler/decision_tree.go.
        """
        candidates = [worker for worker, count in self.counts.items() if not 0 < self.most_per_worker <= count]
        depth = max((len(zones) for zones in self.zones.values()), default=0)
        for level in range(1, depth + 1):
            totals: Counter[tuple[str, ...]] = Counter()
            for worker, count in self.counts.items():
                totals[self.zones[worker][:level]] += count
            least = min((totals[self.zones[worker][:level]] for worker in candidates), default=0)
            candidates = [worker for worker in candidates if totals[self.zones[worker][:level]] == least]
        return min(candidates, key=lambda worker: (self.counts[worker], worker), default=None)

    def fullest_worker(self) -> str | None:
        """Return the worker from which the engine takes the next one: the one with most; None if all are empty.

        Source: swarmkit, manager/orchestrator/replicated/services.go.
        """
        worker = max(sorted(self.counts), key=lambda each: self.counts[each], default=None)
        return worker if worker is not None and self.counts[worker] else None


@dataclass(frozen=True, slots=True)
class RebalanceMove:
    """One instance starts on a worker, and then one ends on another."""

    source: str
    """Worker ID."""
    target: str


def plan_move(load: RebalanceLoad) -> RebalanceMove | None:
    """Return the move that one instance more and one fewer make, if it makes the load more even; else None.

    Each move makes the measure smaller, so a sequence of moves ends.
    """
    target = load.next_worker()
    if target is None:
        return None
    more = load.changed(target, 1)
    source = more.fullest_worker()
    if source is None or source == target or more.changed(source, -1).weight >= load.weight:
        return None
    return RebalanceMove(source, target)


def plan_rebalance(load: RebalanceLoad) -> tuple[RebalanceMove, ...]:
    """Return all moves until the load is even, for a dry run."""
    moves: list[RebalanceMove] = []
    while (move := plan_move(load)) is not None:
        moves.append(move)
        load = load.changed(move.target, 1).changed(move.source, -1)
    return tuple(moves)


def load_of(service: FleetService, workers: Sequence[FleetWorker], tasks: Sequence[FleetTask]) -> RebalanceLoad:
    """Return the load of a service on the workers that may have its instances, or have some and are ready."""
    placed = Counter(task.worker_id for task in tasks if task.service_id == service.id and _is_placed(task))
    counts: dict[str, int] = {}
    zones: dict[str, tuple[str, ...]] = {}
    for worker in sorted(workers, key=lambda each: each.id):
        if not takes_instances(worker, service.spec.constraints):
            continue
        facts = worker_facts(worker)
        counts[worker.id] = placed[worker.id]
        zones[worker.id] = tuple(facts.get(label, "") for label in service.spec.spreads)
    return RebalanceLoad(counts, zones, service.spec.most_per_worker)


def rebalance_step(
    service: FleetService, workers: Sequence[FleetWorker], tasks: Sequence[FleetTask], wanted: int
) -> int | None:
    """Return the number of instances to set next, `wanted` or one more; None if the service is left alone.

    Call it when the number that is set runs and serves. It never returns fewer than `wanted`, and nothing for a global
    service or one with data of its workers. Whoever calls it bounds the number of steps by twice the number of
    instances: the engine may place an instance where this plan does not expect it.
    """
    instances = service.spec.instances
    if instances is None or wanted < 1 or service.spec.labels.get(MOVES_LABEL) == "false":
        return None
    if instances != wanted:
        return wanted if instances > wanted else None
    load = load_of(service, workers, tasks)
    if sum(load.counts.values()) != instances or plan_move(load) is None:
        return None
    return wanted + 1
