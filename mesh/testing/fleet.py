"""Engines in memory, with as many workers as a test wants, a clock that it moves, and the ways in which engines fail.

The rules are those of swarmkit, as far as a release can see them: a task that ended gets another one in its slot after
the delay of its restart policy; a worker that is gone or drained loses its tasks to others; a worker that comes back
gets none; whoever changes what makes a container replaces the tasks.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from typing_extensions import override

from mesh.platform.fleet.errors import FleetConflictError, FleetNoQuorumError, FleetRefusedError, FleetUnavailableError
from mesh.platform.fleet.protocol import (
    Fleet,
    FleetAvailability,
    FleetResources,
    FleetService,
    FleetSpec,
    FleetState,
    FleetTask,
    FleetWorker,
)
from mesh.testing.fleet_scheduler import FakePlacement, is_open, may_stay, validate_constraint

KEPT_TASKS = 5
"""Tasks of a slot that have ended and are kept: the engine's default."""
_LIVE = ("running", "ready")
_ENDED = ("complete", "shutdown", "failed", "rejected", "orphaned")


def fake_worker(
    name: str,
    *,
    cores: float = 4,
    memory: int = 8 << 30,
    labels: Mapping[str, str] | None = None,
    engine_labels: Mapping[str, str] | None = None,
    role: str = "manager",
    is_leader: bool = False,
) -> FleetWorker:
    """Return a worker that is ready, with `NAME` as the name of its host and `NAME-id` as its ID."""
    return FleetWorker(
        id=f"{name}-id",
        version=1,
        name=name,
        is_ready=True,
        availability=FleetAvailability.ACTIVE,
        address=f"10.0.0.{sum(name.encode()) % 250 + 1}",
        labels=labels or {},
        engine_labels=engine_labels or {},
        role=role,
        is_leader=is_leader,
        capacity=FleetResources(round(cores * 1e9), memory),
    )


@dataclass(frozen=True, slots=True)
class FakeImageRun:
    """What containers of an image do. Times are in seconds."""

    pull_error: str = ""
    """Why a worker cannot have the image, in the engine's words: `No such image: shop:2`."""
    starts_after: float = 0.0
    """How long a task is in `preparing`."""
    ends_after: float | None = None
    """How long the container runs; None: until it is stopped."""
    exit_code: int = 1


@dataclass(slots=True)
class FakeFleetFaults:
    """What goes wrong until the test takes it away."""

    unreachable: str = ""
    """Why the engine does not answer; empty: it answers."""
    no_quorum: bool = False
    conflicts: int = 0
    """How many of the next changes find that somebody else was faster."""
    refusals: list[str] = field(default_factory=list)
    """The engine's reasons for which it refuses the next changes, one each."""


@dataclass(slots=True)
class FakeImages:
    """Images by reference, with their digests (`sha256:...`)."""

    present: dict[str, str] = field(default_factory=dict)
    registry: dict[str, str] = field(default_factory=dict)
    runs: dict[str, FakeImageRun] = field(default_factory=dict)
    """What containers do, by the reference with or without its digest; nothing special if it is not here."""

    def run(self, image: str) -> FakeImageRun:
        """Return what containers of an image do."""
        return self.runs.get(image) or self.runs.get(image.partition("@")[0]) or FakeImageRun()


class FakeFleet(Fleet):
    """Implements `Fleet`. Time passes when the test moves `now`; everything that is due happens at the next call.

    A test that waits for `changes` after it has moved the clock calls `settle`. What the fake does at once: placing,
    starting (but see `FakeImageRun.starts_after`) and removing.
    """

    def __init__(
        self,
        workers: Iterable[FleetWorker] = (),
        *,
        clock: Callable[[], float] | None = None,
        live_restore: bool = False,
    ) -> None:
        """`workers`: the first one is the engine that is asked; none: the engine is part of no fleet yet.

        `clock`: seconds since the epoch; None: `now`, which begins at 1,800,000,000.
        """
        self.now = 1_800_000_000.0
        self.faults = FakeFleetFaults()
        self.images = FakeImages()
        self.log: list[str] = []
        """Each change that succeeded: `create shop_web--1`, `replace ...`, `remove ...`, `set worker w1`."""
        self._clock = clock
        self._live_restore = live_restore
        self._workers = {each.id: each for each in workers}
        self._services: dict[str, FleetService] = {}
        self._tasks: dict[str, tuple[FleetTask, FleetSpec]] = {}
        """Each task, and the spec that it was made of."""
        self._made = 1
        """How many objects and versions there have been."""
        self._listeners: set[asyncio.Queue[str]] = set()

    # ------------------------------------------------------------------------------------------ what a test does

    def settle(self) -> None:
        """Let happen what is due by now: starts, ends, restarts, placements."""
        for _ in range(20):
            before = dict(self._tasks)
            self._progress()
            for service in [*self._services.values()]:
                self._orchestrate(service)
            self._place()
            changed = {id for id in before.keys() | self._tasks.keys() if before.get(id) != self._tasks.get(id)}
            if not changed:
                return
            for id in sorted({(self._tasks.get(each) or before[each])[0].service_id for each in changed}):
                self._tell(id)

    def advance(self, seconds: float) -> None:
        """Move `now`, and let happen what is due."""
        self.now += seconds
        self.settle()

    def change_worker(self, id: str, *, is_ready: bool | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Cut a worker off or heal it; or change its labels as somebody else would."""
        old = self._workers[id]
        ready = old.is_ready if is_ready is None else is_ready
        new = replace(old, is_ready=ready, labels=old.labels if labels is None else labels, version=self._next())
        self._workers[id] = new
        if ready and not old.is_ready:
            self._end_surplus(id)
        self._tell(id)
        self.settle()

    def change_service(self, id: str, spec: FleetSpec, unknown: tuple[str, ...] = ()) -> None:
        """Change a service as somebody else would, also by fields that `FleetSpec` has no place for."""
        self._set_service(replace(self._services[id], spec=spec, unknown=unknown))
        self.settle()

    def end_task(self, id: str, exit_code: int = 1) -> None:
        """The container of a task ends by itself."""
        task, _ = self._tasks[id]
        self._end(task, exit_code)
        self.settle()

    def heal(self) -> None:
        """Take all faults away; those who follow the changes learn of a gap."""
        self.faults = FakeFleetFaults()
        self._tell("")

    # -------------------------------------------------------------------------------------------- the protocol

    @override
    async def state(self) -> FleetState:
        if self.faults.unreachable:
            raise FleetUnavailableError(self.faults.unreachable)
        here = next(iter(self._workers.values()), None)
        if here is None:
            return FleetState(False, False, "", "the engine is not part of a swarm", self._live_restore)
        why = "the swarm does not have a leader" if self.faults.no_quorum else ""
        if here.role != "manager":
            why = "the engine is a worker of the swarm, and no manager"
        return FleetState(True, not why, here.id, why, self._live_restore)

    @override
    async def initialize(self) -> FleetState:
        if self.faults.unreachable:
            raise FleetUnavailableError(self.faults.unreachable)
        if self._workers:
            raise FleetRefusedError("this engine is already part of a swarm")
        if self._live_restore:
            raise FleetRefusedError("live-restore is set, and a swarm does not start with it")
        alone = fake_worker("alone", role="manager")
        self._workers[alone.id] = alone
        self._tell(alone.id)
        return await self.state()

    @override
    async def workers(self) -> tuple[FleetWorker, ...]:
        self._answer()
        return tuple(sorted(self._workers.values(), key=lambda each: (each.name, each.id)))

    @override
    async def services(self, label: str = "") -> tuple[FleetService, ...]:
        self._answer()
        name, has_value, value = label.partition("=")
        found = [
            each
            for each in self._services.values()
            if not label or (name in each.spec.labels and (not has_value or each.spec.labels[name] == value))
        ]
        return tuple(sorted(found, key=lambda each: each.spec.name))

    @override
    async def tasks(self, service_id: str = "") -> tuple[FleetTask, ...]:
        self._answer()
        return tuple(task for task, _ in self._tasks.values() if service_id in ("", task.service_id))

    @override
    async def resolve_image(self, reference: str, *, pull: bool) -> str:
        self._answer()
        images = self.images
        if "@" in reference:
            return reference
        if (pull or reference not in images.present) and reference in images.registry:
            images.present[reference] = images.registry[reference]
        elif pull:
            raise FleetRefusedError(images.run(reference).pull_error or f"manifest for {reference} not found")
        digest = images.present.get(reference, "")
        return f"{reference}@{digest}" if digest else reference

    @override
    async def create(self, spec: FleetSpec) -> str:
        self._begin_change(spec)
        if any(each.spec.name == spec.name for each in self._services.values()):
            raise FleetConflictError(f"name conflicts with an existing object: service {spec.name} already exists")
        id, now = f"service{self._next()}", self._time()
        self._services[id] = FleetService(id, self._next(), spec, now, now)
        self._end_change(f"create {spec.name}", id)
        return id

    @override
    async def replace(self, service_id: str, version: int, spec: FleetSpec) -> None:
        self._begin_change(spec)
        old = self._services.get(service_id)
        if old is None:
            raise FleetConflictError(f"service {service_id} not found")
        if old.version != version:
            raise FleetConflictError("update out of sequence")
        if old.spec.name != spec.name:
            raise FleetRefusedError("renaming services is not supported")
        if (old.spec.instances is None) is not (spec.instances is None):
            raise FleetRefusedError("service mode change is not allowed")
        count_only = old.spec != spec and replace(old.spec, instances=spec.instances, labels=spec.labels) == spec
        self._set_service(replace(old, spec=spec, unknown=old.unknown if count_only else ()))
        self._end_change(f"replace {spec.name}", service_id)

    @override
    async def remove(self, service_id: str) -> None:
        self._answer()
        self._refuse()
        service = self._services.pop(service_id, None)
        if service is not None:
            self._tasks = {id: each for id, each in self._tasks.items() if each[0].service_id != service_id}
            self._end_change(f"remove {service.spec.name}", service_id)

    @override
    async def set_worker(
        self, worker_id: str, version: int, labels: Mapping[str, str], availability: FleetAvailability
    ) -> None:
        self._begin_change(None)
        old = self._workers.get(worker_id)
        if old is None:
            raise FleetConflictError(f"node {worker_id} not found")
        if old.version != version:
            raise FleetConflictError("update out of sequence")
        self._workers[worker_id] = replace(old, labels=dict(labels), availability=availability, version=self._next())
        self._end_change(f"set worker {old.name}", worker_id)

    @override
    async def changes(self) -> AsyncIterator[str]:
        heard: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.add(heard)
        try:
            yield ""
            while True:
                yield await heard.get()
        finally:
            self._listeners.discard(heard)

    # ----------------------------------------------------------------------------------------------- the engines

    def _time(self) -> float:
        return self.now if self._clock is None else self._clock()

    def _next(self) -> int:
        self._made += 1
        return self._made

    def _tell(self, id: str) -> None:
        for listener in self._listeners:
            listener.put_nowait(id)

    def _answer(self) -> None:
        """Raise what the engine raises at each request; let happen what is due."""
        here = next(iter(self._workers.values()), None)
        if self.faults.unreachable:
            raise FleetUnavailableError(self.faults.unreachable)
        if here is None:
            raise FleetUnavailableError("the engine is not part of a swarm")
        if here.role != "manager":
            raise FleetUnavailableError("the engine is a worker of the swarm, and no manager")
        if self.faults.no_quorum:
            raise FleetNoQuorumError("The swarm does not have a leader")
        self.settle()

    def _begin_change(self, spec: FleetSpec | None) -> None:
        self._answer()
        if self.faults.conflicts:
            self.faults.conflicts -= 1
            raise FleetConflictError("update out of sequence")
        self._refuse()
        try:
            for each in () if spec is None else spec.constraints:
                validate_constraint(each)
        except ValueError as error:
            raise FleetRefusedError(str(error)) from error

    def _refuse(self) -> None:
        if self.faults.refusals:
            raise FleetRefusedError(self.faults.refusals.pop(0))

    def _end_change(self, line: str, id: str) -> None:
        self.log.append(line)
        self._tell(id)
        self.settle()

    def _set_service(self, service: FleetService) -> None:
        self._services[service.id] = replace(service, version=self._next(), changed=self._time())
        self._tell(service.id)

    def _progress(self) -> None:
        """Move each task on that has a worker which answers."""
        now = self._time()
        for task, spec in [*self._tasks.values()]:
            worker = self._workers.get(task.worker_id)
            if worker is None or not worker.is_ready or task.state in _ENDED:
                continue
            run = self.images.run(spec.container.image)
            if task.desired == "shutdown":
                self._put(replace(task, state="shutdown", since=now), spec)
            elif task.state == "preparing" and task.desired == "running":
                self._start(task, run)
            elif task.state == "running" and run.ends_after is not None and now >= task.since + run.ends_after:
                self._end(task, run.exit_code)

    def _start(self, task: FleetTask, run: FakeImageRun) -> None:
        spec, now = self._tasks[task.id][1], self._time()
        if run.pull_error:
            self._put(replace(task, state="rejected", reason=run.pull_error, since=now), spec)
        elif now >= task.since + run.starts_after:
            self._put(replace(task, state="running", container_id=f"container-of-{task.id}", since=now), spec)

    def _end(self, task: FleetTask, exit_code: int) -> None:
        state, reason = ("failed", f"task: non-zero exit ({exit_code})") if exit_code else ("complete", "")
        ended = replace(task, state=state, reason=reason, exit_code=exit_code, since=self._time())
        self._put(ended, self._tasks[task.id][1])

    def _put(self, task: FleetTask, spec: FleetSpec) -> None:
        self._tasks[task.id] = task, spec

    def _make(self, service: FleetService, slot: int, worker: str = "", *, ready: bool = False) -> None:
        task = FleetTask(
            id=f"task{self._next()}",
            service_id=service.id,
            slot=slot,
            worker_id="",
            desired="ready" if ready else "running",
            state="pending",
            reason="",
            container_id="",
            exit_code=None,
            since=self._time(),
        )
        # A global task is for one worker from the beginning, and is placed there or stays pending.
        self._put(replace(task, worker_id=worker), service.spec)

    def _orchestrate(self, service: FleetService) -> None:
        """Make and end tasks until each slot has one."""
        spec = service.spec
        slots: defaultdict[tuple[int, str], list[FleetTask]] = defaultdict(list)
        for task, _ in self._tasks.values():
            if task.service_id == service.id:
                slots[task.slot, "" if task.slot else task.worker_id].append(task)
        if spec.instances is None:
            wanted = {(0, each.id) for each in self._workers.values() if is_open(each) and may_stay(spec, each)}
            gone = [key for key in slots if key not in wanted and not self._keeps(spec, key[1])]
        else:
            live = [key for key, tasks in slots.items() if any(task.desired in _LIVE for task in tasks)]
            order = sorted(live, key=lambda key: self._worth(slots, key))
            kept = order[: spec.instances]
            free = [(n, "") for n in range(1, spec.instances + len(live) + 1) if (n, "") not in live]
            wanted = {*kept, *free[: spec.instances - len(kept)]}
            gone = [key for key in slots if key not in wanted]
        for key in gone:
            self._drop(slots[key])
        for key in sorted(wanted | (slots.keys() - {*gone})):
            self._keep_slot(service, key, slots[key])

    def _keeps(self, spec: FleetSpec, worker: str) -> bool:
        """Return whether a worker that takes no new tasks keeps those of a global service."""
        found = self._workers.get(worker)
        if found is None or not found.is_ready or found.availability is FleetAvailability.DRAIN:
            return False
        return may_stay(spec, found)

    def _worth(self, slots: Mapping[tuple[int, str], list[FleetTask]], key: tuple[int, str]) -> tuple[bool, int, int]:
        """Return what is kept first when there are too many: what runs, and where there are fewer of the service."""
        task = next(task for task in slots[key] if task.desired in _LIVE)
        beside = [
            other
            for tasks in slots.values()
            for other in tasks
            if other.desired in _LIVE and other.worker_id == task.worker_id and other.slot < task.slot
        ]
        return task.state != "running", len(beside), task.slot

    def _drop(self, tasks: Iterable[FleetTask]) -> None:
        """Remove the tasks of a slot that is not wanted; those on a worker that is cut off run on, unseen."""
        for task in tasks:
            worker = self._workers.get(task.worker_id)
            if worker is not None and not worker.is_ready and task.state not in _ENDED:
                self._put(replace(task, desired="remove"), self._tasks[task.id][1])
            else:
                self._tasks.pop(task.id, None)

    def _end_surplus(self, worker: str) -> None:
        """A worker that is back ends what is not wanted any more."""
        for task, spec in [*self._tasks.values()]:
            if task.worker_id == worker and task.desired == "remove":
                del self._tasks[task.id]
            elif task.worker_id == worker and task.desired == "shutdown" and task.state not in _ENDED:
                self._put(replace(task, state="shutdown", since=self._time()), spec)

    def _keep_slot(self, service: FleetService, key: tuple[int, str], tasks: list[FleetTask]) -> None:
        live = next((task for task in tasks if task.desired in _LIVE), None)
        ended = sorted((task for task in tasks if task is not live), key=lambda task: task.since)
        for task in ended[: max(0, len(ended) - KEPT_TASKS)]:
            self._tasks.pop(task.id, None)
        if live is None:
            self._make(service, *key)
            return
        made_of = self._tasks[live.id][1]
        if live.state in _ENDED:
            self._restart(service, key, live, len(ended))
        elif live.desired == "ready" and self._time() >= live.since + service.spec.restart.delay / 1e9:
            self._put(replace(live, desired="running"), made_of)
        elif self._is_outdated(service.spec, made_of, live) or self._has_lost_place(service.spec, live):
            self._put(replace(live, desired="shutdown"), made_of)
            self._make(service, *key, ready=self._is_drained(live) and service.spec.restart.delay > 0)

    def _is_drained(self, task: FleetTask) -> bool:
        """Return whether the engine ends a task before it starts the next one of its slot."""
        worker = self._workers.get(task.worker_id)
        return worker is not None and worker.is_ready and worker.availability is FleetAvailability.DRAIN

    def _restart(self, service: FleetService, key: tuple[int, str], live: FleetTask, before: int) -> None:
        policy, made_of = service.spec.restart, self._tasks[live.id][1]
        failed = live.state in ("failed", "rejected")
        wanted = policy.condition == "any" or (policy.condition == "on-failure" and failed)
        if wanted and (not policy.attempts or before < policy.attempts):
            self._put(replace(live, desired="shutdown"), made_of)
            self._make(service, *key, ready=policy.delay > 0)

    def _has_lost_place(self, spec: FleetSpec, task: FleetTask) -> bool:
        worker = self._workers.get(task.worker_id)
        if not task.worker_id or not task.slot:
            return False
        drained = worker is None or worker.availability is FleetAvailability.DRAIN
        return drained or worker is None or not worker.is_ready or not may_stay(spec, worker)

    def _is_outdated(self, spec: FleetSpec, made_of: FleetSpec, task: FleetTask) -> bool:
        """Return whether a change replaces a task: not the count, the labels of the service, or a placement that the
        task meets as it is.
        """
        same = replace(made_of, labels=spec.labels, instances=spec.instances)
        placed = replace(same, constraints=spec.constraints, spreads=spec.spreads, most_per_worker=spec.most_per_worker)
        worker = self._workers.get(task.worker_id)
        return same != spec and (placed != spec or worker is None or not may_stay(spec, worker))

    def _place(self) -> None:
        """Place what has no place, in the order in which it was made."""
        placement = FakePlacement(
            self._workers.values(),
            [
                (spec, task.worker_id)
                for task, spec in self._tasks.values()
                if task.worker_id and task.state != "pending" and task.state not in _ENDED and task.desired in _LIVE
            ],
        )
        now = self._time()
        for task, spec in [*self._tasks.values()]:
            if task.state == "pending" and task.desired in _LIVE:
                worker, reason = placement.choose(spec, task.worker_id)
                if worker:
                    self._put(replace(task, worker_id=worker, state="preparing", reason="", since=now), spec)
                elif reason != task.reason:
                    self._put(replace(task, reason=reason), spec)
