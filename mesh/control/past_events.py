"""Computes the events of a worker from the difference of two of its states. Pure.

A record is what the events so far amount to: the endpoints that are there, the services with their VIPs, and the
workers. It is kept across restarts of the daemon, so that a restart makes no events of what has not changed. Replaying
the events gives the endpoints of the record (`replay_endpoints`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_

import msgspec

from mesh.cluster.cut_off import statement_of
from mesh.model.codes import Code
from mesh.model.eligibility import effective_health, serves, vip_of
from mesh.model.errors import CodedText
from mesh.model.part import ProblemPart
from mesh.model.past_event import MAX_EVENT_NAMES, EventKind, PastEvent, bounded_text
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.problem import Problem, Severity
from mesh.model.release_rollout import RolloutPhase
from mesh.model.service import Address, DrainReason, Endpoint, EndpointKey, Health, Name, Service, same_run
from mesh.model.service_scaling import ServiceScaling
from mesh.model.view import ClusterView, EndpointGroup

CONFLICTS = frozenset({Code.NAME_TAKEN, Code.VIP_TAKEN, Code.PUBLISHED_PORT_TAKEN, Code.PUBLISHED_PORT_IN_USE})
"""Codes of problems in which two services, or a service and a program, want the same thing."""
MAX_LOST_WORKERS = 1000
"""The most lost workers that are remembered."""

_DRAINS: Mapping[DrainReason, str] = {
    DrainReason.ASKED: "an operator drained it",
    DrainReason.STOPPING: "its container is being stopped",
    DrainReason.PAUSED: "its container is paused",
    DrainReason.UNREACHABLE: "this worker cannot reach it",
    DrainReason.MAINTENANCE: "an operator put it in maintenance",
}


class RecordedEndpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last recorded state of an endpoint."""

    # A `Struct`: a change of one endpoint makes, compares and writes those of its whole service.

    worker: str
    id: str
    address: Address
    name: str | None = None
    """The container's name; None if it is the same as the id."""
    health: Health | None = None
    """The last verdict, `HEALTHY` or `UNHEALTHY`; None before the first one."""
    drain: DrainReason | None = None
    """Why it takes no new connections; None if it takes them."""
    run: str | None = None
    """Its process, see `Endpoint.run`; None if it is not known."""
    asked_weight: int | None = None
    """The weight that an operator requested; None if it has that of its label."""

    @property
    def key(self) -> EndpointKey:
        """Its key, which is unique in the cluster."""
        return self.worker, self.id


class RecordedService(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last recorded state of a service and of its endpoints."""

    service: Name | None = None
    """Its first routing name; None if no worker declares it."""
    names: tuple[Name, ...] = ()
    ports: tuple[int, ...] = ()
    """Its listen ports and fixed published ports."""
    vip: Address | None = None
    """Its VIP; None if it has none."""
    serving: bool = False
    """Whether an endpoint of it serves."""
    endpoints: tuple[RecordedEndpoint, ...] = ()


_NO_SERVICE = RecordedService()
_NO_GROUP = EndpointGroup((), ())


@dataclass(frozen=True, slots=True)
class EventRecord:
    """What the events so far amount to."""

    services: PersistentMap[str, RecordedService] = field(default_factory=PersistentMap)
    """The services by owner."""
    workers: frozenset[str] = frozenset()
    """Workers whose daemons are registered."""
    lost: frozenset[str] = frozenset()
    """Workers that were lost and are not back."""
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    """The current problems by the part that found them. They are not kept across a restart: all of them begin again."""
    troubles: Mapping[str, CodedText] = field(default_factory=dict)
    """Other conditions, like `EventMoment.troubles`; not kept across a restart either."""
    repairs: int = 0
    """The number of reverted changes since the start of the daemon."""
    scaling: tuple[ServiceScaling, ...] = ()
    """The last decisions of autoscaling that were recorded; not kept across a restart."""
    known: ClusterView | None = None
    """The view that was recorded; None after a start."""
    traffic: ClusterView | None = None
    """The view that traffic follows, which was recorded; None after a start."""


@dataclass(frozen=True, slots=True)
class EventMoment:
    """The state of a worker that is recorded."""

    at: float
    """The time, in seconds since 1970."""
    worker: str
    known: ClusterView
    """The view with unmodified verdicts."""
    traffic: ClusterView
    """The view with the verdicts that traffic follows."""
    running: frozenset[str] | None = frozenset()
    """Own endpoints that run, by ID, so that they are not gone although the view does not have them (yet); None if it
    is not known which ones run, so that none of the own endpoints is gone.
    """
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    """All current problems by the part that found them. Parts whose problems are the same object have not changed."""
    troubles: Mapping[str, CodedText] = field(default_factory=dict)
    """Other conditions that operators should know, by what they are about: parts that do not answer, operations that
    the data plane refuses, suspected mass failures.
    """
    repairs: int = 0
    """The number of changes from outside that were reverted since the start."""
    scaling: tuple[ServiceScaling, ...] = ()
    """The last decision of autoscaling on each service."""
    probe_answer: Callable[[EndpointKey], str | None] = lambda _: None
    """Returns the last answer to the probe of an endpoint; None if it is not known."""
    drained_by: Mapping[str, str] = field(default_factory=dict)
    """Who requested the drain of an own endpoint, by its ID."""
    weighted_by: Mapping[str, str] = field(default_factory=dict)
    """Who requested the weight of an own endpoint, or its reset, by its ID."""


def record_events(before: EventRecord, moment: EventMoment) -> tuple[EventRecord, tuple[PastEvent, ...]]:
    """Return the record of this moment, and the events since `before`.

    The work follows what has changed: the services whose groups of endpoints are other objects, or all of them if a
    declaration or claim has changed.
    """
    known, traffic = moment.known, moment.traffic
    changes: dict[str, RecordedService | None] = {}
    events: list[PastEvent] = []
    # What goes comes first: an endpoint whose label moves it to another service goes from one and comes to the other.
    gone: list[PastEvent] = []
    declared: Mapping[str, Service] | None = None
    for owner in sorted(_changed_owners(before, moment)):
        if declared is None:
            declared = {service.owner: service for service in known.services}
        old, service = before.services.get(owner, _NO_SERVICE), declared.get(owner)
        new = _recorded_service(owner, service, old, _former_group(owner, old, before, moment), moment)
        if new != old:
            changes[owner] = new if new != _NO_SERVICE else None
            changed = _ServiceEvents(owner, old, new, moment)
            gone += changed.gone()
            events += changed.others()
    services = before.services.changed(changes) if changes else before.services
    events += _rollout_events(before, moment, services)
    events += _worker_events(before, moment)
    events += _problem_events(before, moment, services)
    events += _trouble_events(before.troubles, moment)
    events += _scaling_events(before, moment)
    if moment.repairs > before.repairs:
        count = moment.repairs - before.repairs
        text = (
            f"{count} changes made outside vipmesh were reverted" if count > 1 else "a change from outside was reverted"
        )
        events.append(
            PastEvent(
                at=moment.at, kind=EventKind.REPAIRED, code=str(Code.CHANGED_OUTSIDE), text=text, worker=moment.worker
            )
        )
    lost = (before.lost | (before.workers - known.workers)) - known.workers
    return (
        EventRecord(
            services,
            known.workers,
            lost if len(lost) <= MAX_LOST_WORKERS else frozenset(sorted(lost)[:MAX_LOST_WORKERS]),
            moment.problems,
            moment.troubles,
            moment.repairs,
            moment.scaling,
            known,
            traffic,
        ),
        (*gone, *events),
    )


def recording_effort(before: EventRecord, moment: EventMoment) -> int:
    """Return the approximate number of services and endpoints, those that are gone included, that `record_events` will
    visit.
    """
    owners = _changed_owners(before, moment)
    groups, recorded = moment.known.groups, before.services
    now = sum(len(groups[owner].endpoints) for owner in owners if owner in groups)
    return len(owners) + now + sum(len(recorded[owner].endpoints) for owner in owners if owner in recorded)


def replay_endpoints(events: Iterable[PastEvent]) -> frozenset[EndpointKey]:
    """Return the endpoints that are there after these events, the oldest first, if there were none before them."""
    there: set[EndpointKey] = set()
    for event in events:
        if event.worker is None or event.endpoint is None:
            continue
        if event.kind is EventKind.ENDPOINT_CAME:
            there.add((event.worker, event.endpoint))
        elif event.kind is EventKind.ENDPOINT_GONE:
            there.discard((event.worker, event.endpoint))
    return frozenset(there)


def _changed_owners(before: EventRecord, moment: EventMoment) -> set[str]:
    known, traffic = before.known, before.traffic
    if known is None or traffic is None or not _is_declared_alike(known, moment.known):
        return {
            *before.services,
            *moment.known.groups,
            *(service.owner for service in moment.known.services),
        }
    return changed_keys(known.groups, moment.known.groups) | changed_keys(traffic.groups, moment.traffic.groups)


def _is_declared_alike(old: ClusterView, new: ClusterView) -> bool:
    """Return whether the declarations and claims of both views are the same objects."""
    return old.services is new.services and old.claims is new.claims


def _former_group(owner: str, old: RecordedService, before: EventRecord, moment: EventMoment) -> EndpointGroup | None:
    """Return the group that `old` was recorded from, endpoint by endpoint; None if everything is to be looked at."""
    if before.known is None or not _is_declared_alike(before.known, moment.known):
        return None
    group = before.known.groups.get(owner, _NO_GROUP)
    return group if len(group.endpoints) == len(old.endpoints) else None


def _recorded_service(
    owner: str, service: Service | None, old: RecordedService, former: EndpointGroup | None, moment: EventMoment
) -> RecordedService:
    group = moment.known.groups.get(owner, _NO_GROUP)
    if former is not None and _has_same_endpoints(former, group):
        endpoints = _judged_endpoints(service, old.endpoints, former, group)
    else:
        endpoints = _recorded_endpoints(service, old.endpoints, group, moment)
    if service is None:
        return RecordedService(endpoints=endpoints)
    if former is None or old.service is None:
        vip, ports = vip_of(service, moment.known), _ports_of(service)
        old = RecordedService(service.name, service.names[:MAX_EVENT_NAMES], ports, vip)
    return RecordedService(
        old.service, old.names, old.ports, old.vip, _is_serving(owner, service, old.vip, moment), endpoints
    )


def _has_same_endpoints(old: EndpointGroup, new: EndpointGroup) -> bool:
    return len(old.endpoints) == len(new.endpoints) and all(map(is_, old.endpoints, new.endpoints))


def _judged_endpoints(
    service: Service | None, old: tuple[RecordedEndpoint, ...], former: EndpointGroup, group: EndpointGroup
) -> tuple[RecordedEndpoint, ...]:
    """Return the records of the same endpoints with other verdicts. The usual change costs one record, not all."""
    changed = [
        number
        for number, (before, now) in enumerate(zip(former.verdicts, group.verdicts, strict=True))
        if before is not now
    ]
    if not changed:
        return old
    endpoints = list(old)
    for number in changed:
        endpoints[number] = _recorded_endpoint(service, group.endpoints[number], old[number], group.verdicts[number])
    return tuple(endpoints)


def _recorded_endpoints(
    service: Service | None, old: tuple[RecordedEndpoint, ...], group: EndpointGroup, moment: EventMoment
) -> tuple[RecordedEndpoint, ...]:
    former = {endpoint.key: endpoint for endpoint in old}
    endpoints = [
        _recorded_endpoint(service, endpoint, former.get(endpoint.key), probed)
        for endpoint, probed in zip(group.endpoints, group.verdicts, strict=True)
    ]
    there = {endpoint.key for endpoint in endpoints}
    endpoints += [each for key, each in former.items() if key not in there and _still_runs(key, moment)]
    return tuple(endpoints)


def _ports_of(service: Service) -> tuple[int, ...]:
    """Return the listen ports and fixed published ports of a service, sorted and bounded."""
    ports = sorted(
        {
            *(route.listen_port for route in service.routes),
            *(publish.port for publish in service.publishes if publish.port is not None),
        }
    )
    return tuple(ports[:MAX_EVENT_NAMES])


def _is_serving(owner: str, service: Service, vip: Address | None, moment: EventMoment) -> bool:
    effective = moment.traffic.groups.get(owner, _NO_GROUP)
    return vip is not None and any(
        serves(service, endpoint, vip, {} if probed is None else {endpoint.key: probed})
        for endpoint, probed in zip(effective.endpoints, effective.verdicts, strict=True)
    )


def _still_runs(key: EndpointKey, moment: EventMoment) -> bool:
    """Return whether an own endpoint that its group does not have is there all the same."""
    worker, id = key
    if worker != moment.worker or key in moment.known.by_key:
        return False
    return moment.running is None or id in moment.running


def _recorded_endpoint(
    service: Service | None, endpoint: Endpoint, old: RecordedEndpoint | None, probed: Health | None
) -> RecordedEndpoint:
    verdict = None if service is None else effective_health(service, endpoint, probed)
    restarted = old is not None and not same_run(old.run, endpoint.run)
    if verdict not in (Health.HEALTHY, Health.UNHEALTHY):
        # No result yet, or none any more: the last verdict stands until the next one, unless the process is new.
        verdict = None if old is None or restarted else old.health
    run = endpoint.run if endpoint.run is not None or old is None else old.run
    return RecordedEndpoint(
        endpoint.worker,
        endpoint.id,
        endpoint.address,
        endpoint.name,
        verdict,
        endpoint.drain,
        run,
        endpoint.asked_weight,
    )


@dataclass(frozen=True, slots=True)
class _ServiceEvents:
    """Yields the events between two records of one service."""

    owner: str
    old: RecordedService
    new: RecordedService
    moment: EventMoment

    def gone(self) -> Iterator[PastEvent]:
        """Yield the events of endpoints that are gone."""
        if self._same_places():
            return
        now = {endpoint.key for endpoint in self.new.endpoints}
        for endpoint in self.old.endpoints:
            if endpoint.key not in now:
                yield self._of_endpoint(endpoint, EventKind.ENDPOINT_GONE, Code.EVENT_OF_ENDPOINT, "is gone")

    def others(self) -> Iterator[PastEvent]:
        """Yield all other events, those of endpoints before those of the service."""
        for before, endpoint in self._pairs():
            if before is not endpoint and before != endpoint:
                yield from self._endpoint_events(before, endpoint)
        yield from self._service_events()

    def _pairs(self) -> Iterable[tuple[RecordedEndpoint | None, RecordedEndpoint]]:
        """Return each endpoint with its former record; None if it had none."""
        if self._same_places():
            return zip(self.old.endpoints, self.new.endpoints, strict=True)
        before = {endpoint.key: endpoint for endpoint in self.old.endpoints}
        return [(before.get(endpoint.key), endpoint) for endpoint in self.new.endpoints]

    def _same_places(self) -> bool:
        """Return whether both records have the same endpoints in the same order: the usual case, and cheap to see."""
        old, new = self.old.endpoints, self.new.endpoints
        return len(old) == len(new) and all(
            before is now or before.key == now.key for before, now in zip(old, new, strict=True)
        )

    def _endpoint_events(self, old: RecordedEndpoint | None, new: RecordedEndpoint) -> Iterator[PastEvent]:
        if old is None:
            state = f"came at {new.address}"
            yield self._of_endpoint(new, EventKind.ENDPOINT_CAME, Code.EVENT_OF_ENDPOINT, state)
            old = RecordedEndpoint(new.worker, new.id, new.address, new.name, run=new.run)
        elif not same_run(old.run, new.run):
            yield self._of_endpoint(new, EventKind.ENDPOINT_RESTARTED, Code.EVENT_OF_ENDPOINT, "has a new process")
            old = msgspec.structs.replace(old, health=None)
        if new.health is not old.health and new.health is not None:
            failed = new.health is Health.UNHEALTHY
            kind = EventKind.ENDPOINT_FAILED if failed else EventKind.ENDPOINT_HEALTHY
            answer = self.moment.probe_answer(new.key)
            state = f"{'failed' if failed else 'became healthy'}{f': {answer}' if answer else ''}"
            yield self._of_endpoint(new, kind, Code.EVENT_OF_HEALTH, state, reason=answer)
        if new.drain is not old.drain:
            yield self._drain_event(new)
        if new.asked_weight != old.asked_weight:
            yield self._weight_event(new)

    def _weight_event(self, endpoint: RecordedEndpoint) -> PastEvent:
        own = endpoint.worker == self.moment.worker
        by = self.moment.weighted_by.get(endpoint.id) if own else None
        asked = endpoint.asked_weight
        state = "has the weight of its label again" if asked is None else f"has weight {asked}: an operator set it"
        return self._of_endpoint(
            endpoint,
            EventKind.ENDPOINT_WEIGHT,
            Code.EVENT_OF_WEIGHT,
            f"{state}{f' ({by})' if by else ''}",
            reason="reset" if asked is None else str(asked),
            by=by,
        )

    def _drain_event(self, endpoint: RecordedEndpoint) -> PastEvent:
        if endpoint.drain is None:
            return self._of_endpoint(
                endpoint, EventKind.ENDPOINT_UNDRAINED, Code.EVENT_OF_DRAIN, "takes new connections again"
            )
        reason = _DRAINS[endpoint.drain]
        by_hand = (
            endpoint.drain in (DrainReason.ASKED, DrainReason.MAINTENANCE) and endpoint.worker == self.moment.worker
        )
        by = self.moment.drained_by.get(endpoint.id) if by_hand else None
        state = f"takes no new connections: {reason}{f' ({by})' if by else ''}"
        return self._of_endpoint(
            endpoint, EventKind.ENDPOINT_DRAINED, Code.EVENT_OF_DRAIN, state, reason=endpoint.drain.value, by=by
        )

    def _service_events(self) -> Iterator[PastEvent]:
        old, new = self.old, self.new
        if new.vip is not None and new.vip != old.vip:
            yield self._of_service(EventKind.SERVICE_VIP, f"got the VIP {new.vip}")
        if new.serving and not old.serving:
            yield self._of_service(EventKind.SERVICE_SERVES, "has an endpoint that serves")
        if old.serving and not new.serving:
            yield self._of_service(EventKind.SERVICE_EMPTY, "lost its last endpoint that served")
        if old.service is not None and new.service is None:
            yield self._of_service(EventKind.SERVICE_GONE, "is declared by no worker any more")

    def _of_endpoint(
        self,
        endpoint: RecordedEndpoint,
        kind: EventKind,
        code: Code,
        state: str,
        *,
        reason: str | None = None,
        by: str | None = None,
    ) -> PastEvent:
        service = self.new.service or self.old.service
        called = endpoint.name or endpoint.id
        return PastEvent(
            at=self.moment.at,
            kind=kind,
            code=str(code),
            text=bounded_text(f"endpoint {called} of {service or self.owner} on {endpoint.worker} {state}"),
            worker=bounded_text(endpoint.worker),
            owner=bounded_text(self.owner),
            service=service,
            endpoint=bounded_text(endpoint.id),
            name=None if endpoint.name is None else bounded_text(endpoint.name),
            address=endpoint.address,
            reason=None if reason is None else bounded_text(reason),
            by=None if by is None else bounded_text(by),
        )

    def _of_service(self, kind: EventKind, state: str) -> PastEvent:
        shown = self.new if self.new.service is not None else self.old
        return PastEvent(
            at=self.moment.at,
            kind=kind,
            code=str(Code.EVENT_OF_SERVICE),
            text=bounded_text(f"service {shown.service or self.owner} {state}"),
            owner=bounded_text(self.owner),
            service=shown.service,
            names=shown.names,
            vip=shown.vip,
            ports=shown.ports,
        )


def _rollout_events(
    before: EventRecord, moment: EventMoment, services: Mapping[str, RecordedService]
) -> Iterator[PastEvent]:
    """Yield the events of rollouts; none after a start, when it is not known what has changed."""
    if before.known is None or before.known.rollouts is moment.known.rollouts:
        return
    for owner in sorted(changed_keys(before.known.rollouts, moment.known.rollouts)):
        old, new = before.known.rollouts.get(owner), moment.known.rollouts.get(owner)
        if new is None or (old is not None and old.words == new.words) or (old is None and not new.is_running):
            continue
        kind, code = _ROLLOUT_EVENTS.get(new.phase, (EventKind.ROLLOUT_STEP, Code.ROLLOUT_STEP))
        shown = services.get(owner, _NO_SERVICE)
        yield PastEvent(
            at=moment.at,
            kind=kind,
            code=str(code),
            text=bounded_text(f"rollout of {owner}: {new.words} ({new.reason})"),
            owner=bounded_text(owner),
            service=shown.service,
            reason=bounded_text(new.reason),
        )


_ROLLOUT_EVENTS = {
    RolloutPhase.ABORTED: (EventKind.ROLLOUT_ABORTED, Code.ROLLOUT_ABORTED),
    RolloutPhase.DONE: (EventKind.ROLLOUT_DONE, Code.ROLLOUT_DONE),
}


def _worker_events(before: EventRecord, moment: EventMoment) -> Iterator[PastEvent]:
    workers = moment.known.workers
    for kind, state, found in (
        (EventKind.WORKER_LOST, "is lost: its daemon is not registered any more", before.workers - workers),
        (EventKind.WORKER_BACK, "is back", (workers - before.workers) & before.lost),
        (EventKind.WORKER_CAME, "came", workers - before.workers - before.lost),
    ):
        for worker in sorted(found):
            state_of = state
            told = statement_of(moment.problems.get(ProblemPart.PEERS, ()), worker)
            if told is not None and kind is EventKind.WORKER_LOST:
                state_of = f"is not registered any more: {told.reason}"
            text = bounded_text(f"worker {worker} {state_of}")
            yield PastEvent(
                at=moment.at,
                kind=kind,
                code=str(Code.EVENT_OF_WORKER),
                text=bounded_text(text),
                worker=bounded_text(worker),
            )


def _scaling_events(before: EventRecord, moment: EventMoment) -> Iterator[PastEvent]:
    """Yield the changes of numbers that were decided since the last look: one is made for each decision."""
    if before.scaling is moment.scaling:
        return
    told = {id(each) for each in before.scaling}
    for each in moment.scaling:
        if each.wanted != each.instances and id(each) not in told:
            text = f"{each.service} is scaled from {each.instances} to {each.wanted}: {each.text}"
            yield PastEvent(
                at=moment.at,
                kind=EventKind.SERVICE_SCALED,
                code=str(Code.AUTOSCALED),
                text=bounded_text(text),
                worker=moment.worker,
                owner=bounded_text(each.service),
                reason=bounded_text(each.text),
            )


def _problem_key(problem: Problem) -> str:
    """Return what a problem is about, without its reason: that has counts and times, which change while it lasts."""
    return "\n".join(filter(None, (str(problem.code), problem.where, problem.subject, problem.owner, problem.label)))


def _problem_events(
    before: EventRecord, moment: EventMoment, services: Mapping[str, RecordedService]
) -> Iterator[PastEvent]:
    for part in sorted(before.problems.keys() | moment.problems.keys()):
        old, new = before.problems.get(part, ()), moment.problems.get(part, ())
        if old is new:
            continue
        former, now = ({_problem_key(problem): problem for problem in problems} for problems in (old, new))
        for key, problem in now.items():
            if key not in former:
                event = _problem_event(problem, moment, services)
                yield msgspec.structs.replace(
                    event, kind=_problem_kind(problem), code=str(problem.code), text=bounded_text(str(problem))
                )
        for key, problem in former.items():
            if key not in now:
                yield _problem_event(problem, moment, services)


def _trouble_events(before: Mapping[str, CodedText], moment: EventMoment) -> Iterator[PastEvent]:
    now, worker = moment.troubles, moment.worker
    for about in sorted(now.keys() - before.keys()):
        text, code = bounded_text(now[about].text), str(now[about].code)
        yield PastEvent(at=moment.at, kind=EventKind.PROBLEM_BEGAN, code=code, text=text, worker=worker)
    for about in sorted(before.keys() - now.keys()):
        text = bounded_text(f"{about}: the problem {before[about].code} ended")
        code = str(Code.EVENT_OF_PROBLEM_END)
        yield PastEvent(at=moment.at, kind=EventKind.PROBLEM_ENDED, code=code, text=text, worker=worker)


def _problem_kind(problem: Problem) -> EventKind:
    if problem.code in CONFLICTS:
        return EventKind.CONFLICT
    refused = problem.label is not None and problem.severity is Severity.ERROR
    return EventKind.LABEL_REFUSED if refused else EventKind.PROBLEM_BEGAN


def _problem_event(problem: Problem, moment: EventMoment, services: Mapping[str, RecordedService]) -> PastEvent:
    """Return the event of the end of a problem."""
    owner = problem.owner
    recorded = None if owner is None else services.get(owner)
    return PastEvent(
        at=moment.at,
        kind=EventKind.PROBLEM_ENDED,
        code=str(Code.EVENT_OF_PROBLEM_END),
        text=bounded_text(f"{problem.subject}: the problem {problem.code} ended"),
        worker=moment.worker,
        owner=None if owner is None else bounded_text(owner),
        service=None if recorded is None else recorded.service,
        reason=bounded_text(problem.reason),
    )
