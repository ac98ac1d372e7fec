"""The part of the daemon that acts for the swarm: it keeps the labels of workers by which affinities hold, and scales
services by their load.

It is idle while the engine is part of no swarm. Of the daemons whose engines are managers one acts, the holder of the
key `acting` of the store; the others ask who it is. It creates and removes no engine service, and of those that there
are it changes the number of instances alone, within the bounds of the service's own labels.
"""

import asyncio
import math
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.problem import Problem, Severity
from mesh.platform.fleet.errors import FleetConflictError, FleetError
from mesh.platform.fleet.protocol import Fleet, FleetState
from mesh.platform.stacks.acting import MARGIN, ActingMoment, acting_value, acting_worker, acts, may_act
from mesh.platform.stacks.affinity import RUNS_PREFIX, constrained_labels
from mesh.platform.stacks.placing import worker_labels
from mesh.store import ACTING_KEY, StoreError
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.SWARM)

IDLE = 30.0
"""Seconds between two looks at an engine that is part of no swarm."""
_LONGEST_PERIOD = 5.0
"""Seconds between two rounds at most, however long a lease is."""
_SHORTEST_PERIOD = 0.5
"""Seconds between two rounds at least, however fast the swarm changes."""
_RELEASE = 2.0
"""Seconds that the store has when the daemon ends; without an answer the lease ends by itself."""


class ActingStore(Protocol):
    """The part of `mesh.store.Store` that says who acts."""

    async def hold(self, key: str, value: bytes | None) -> bytes | None:
        """Have the key if nobody has it, and prolong it; return the value of who has it. Raises `StoreError`."""
        ...

    async def release(self, key: str, value: bytes) -> None:
        """Give up the key, if it has this value. Raises `StoreError`."""
        ...


class ActingReports(Protocol):
    """Takes what is known of who acts."""

    acting: str | None

    def found(self, part: str, problems: tuple[Problem, ...]) -> None:
        """Replace the problems of this part."""
        ...


class ServiceScaler(Protocol):
    """Changes the number of instances of services; `mesh.platform.autoscaling.autoscaler` does it by their load."""

    async def step(self, still_acts: Callable[[], bool]) -> None:
        """Make a round if one is due; ask `still_acts` before each change. Raises `FleetError`."""
        ...

    async def rest(self) -> None:
        """Forget what was seen: this daemon does not act."""
        ...

    def seconds_to_step(self) -> float:
        """Return how long it takes until a round is due."""
        ...


class NoScaler(ServiceScaler):
    """Scales nothing."""

    @override
    async def step(self, still_acts: Callable[[], bool]) -> None:
        return

    @override
    async def rest(self) -> None:
        return

    @override
    def seconds_to_step(self) -> float:
        return math.inf


class ActingDaemon:
    """Acts for the swarm while this daemon has the lease. The owner must run `run`."""

    def __init__(
        self,
        worker: str,
        fleet: Fleet,
        store: ActingStore,
        reports: ActingReports,
        *,
        lease: float,
        scaler: ServiceScaler | None = None,
    ) -> None:
        """`lease`: how long a key stays with a daemon that does not prolong it, in seconds. `scaler`: None: none."""
        self._scaler = scaler or NoScaler()
        self._fleet = fleet
        self._store = store
        self._reports = reports
        self._lease = lease
        self._moment = ActingMoment(None, acting_value(worker, uuid.uuid4().hex))
        self._changed = asyncio.Event()
        self._elected = asyncio.Event()
        """Set while this daemon acts: only then the changes of the swarm are followed."""

    async def run(self) -> None:
        """Act when it is this daemon's turn, until cancelled. Then the key is released."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(bulkhead.keep_running("rounds", self._repeat), name="acting")
                tasks.create_task(bulkhead.keep_running("changes", self._follow), name="swarm changes")
        finally:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await self._give_up()
                    await self._scaler.rest()

    async def step(self) -> bool:
        """Ask who acts, and act if it is this daemon; return whether the engine is part of a swarm."""
        fleet = await self._state()
        if fleet is not None and not fleet.is_active:
            with suppress(StoreError):
                await self._give_up()
            await self._scaler.rest()
            self._tell(None)
            return False
        try:
            await self._ask(fleet)
        except StoreError as error:
            self._moment = ActingMoment(fleet, self._moment.own)
            self._tell(None, error)
            return True
        self._tell(acting_worker(self._moment.holder))
        if not self._acts():
            await self._scaler.rest()
            return True
        with suppress(FleetError):  # it is planned again in the next round, on what is there then
            await keep_worker_labels(self._fleet, self._acts)
        with suppress(FleetError):
            await self._scaler.step(self._acts)
        return True

    async def _repeat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            in_swarm = await bulkhead.run("round", self.step)
            if self._acts():
                self._elected.set()
            else:
                self._elected.clear()
            period = IDLE if in_swarm is False else min(self._lease / 3, _LONGEST_PERIOD)
            if self._acts():
                period = min(period, self._scaler.seconds_to_step())
            due = loop.time() + period
            await asyncio.sleep(_SHORTEST_PERIOD)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    async def _follow(self) -> None:
        await self._elected.wait()
        async for _ in self._fleet.changes():
            self._changed.set()
            await self._elected.wait()

    async def _state(self) -> FleetState | None:
        try:
            return await self._fleet.state()
        except FleetError:
            return None

    async def _ask(self, fleet: FleetState | None) -> None:
        """Raises `StoreError`."""
        own = self._moment.own
        asked_at = asyncio.get_running_loop().time()
        if not may_act(fleet):
            await self._give_up()
        holder = await self._store.hold(ACTING_KEY, own if may_act(fleet) else None)
        self._moment = ActingMoment(fleet, own, holder, asked_at + MARGIN * self._lease)

    async def _give_up(self) -> None:
        """Release the key, so that another daemon need not wait for the end of the lease. Raises `StoreError`."""
        if self._moment.holder == self._moment.own:
            self._moment = ActingMoment(self._moment.fleet, self._moment.own)
            await self._store.release(ACTING_KEY, self._moment.own)

    def _acts(self) -> bool:
        return acts(self._moment, asyncio.get_running_loop().time())

    def _tell(self, worker: str | None, error: MeshError | None = None) -> None:
        self._reports.acting = worker
        problems: tuple[Problem, ...] = ()
        if error is not None:
            remedy = "bring the store back; if etcd has users, give their roles the key: vipmesh cluster roles"
            problems = (
                Problem(Code.ACTING_LEASE, Severity.WARNING, "swarm", f"who acts is not known: {error}", remedy),
            )
        self._reports.found(ProblemPart.SWARM, problems)


async def keep_worker_labels(fleet: Fleet, still_acts: Callable[[], bool]) -> int:
    """Give each worker the labels of what it runs, as far as constraints compare them; return how many were changed.

    Each change names the version that it was planned on. `still_acts` is asked before each. Raises `FleetError`.
    """
    services, workers = await fleet.services(), await fleet.workers()
    compared = constrained_labels(constraint for service in services for constraint in service.spec.constraints)
    labelled = any(key.startswith(RUNS_PREFIX) for worker in workers for key in worker.labels)
    if not compared and not labelled:
        return 0
    changed = worker_labels(workers, services, await fleet.tasks())
    done = 0
    for worker in workers:
        if worker.id in changed and still_acts():
            with suppress(FleetConflictError):  # somebody else was faster; the next round looks again
                await fleet.set_worker(worker.id, worker.version, changed[worker.id], worker.availability)
                done += 1
    return done
