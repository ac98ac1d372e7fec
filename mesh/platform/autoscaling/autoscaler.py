"""Scales the services of the swarm, while this daemon acts for it: a round every ten seconds.

Without the engine or the store nothing is decided, and so nothing is removed: samples older than a minute do not count.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol, TypeAlias

from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.part import ProblemPart
from mesh.model.problem import Problem, Severity
from mesh.model.service_scaling import ServiceScaling
from mesh.platform.autoscaling.model import ScalingClock, ScalingDecision
from mesh.platform.autoscaling.scaled_services import (
    ScaledService,
    ScalingMoment,
    ScalingStates,
    bases_of,
    scaled_services,
)
from mesh.platform.autoscaling.usage_records import decode_usages
from mesh.platform.autoscaling.usage_reporter import INTERVAL
from mesh.platform.fleet.errors import FleetError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.acting_daemon import ServiceScaler
from mesh.store import StoreError
from mesh.store.usage import UsageStore

log = logging.getLogger("vipmesh")

OpenUsageStore: TypeAlias = Callable[[], Awaitable[UsageStore]]


class ScalingConditions(Protocol):
    """Takes what was decided, and what keeps it from deciding."""

    scaling: tuple[ServiceScaling, ...]

    def found(self, part: str, problems: tuple[Problem, ...]) -> None:
        """Replace the problems of this part."""
        ...


class Autoscaler(ServiceScaler):
    """Decides and acts. The owner calls `step` often while it acts, and `rest` when it does not."""

    def __init__(
        self,
        fleet: Fleet,
        open_store: OpenUsageStore,
        conditions: ScalingConditions,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` returns seconds since the epoch."""
        self._fleet = fleet
        self._open_store = open_store
        self._conditions = conditions
        self._wall = wall
        self._store: UsageStore | None = None
        self._states = ScalingStates()
        self._due = 0.0
        self.decisions: Mapping[str, ScalingDecision] = {}
        """What was decided last, by owner; empty while another daemon acts."""

    @override
    async def step(self, still_acts: Callable[[], bool]) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._due:
            return
        self._due = now + INTERVAL
        decided, self.decisions = self.decisions, {}
        self._conditions.scaling = ()  # without an engine or a store nothing is decided
        found = await self._services()
        if not found:
            self._report(None)
            return
        try:
            usages = decode_usages(await (await self._opened()).read())
        except StoreError as error:
            self._report(error)
            return
        self._report(None)
        self._states.history.take(usages, bases_of(found), now)
        decisions = {}
        for moment in self._states.decide(found, ScalingClock(now, self._wall())):
            done = not moment.changes or (still_acts() and await self._change(moment))
            self._states.keep(moment, carried_out=done)
            decision = moment.decision if done else _not_done(moment.decision)
            self._tell(decision, decided.get(decision.service))
            decisions[decision.service] = decision
        self.decisions = decisions
        self._conditions.scaling = tuple(map(_status, decisions.values()))

    @override
    def seconds_to_step(self) -> float:
        return max(0.0, self._due - asyncio.get_running_loop().time())

    @override
    async def rest(self) -> None:
        self.decisions = {}
        self._conditions.scaling = ()
        self._states = ScalingStates()
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def _services(self) -> tuple[ScaledService, ...]:
        services = await self._fleet.services()
        if not scaled_services(services, (), ()):
            return ()
        return scaled_services(services, await self._fleet.tasks(), await self._fleet.workers())

    async def _opened(self) -> UsageStore:
        if self._store is None:
            self._store = await self._open_store()
        return self._store

    async def _change(self, moment: ScalingMoment) -> bool:
        """Write the number, on the version that was read; return whether the engine has it for sure."""
        engine = moment.service.engine
        try:
            await self._fleet.replace(engine.id, engine.version, moment.spec)
        except FleetError as error:
            # Somebody was faster, or nobody knows: the next round looks at what is there.
            log.warning("autoscaling: %s was not changed: %s", moment.service.owner, error, extra=error.code.extra)
            return False
        return True

    def _tell(self, decision: ScalingDecision, before: ScalingDecision | None) -> None:
        if decision.wanted != decision.before:
            log.info("autoscaling: %s", decision.line, extra=Code.AUTOSCALED.extra)
        elif before is None or before.reason is not decision.reason:
            log.debug("autoscaling: %s", decision.line)

    def _report(self, error: StoreError | None) -> None:
        problems: tuple[Problem, ...] = ()
        if error is not None:
            remedy = "bring the store back; until then no service gets more or fewer instances by its load"
            problems = (
                Problem(Code.USAGE_NOT_READ, Severity.WARNING, "autoscaling", f"usage cannot be read: {error}", remedy),
            )
        self._conditions.found(ProblemPart.SCALING, problems)


def _not_done(decision: ScalingDecision) -> ScalingDecision:
    return replace(decision, wanted=decision.before, why=f"{decision.why}; {decision.wanted} could not be written")


def _status(decision: ScalingDecision) -> ServiceScaling:
    low, high = decision.bounds
    values = {measure.value: round(value, 1) for measure, value in decision.values.items()}
    return ServiceScaling(
        decision.service, decision.before, decision.wanted, low, high, decision.reason.value, decision.why, values
    )
