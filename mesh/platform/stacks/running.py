"""What runs of a project: the engine services of each of its releases, what of them is ready, and why the rest is not.

Pure. Everything is read from the engine and from the status of the mesh each time; nothing is remembered.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.platform.fleet.protocol import FleetService, FleetSpec, FleetTask
from mesh.platform.stacks.digest import spec_digest
from mesh.platform.stacks.model import DIGEST_LABEL, RELEASE_LABEL, SERVICE_LABEL, STACK_LABEL

_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
"""States of a task without a container that runs: swarmkit api/types.proto, TaskState."""
_MOST_REASONS = 3
"""The most reasons that are given for one service."""


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """What the mesh knows of one instance."""

    serving: bool
    """Whether it takes connections."""
    health: str = ""
    last_probe: str = ""
    """What the last probe was answered; empty if there was none."""


@dataclass(frozen=True, slots=True)
class RunningRelease:
    """One engine service of the project, with its tasks."""

    service: str
    """The name of its service within the project."""
    release: str
    digest: str
    """What vipmesh has made it from, by its label."""
    actual_digest: str
    """What it is made of now: another digest if it was changed outside vipmesh."""
    engine: FleetService
    tasks: tuple[FleetTask, ...] = ()
    ready: int = 0
    """Instances that are ready: that serve, or of a service without routing, that run."""

    @property
    def instances(self) -> int:
        """The instances that the engine keeps. Of a service with one on each worker: those that it has now."""
        wanted = self.engine.spec.instances
        return sum(task.desired == "running" for task in self.tasks) if wanted is None else wanted

    @property
    def live(self) -> int:
        """Instances that have not ended yet, those that drain included."""
        return sum(not has_ended(task) for task in self.tasks)

    @property
    def started(self) -> int:
        """Instances that run."""
        return sum(task.desired == "running" and task.state == "running" for task in self.tasks)

    @property
    def completed(self) -> int:
        """Instances that have ended with exit status 0 and are not started again."""
        return len({task.slot or task.worker_id for task in self.tasks if _is_completed(task, self.engine.spec)})

    @property
    def was_changed_outside(self) -> bool:
        """Whether somebody changed it who does not keep the labels of vipmesh true."""
        return self.digest != self.actual_digest or bool(self.engine.unknown)


@dataclass(frozen=True, slots=True)
class RunningStack:
    """All that runs of one project."""

    project: str
    releases: Mapping[str, tuple[RunningRelease, ...]] = field(default_factory=dict)
    """By the name of the service, in the order of creation."""
    taken: frozenset[str] = frozenset()
    """The names of all engine services."""

    def of(self, service: str) -> tuple[RunningRelease, ...]:
        """Return what runs of one service."""
        return self.releases.get(service, ())


def read_running(
    project: str,
    services: Sequence[FleetService],
    tasks: Sequence[FleetTask],
    answers: Mapping[str, EndpointAnswer],
) -> RunningStack:
    """Return what runs of a project.

    `services` and `tasks` are all of the engine; `answers` has what the mesh knows, by the ids of the tasks.
    """
    by_service = defaultdict[str, list[FleetTask]](list)
    for task in tasks:
        by_service[task.service_id].append(task)
    found = defaultdict[str, list[RunningRelease]](list)
    for each in sorted(services, key=lambda service: (service.created, service.id)):
        if each.spec.labels.get(STACK_LABEL) == project:
            release = running_release(each, by_service[each.id], answers)
            found[release.service].append(release)
    return RunningStack(
        project, {name: tuple(each) for name, each in found.items()}, frozenset(each.spec.name for each in services)
    )


def running_release(
    service: FleetService, tasks: Sequence[FleetTask], answers: Mapping[str, EndpointAnswer]
) -> RunningRelease:
    """Return one engine service with its tasks."""
    labels = service.spec.labels
    return RunningRelease(
        labels.get(SERVICE_LABEL, "").rpartition("/")[2] or service.spec.name,
        labels.get(RELEASE_LABEL, ""),
        labels.get(DIGEST_LABEL, ""),
        spec_digest(service.spec),
        service,
        tuple(tasks),
        sum(is_ready(task, service.spec, answers) for task in tasks),
    )


def has_ended(task: FleetTask) -> bool:
    """Return whether a task has no container that runs."""
    return task.state in _ENDED


def is_routed(spec: FleetSpec) -> bool:
    """Return whether the mesh routes to its containers: then an instance is ready when it serves."""
    return bool(spec.ports)


def is_ready(task: FleetTask, spec: FleetSpec, answers: Mapping[str, EndpointAnswer]) -> bool:
    """Return whether an instance does what it is for."""
    if _is_completed(task, spec):
        return True
    if task.desired != "running" or task.state != "running":
        return False
    answer = answers.get(task.id)
    return not is_routed(spec) or (answer is not None and answer.serving)


def waiting_reasons(
    release: RunningRelease, answers: Mapping[str, EndpointAnswer], workers: Mapping[str, str]
) -> tuple[str, ...]:
    """Return why instances are not ready, each reason once, the engine's own words first.

    `workers` has the names of workers by id.
    """
    reasons: dict[str, None] = {}
    newest = sorted(release.tasks, key=lambda task: (task.slot, -task.since))
    for task in (task for task in newest if not is_ready(task, release.engine.spec, answers)):
        text = _task_reason(task, release.engine.spec, answers, workers)
        if text:
            reasons.setdefault(text)
    if not release.tasks:
        reasons["the engine has made no task yet"] = None
    return tuple(reasons)[:_MOST_REASONS]


def pending_reasons(release: RunningRelease) -> tuple[str, ...]:
    """Return the engine's own words for the instances that it has not started, each once."""
    found = dict.fromkeys(
        f"{task.state}: {task.reason}" if task.reason else task.state
        for task in release.tasks
        if task.desired == "running" and task.state not in ("running", "complete")
    )
    return tuple(found)[:_MOST_REASONS]


def outside_changes(release: RunningRelease) -> tuple[str, ...]:
    """Return what was changed of an engine service by somebody who keeps no labels of vipmesh."""
    found = []
    if release.digest != release.actual_digest:
        found.append(f"release {release.release} is not what was deployed as it any more")
    found.extend(f"field {name}" for name in release.engine.unknown)
    return tuple(found)


def _is_completed(task: FleetTask, spec: FleetSpec) -> bool:
    return spec.restart.condition != "any" and task.state == "complete" and task.exit_code in (0, None)


def _task_reason(
    task: FleetTask, spec: FleetSpec, answers: Mapping[str, EndpointAnswer], workers: Mapping[str, str]
) -> str:
    where = f" on {workers.get(task.worker_id, task.worker_id)}" if task.worker_id else ""
    if task.state == "running" and task.desired == "running":
        if not is_routed(spec):
            return ""
        answer = answers.get(task.id)
        if answer is None:
            return f"running{where}, and the mesh has no endpoint of it yet"
        said = answer.last_probe or answer.health or "not probed yet"
        return f"running{where}, and does not serve: {said}"
    is_over = task.state in ("shutdown", "complete", "remove") and not task.reason
    if is_over or (task.desired != "running" and task.state not in ("failed", "rejected", "complete")):
        return ""  # it was told to end
    exit_code = "" if task.exit_code is None else f" (exit code {task.exit_code})"
    return f"{task.state}{where}{exit_code}" + (f": {task.reason}" if task.reason else "")


def running_workers(release: RunningRelease, workers: Mapping[str, str]) -> Mapping[str, int]:
    """Return how many instances run on each worker, by its name."""
    found: dict[str, int] = defaultdict(int)
    for task in release.tasks:
        if task.desired == "running" and task.state == "running":
            found[workers.get(task.worker_id, task.worker_id)] += 1
    return dict(sorted(found.items()))


def projects_of(services: Collection[FleetService]) -> tuple[str, ...]:
    """Return the projects that the engine has services of."""
    return tuple(sorted({label for each in services if (label := each.spec.labels.get(STACK_LABEL))}))
