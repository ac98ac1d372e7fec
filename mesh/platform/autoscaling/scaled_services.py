"""Finds the services that are scaled among those of the engine, and keeps what was decided of each. Pure.

The engine is asked for everything each time: how many instances there are, who has set their number, and the labels
that say how it follows the load. A number that autoscaling has set is written beside it, in a label of the engine
service. So another daemon that acts from now on, or one that does not know whether its change has arrived, tells its
own number from that of a person.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mesh.config.labels.auto_scaling import parse_auto_scaling
from mesh.model.auto_scaling import AutoScaling
from mesh.platform.autoscaling.model import ScalingClock, ScalingDecision, ScalingState, ScalingSubject
from mesh.platform.autoscaling.policy import decide
from mesh.platform.autoscaling.schedule import bounds_at
from mesh.platform.autoscaling.usage_history import ScalingBase, UsageHistory
from mesh.platform.fleet.protocol import (
    FleetAvailability,
    FleetService,
    FleetSpec,
    FleetTask,
    FleetWorker,
)
from mesh.platform.stacks.model import AUTOSCALED_LABEL, SERVICE_LABEL, STACK_LABEL
from mesh.platform.stacks.moves import MOVING_LABEL

MAX_SCALED_SERVICES = 1000
"""The most services that are scaled; the others keep their numbers."""
_NANOS = 1_000_000_000
_CREATION = 5.0
"""Seconds in which a service is created: a change after that is somebody's."""


@dataclass(frozen=True, slots=True)
class ScaledService:
    """One service whose number of instances follows its load, as the engine has it now."""

    engine: FleetService
    """Its newest release."""
    policy: AutoScaling
    base: ScalingBase
    subject: ScalingSubject

    @property
    def owner(self) -> str:
        """`project/service`."""
        return self.subject.service

    @property
    def set_by_autoscaling(self) -> bool:
        """Whether its number is the one that autoscaling has set last."""
        return self.engine.spec.labels.get(AUTOSCALED_LABEL) == str(self.subject.instances)

    @property
    def set_by_person(self) -> bool:
        """Whether somebody may have set the number since the service was created, and not autoscaling."""
        if AUTOSCALED_LABEL in self.engine.spec.labels:
            return not self.set_by_autoscaling
        return self.engine.changed - self.engine.created > _CREATION


@dataclass(frozen=True, slots=True)
class ScalingMoment:
    """What a round decided of a service: the decision, and the state before and after it."""

    service: ScaledService
    decision: ScalingDecision
    before: ScalingState
    """Kept if the change cannot be carried out."""
    after: ScalingState

    @property
    def changes(self) -> bool:
        """Whether the engine is to have another number."""
        return self.decision.wanted != self.decision.before

    @property
    def spec(self) -> FleetSpec:
        """What the engine service shall be."""
        return autoscaled_spec(self.service.engine.spec, self.decision.wanted)


@dataclass(slots=True)
class ScalingStates:
    """The states of all scaled services, from one round to the next."""

    history: UsageHistory = field(default_factory=UsageHistory)
    states: dict[str, ScalingState] = field(default_factory=dict)

    def decide(self, services: Sequence[ScaledService], clock: ScalingClock) -> tuple[ScalingMoment, ...]:
        """Return what is decided of each service. The states stay those of before: the owner calls `keep`."""
        self.states = {each.owner: self.states.get(each.owner, ScalingState()) for each in services}
        return tuple(self._decide(each, clock) for each in services)

    def keep(self, moment: ScalingMoment, *, carried_out: bool) -> None:
        """Keep the state after a decision, or that of before if its change could not be carried out."""
        self.states[moment.service.owner] = moment.after if carried_out else moment.before

    def _decide(self, service: ScaledService, clock: ScalingClock) -> ScalingMoment:
        before = _known_state(self.states[service.owner], service, clock)
        samples = self.history.samples(service.owner)
        decision, after = decide(service.policy, service.subject, samples, before, clock)
        return ScalingMoment(service, decision, before, after)


def autoscaled_spec(spec: FleetSpec, instances: int) -> FleetSpec:
    """Return the engine service with the number that autoscaling sets."""
    return replace(spec, instances=instances, labels={**spec.labels, AUTOSCALED_LABEL: str(instances)})


def scaled_policy(spec: FleetSpec) -> AutoScaling | None:
    """Return how an engine service is scaled; None if it is not, or if a label is wrong, which `deploy` has said."""
    if spec.instances is None or STACK_LABEL not in spec.labels:
        return None
    return parse_auto_scaling(spec.labels, "service")[0]


def scaled_services(
    services: Iterable[FleetService], tasks: Iterable[FleetTask], workers: Iterable[FleetWorker]
) -> tuple[ScaledService, ...]:
    """Return the services that are scaled, sorted by owner.

    A service with two releases is being replaced: its newest one is returned, and it counts as rolling out.
    """
    releases: dict[str, list[FleetService]] = {}
    for service in services:
        owner = service.spec.labels.get(SERVICE_LABEL, "")
        if owner and STACK_LABEL in service.spec.labels:
            releases.setdefault(owner, []).append(service)
    by_service: dict[str, list[FleetTask]] = {}
    for task in tasks:
        by_service.setdefault(task.service_id, []).append(task)
    away = {each.id for each in workers if each.availability is not FleetAvailability.ACTIVE}
    found = []
    for owner, of in sorted(releases.items()):
        newest = max(of, key=lambda each: (each.created, each.id))
        policy = scaled_policy(newest.spec)
        if policy is not None:
            subject = _subject(owner, newest.spec, by_service.get(newest.id, ()), away)
            base = _base(newest.spec)
            found.append(ScaledService(newest, policy, base, replace(subject, is_rolling_out=len(of) > 1)))
    return tuple(found[:MAX_SCALED_SERVICES])


def kept_instances(policy: AutoScaling, written: int, running: int | None, wall: float) -> int:
    """Return how many instances a deploy gives a service that is scaled: those that run, else those of its file,
    within the bounds of this time.

    `wall`: seconds since the epoch.
    """
    low, high = bounds_at(policy, wall)
    return min(max(written if running is None else running, low), high)


def _base(spec: FleetSpec) -> ScalingBase:
    return ScalingBase(
        spec.limits.cpu_nanos / _NANOS,
        spec.reservations.cpu_nanos / _NANOS,
        spec.limits.memory_bytes,
        spec.reservations.memory_bytes,
    )


def _subject(owner: str, spec: FleetSpec, tasks: Sequence[FleetTask], away: set[str]) -> ScalingSubject:
    wanted = [task for task in tasks if task.desired == "running"]
    base = _base(spec)
    return ScalingSubject(
        owner,
        spec.instances or 0,
        next((task.reason or task.state for task in wanted if not task.worker_id), ""),
        False,
        MOVING_LABEL in spec.labels or any(task.worker_id in away for task in wanted),
        _base_name(base.cpu_limit, base.cpu_reservation, "of one core"),
        _base_name(base.memory_limit, base.memory_reservation, "of the worker's memory"),
    )


def _base_name(limit: float, reservation: float, otherwise: str) -> str:
    return "of the limit" if limit else "of the reservation" if reservation else otherwise


def _known_state(state: ScalingState, service: ScaledService, clock: ScalingClock) -> ScalingState:
    """Return the state with what the engine tells of changes that this daemon has not made, or not seen arrive."""
    now = service.subject.instances
    if state.instances is None and service.set_by_person:
        # The clock of the engine may be wrong; neither way is the number left alone for longer than the cooldown.
        age = min(max(0.0, clock.wall - service.engine.changed), service.policy.cooldown)
        return replace(
            state,
            instances=now,
            changed_at=clock.now,
            added_at=clock.now,
            set_aside_until=clock.now - age + service.policy.cooldown,
            clock_offset=clock.wall - clock.now,
        )
    if state.instances is not None and state.instances != now and service.set_by_autoscaling:
        added = clock.now if now > state.instances else state.added_at
        return replace(state, instances=now, changed_at=clock.now, added_at=added, low_since=None)
    return state


def bases_of(services: Iterable[ScaledService]) -> Mapping[str, ScalingBase]:
    """Return what per cent are of, by owner."""
    return {each.owner: each.base for each in services}
